"""The trace that a request belongs to, as W3C Trace Context has it: https://www.w3.org/TR/trace-context/."""

from __future__ import annotations

import re
from typing import Final

# version, trace, the caller's own span, flags. Of versions to come, what follows is not for us to read.
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?", re.ASCII)

# Nothing that is valid today is longer than 55; of a later version more may follow.
_LONGEST: Final = 256


def trace_id(traceparent: str | None) -> str | None:
    """The trace's 32 hex digits; None without a header, and with one that is not valid, which is ignored."""
    if traceparent is None or len(traceparent) > _LONGEST:
        return None
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace, parent, more = found.groups()
    if version == "ff" or (version == "00" and more is not None) or not trace.strip("0") or not parent.strip("0"):
        return None
    return trace
