from __future__ import annotations

import pytest

from service.protocols.trace import trace_id
from tests.faults.cases import fault

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(f"00-{TRACE}-{SPAN}-01", id="sampled"),
        pytest.param(f"00-{TRACE}-{SPAN}-00", id="not sampled"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01", id="a version to come"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", id="a version to come with more"),
    ],
)
def test_valid_header_names_its_trace(header: str) -> None:
    assert trace_id(header) == TRACE


@fault(
    "O03",
    sent="traceparent: zeros, bad hex, upper case, version ff, too short, too long, 32 KB",
    expected="dropped: the request belongs to no trace",
)
@pytest.mark.parametrize(
    "header",
    [
        pytest.param(None, id="absent"),
        pytest.param("", id="empty"),
        pytest.param(f"00-{'0' * 32}-{SPAN}-01", id="trace of zeros"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", id="span of zeros"),
        pytest.param(f"ff-{TRACE}-{SPAN}-01", id="version that never will be"),
        pytest.param(f"00-{TRACE.upper()}-{SPAN}-01", id="upper case"),
        pytest.param(f"00-{TRACE[:-1]}g-{SPAN}-01", id="bad hex"),
        pytest.param(f"00-{TRACE[:-1]}-{SPAN}-01", id="short"),
        pytest.param(f"00-{TRACE}-{SPAN}-01-more", id="more than version 00 has"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01more", id="more without a dash"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01-{'x' * 32768}", id="32 KB"),
        pytest.param(f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01", id="two headers"),
        pytest.param(f" 00-{TRACE}-{SPAN}-01\r\n", id="line break"),
        pytest.param(f"00-{TRACE[:-1]}٣-{SPAN}-01", id="a digit that is not ASCII"),
    ],
)
def test_bad_header_is_dropped(header: str | None) -> None:
    assert trace_id(header) is None
