"""The one table that knows the status codes of gRPC, by those of HTTP that `protocols/status.py` gives."""

from __future__ import annotations

from typing import Final

from grpc import StatusCode

from service.protocols.status import Refusal

CODES: Final = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    405: StatusCode.UNIMPLEMENTED,
    406: StatusCode.INVALID_ARGUMENT,
    408: StatusCode.DEADLINE_EXCEEDED,
    409: StatusCode.ALREADY_EXISTS,
    413: StatusCode.RESOURCE_EXHAUSTED,
    414: StatusCode.INVALID_ARGUMENT,
    415: StatusCode.INVALID_ARGUMENT,
    421: StatusCode.INVALID_ARGUMENT,
    422: StatusCode.INVALID_ARGUMENT,
    426: StatusCode.UNIMPLEMENTED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    431: StatusCode.RESOURCE_EXHAUSTED,
    500: StatusCode.INTERNAL,
    501: StatusCode.UNIMPLEMENTED,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}

# Clients take 8 KiB of headers by default. The message is one of them, in which a byte may be written as three.
DETAILS_BYTES: Final = 2000


def code_of(refusal: Refusal) -> StatusCode:
    return CODES[refusal.status]


def details_of(refusal: Refusal) -> str:
    """What is wrong, as long as it may be."""
    return str(refusal.error).encode()[:DETAILS_BYTES].decode(errors="ignore")
