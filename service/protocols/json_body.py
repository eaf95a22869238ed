"""A JSON body read so that every number keeps its digits.

orjson is fast and strict, with two habits that matter to numbers: it refuses a whole body
for one 1e400, and it turns integers beyond 64 bits into floats. Bodies where that may have
happened are read once more by the standard library, which keeps integers whole and lets
1e400 be named with its row and column. Both take the last of a key that comes twice.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import orjson

from service.core.errors import UnreadableRequest
from service.protocols.values import NeedsExactParse

T = TypeVar("T")

# Lists and objects within each other. The deepest that any dialect has a meaning for are five.
MAX_DEPTH: Final = 32
# Of an integer: float64 ends at 309, and Python reads them in quadratic time.
MAX_DIGITS: Final = 1000


def read_json(body: bytes, build: Callable[[Any, bool], T], *, allow_nan: bool = False, what: str = "the body") -> T:
    """`build(parsed body, exact)`, where `exact` says that integers beyond 64 bits are integers.

    `what` is what errors call the text, where it is but a part of a body.

    With `allow_nan` the words NaN, Infinity and -Infinity, which JSON lacks and some protocols have, are read:
    NaN as null, the others as numbers that no float64 can hold.

    Raises:
        UnreadableRequest: not one JSON text in UTF-8, nested more than MAX_DEPTH deep, or with an integer of more
            than MAX_DIGITS digits. What `build` raises passes through.
    """
    if not body.strip():
        raise UnreadableRequest(f"{what} is empty; a JSON object was expected")
    if is_nested_deeper(body, MAX_DEPTH):
        raise UnreadableRequest(f"{what} is nested more than {MAX_DEPTH} levels deep")
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        has_words = allow_nan and (b"NaN" in body or b"Infinity" in body)
        if not error.msg.startswith("number is infinity") and not has_words:
            raise UnreadableRequest(f"{what} is not valid JSON: {error}") from None
    else:
        try:
            return build(parsed, False)
        except NeedsExactParse:
            pass
    return build(_exact(body, _constant if allow_nan else partial(_refuse_constant, what), what), True)


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


def _refuse_constant(what: str, text: str) -> float:
    raise UnreadableRequest(f"{what} is not valid JSON: {text} is not a JSON number")


def _integer(what: str, text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise UnreadableRequest(f"{what} has an integer of more than {MAX_DIGITS} digits")
    return int(text)


def is_nested_deeper(body: bytes, levels: int) -> bool:
    """Whether lists and objects lie in each other more than `levels` deep. What is between quotes nests nothing.

    Takes linear time of any bytes, and next to none of few brackets; says nothing of their syntax.
    """
    if len(body) < 1000 and body.count(b"[") + body.count(b"{") <= levels:  # of many bytes, counting takes as long
        return False
    # Without escaped quotes, an even number of them between two brackets are whole texts.
    brackets = body.translate(_SQUARED, _NEITHER).replace(b'""', b"")
    if b'"' in brackets or (b"\\" in body and b'\\"' in body):  # a single byte is found far sooner
        brackets = _TEXT.sub(b"", body).translate(_SQUARED, _NEITHER)
    too_many = b"[" * (levels + 1)
    for _ in range(levels):
        if not brackets or too_many in brackets:
            break
        brackets = brackets.replace(b"[]", b"")  # the innermost of each branch
    return b"[]" in brackets or too_many in brackets


# One that is never closed is a text, too: else each quote within it would be looked at as the beginning of another.
_TEXT: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_SQUARED: Final = bytes.maketrans(b"{}", b"[]")
_NEITHER: Final = bytes(code for code in range(256) if code not in b'[]{}"')


def _exact(body: bytes, constant: Callable[[str], Any], what: str) -> Any:
    integer = partial(_integer, what)
    try:
        parsed = json.loads(body.decode(), parse_float=_number, parse_int=integer, parse_constant=constant)
        # The standard library lets lone surrogates pass, which no UTF-8 text can hold.
        json.dumps(parsed, ensure_ascii=False, default=str).encode()
    except ValueError as error:  # also JSONDecodeError and UnicodeError
        detail = error.msg if isinstance(error, json.JSONDecodeError) else "a string is not valid UTF-8"
        raise UnreadableRequest(f"{what} is not valid JSON: {detail}") from None
    return parsed
