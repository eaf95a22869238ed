"""How a test says which fault it shows: the marker, and what it writes down of what came.

    @fault("H01", sent="Content-Length and Transfer-Encoding in one request", expected="400, connection closed")
    def test_two_framings(front: Front, came: Came) -> None:
        reply = front.raw(request)
        came(reply.status)
        assert ...

Every test of a case asserts; `came` only fills the table that `python -m tests.faults.table` prints. A case may have
several tests, and a test may show several cases. What no test shows is in `left_out.py`, with the reason;
`test_cases.py` holds that every id of `LISTED` is in exactly one of the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

# Writes down what came, for the table; called once or more.
Came = Callable[..., None]

# The last number of each section, all of which begin at 1.
SECTIONS: Final = {
    "H": ("HTTP framing and connections", 31),
    "C": ("Content type, encoding, size", 16),
    "J": ("JSON syntax and numbers", 18),
    "T": ("Table values and shape", 20),
    "N": ("Model names and routing", 8),
    "A": ("Identity, limits, secrets", 21),
    "B": ("Batching, queue, deadlines", 21),
    "M": ("Model files, loading, reload, export", 30),
    "W": ("Processes, signals, machine", 26),
    "G": ("GPU route", 7),
    "R": ("gRPC", 15),
    "S": ("WebSocket and event streams", 8),
    "P": ("/v1/generate proxy", 19),
    "O": ("Logs, metrics, traces, errors", 11),
    "L": ("Command line and packaging", 7),
}
LISTED: Final = tuple(
    f"{section}{number:02}" for section, (_, last) in SECTIONS.items() for number in range(1, last + 1)
)


def fault(*ids: str, sent: str, expected: str) -> pytest.MarkDecorator:
    """Marks a test as showing these cases."""
    assert ids and set(ids) <= set(LISTED), f"no such case: {ids}"
    return pytest.mark.fault(ids=ids, sent=sent, expected=expected)


def shorten(value: Any) -> str:
    """As it fits into a cell of the table."""
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else f"{text[:117]}..."
