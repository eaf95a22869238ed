from __future__ import annotations

import pytest

from service.guards.cors import cors_fields, is_preflight, preflight_fields

APP = "https://app.example"
ASKS = {"origin": APP, "access-control-request-method": "POST"}


def test_allowed_origin_may_read_the_reply() -> None:
    fields = cors_fields({"origin": APP}, [APP])

    assert fields["access-control-allow-origin"] == APP
    assert fields["vary"] == "Origin"
    assert "access-control-allow-credentials" not in fields


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", "*", f"{APP}.evil.example", "http://app.example"]
)
def test_no_other_origin_may(origin: str) -> None:
    assert cors_fields({"origin": origin}, [APP]) == {"vary": "Origin"}
    assert not is_preflight("OPTIONS", {**ASKS, "origin": origin}, [APP])


@pytest.mark.parametrize("headers", [{}, {"origin": APP}, {"origin": "null"}])
def test_unless_told_so_nobody_may(headers: dict[str, str]) -> None:
    assert cors_fields(headers, ()) == {"vary": "Origin"}
    assert not is_preflight("OPTIONS", {**ASKS, **headers}, ())


@pytest.mark.parametrize(
    ("method", "headers", "asks"),
    [
        pytest.param("OPTIONS", ASKS, True, id="a browser asks"),
        pytest.param("POST", ASKS, False, id="the request itself"),
        pytest.param("OPTIONS", {"origin": APP}, False, id="options without a question"),
        pytest.param("OPTIONS", {"access-control-request-method": "POST"}, False, id="no origin"),
    ],
)
def test_preflight_is_told_from_other_requests(method: str, headers: dict[str, str], asks: bool) -> None:
    assert is_preflight(method, headers, [APP]) is asks


def test_preflight_names_the_methods_of_the_path_and_our_headers() -> None:
    fields = preflight_fields(["GET", "HEAD"])

    assert fields["access-control-allow-methods"] == "GET, HEAD"
    assert "x-api-key" in fields["access-control-allow-headers"]
