"""A JSON body read so that every number keeps its digits.

orjson is fast and strict, with two habits that matter to numbers: it refuses a whole body
for one 1e400, and it turns integers beyond 64 bits into floats. Bodies where that may have
happened are read once more by the standard library, which keeps integers whole and lets
1e400 be named with its row and column.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Final, TypeVar

import orjson

from service.core.errors import UnreadableRequest
from service.protocols.values import NeedsExactParse

T = TypeVar("T")


def read_json(body: bytes, build: Callable[[Any, bool], T], *, allow_nan: bool = False) -> T:
    """`build(parsed body, exact)`, where `exact` says that integers beyond 64 bits are integers.

    With `allow_nan` the words NaN, Infinity and -Infinity, which JSON lacks and some protocols have, are read:
    NaN as null, the others as numbers that no float64 can hold.

    Raises:
        UnreadableRequest: not one JSON text in UTF-8. What `build` raises passes through.
    """
    if not body.strip():
        raise UnreadableRequest("the body is empty; a JSON object was expected")
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        has_words = allow_nan and (b"NaN" in body or b"Infinity" in body)
        if not error.msg.startswith("number is infinity") and not has_words:
            raise UnreadableRequest(f"the body is not valid JSON: {error}") from None
    else:
        try:
            return build(parsed, False)
        except NeedsExactParse:
            pass
    return build(_exact(body, _constant if allow_nan else _refuse_constant), True)


class OutOfRange(float):
    """A number no float64 can hold. It is no `float` to the decoders, and shows as it was written."""

    def __new__(cls, text: str) -> OutOfRange:
        return super().__new__(cls, math.inf)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text[:60]


def _number(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else OutOfRange(text)


def _constant(text: str) -> float | None:
    return None if text == "NaN" else OutOfRange(text)


def _refuse_constant(text: str) -> float:
    raise UnreadableRequest(f"the body is not valid JSON: {text} is not a JSON number")


def _depth(body: bytes) -> int:
    """How deep `body` is nested; what stands between quotes, brackets among it, nests nothing."""
    brackets = _STRING.sub(b"", body).translate(_SQUARED, _OTHERS)
    return max(accumulate(1 if bracket == _OPENING else -1 for bracket in brackets), default=0)


# That of orjson. The standard library's differs from one Python to the next, down to the end of the stack.
_DEPTH: Final = 1024
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_OPENING: Final = ord("[")
_SQUARED: Final = bytes.maketrans(b"{}", b"[]")
_OTHERS: Final = bytes(code for code in range(256) if code not in b"[]{}")


def _exact(body: bytes, constant: Callable[[str], Any]) -> Any:
    if _depth(body) > _DEPTH:
        raise UnreadableRequest("the body is not valid JSON: it is nested too deeply")
    try:
        parsed = json.loads(body.decode(), parse_float=_number, parse_constant=constant)
        # The standard library lets lone surrogates pass, which no UTF-8 text can hold.
        json.dumps(parsed, ensure_ascii=False, default=str).encode()
    except RecursionError:
        raise UnreadableRequest("the body is not valid JSON: it is nested too deeply") from None
    except ValueError as error:  # also JSONDecodeError, UnicodeError and integers of too many digits
        reason = "a string is not valid UTF-8" if isinstance(error, UnicodeError) else "a number is too long"
        detail = error.msg if isinstance(error, json.JSONDecodeError) else reason
        raise UnreadableRequest(f"the body is not valid JSON: {detail}") from None
    return parsed
