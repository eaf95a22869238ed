"""Which pages of other origins may ask: none, unless the operator names them.

Nothing is said of credentials: keys come in headers that scripts set, never in cookies that browsers add.
Source: the Fetch standard, section HTTP CORS protocol.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

# What callers of this service send and read beyond what every page may.
_TAKEN: Final = "authorization, content-type, x-api-key, x-request-id, x-request-timeout-ms"
_SHOWN: Final = "x-request-id, retry-after, ratelimit, ratelimit-policy"
# How long a browser may remember the answer: after a change of settings it asks again soon.
_REMEMBERED_S: Final = 600


def cors_fields(headers: Mapping[str, str], allowed: Collection[str]) -> dict[str, str]:
    """What lets a page of an allowed origin read the reply. Caches keep replies to different origins apart."""
    fields = {"vary": "Origin"}
    if (origin := headers.get("origin")) in allowed and origin is not None:
        fields |= {"access-control-allow-origin": origin, "access-control-expose-headers": _SHOWN}
    return fields


def preflight_fields(methods: Collection[str]) -> dict[str, str]:
    """What answers the question a browser asks before a request, beside `cors_fields`."""
    return {
        "access-control-allow-methods": ", ".join(methods),
        "access-control-allow-headers": _TAKEN,
        "access-control-max-age": str(_REMEMBERED_S),
    }


def is_preflight(method: str, headers: Mapping[str, str], allowed: Collection[str]) -> bool:
    """Whether a page of an allowed origin asks whether it may ask. Browsers send no key with it."""
    return method == "OPTIONS" and headers.get("origin") in allowed and "access-control-request-method" in headers
