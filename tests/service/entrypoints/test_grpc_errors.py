from __future__ import annotations

import pytest
from grpc import StatusCode

from service.core.errors import Overloaded, UnknownModel
from service.entrypoints.grpc_errors import CODES, DETAILS_BYTES, code_of, details_of
from service.protocols.status import STATUS, refusal_of


def test_every_status_of_a_refusal_has_its_code() -> None:
    assert {status for _, status, _ in STATUS} <= set(CODES)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownModel(), StatusCode.NOT_FOUND),
        (Overloaded("too much"), StatusCode.UNAVAILABLE),
        (ZeroDivisionError("/secret/path"), StatusCode.INTERNAL),
    ],
)
def test_errors_have_the_codes_that_clients_act_on(error: Exception, code: StatusCode) -> None:
    assert code_of(refusal_of(error)) is code
    assert "/secret/path" not in details_of(refusal_of(error))


def test_details_fit_into_the_headers_that_clients_take() -> None:
    details = details_of(refusal_of(UnknownModel("ü" * DETAILS_BYTES)))

    assert details == "ü" * (DETAILS_BYTES // 2)
