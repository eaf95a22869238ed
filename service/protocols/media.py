"""Media types: what a body says it is, and which of those on offer a caller wants (RFC 9110, 8.3 and 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

ANY: Final = ("", "*/*")


class MediaType(NamedTuple):
    """`name` is lower-case, as in `text/csv`; so are the names of its parameters."""

    name: str
    parameters: Mapping[str, str]

    @property
    def is_utf8(self) -> bool:
        return self.parameters.get("charset", "").lower() in ("", "utf-8", "utf8", "us-ascii")


def media_type(header: str) -> MediaType:
    """The value of a Content-Type header; the name is empty where it has none."""
    name, _, rest = header.partition(";")
    return MediaType(name.strip().lower(), _parameters(rest) if rest else _NONE)


def preferred(accept: str, offered: Sequence[str]) -> str | None:
    """The one of `offered` that the value of an Accept header likes best, or None where it takes none of them.

    Where it likes several alike, the one it names first; where it names none of them, the first on offer.
    """
    if accept in ANY:
        return offered[0]
    ranges: list[tuple[float, int, str]] = []
    for place, part in enumerate(accept.split(",")):
        name, parameters = media_type(part)
        if name:
            ranges.append((_quality(parameters.get("q", "1")), place, name))
    refused = {name for quality, _, name in ranges if quality == 0}
    wanted = sorted((part for part in ranges if part[0] > 0), key=lambda part: (-part[0], _stars(part[2]), part[1]))
    for _, _, name in wanted:
        for one in offered:
            if _covers(name, one) and not (one in refused or (_stars(name) == 2 and f"{_kind(one)}/*" in refused)):
                return one
    return None


_NONE: Final[Mapping[str, str]] = MappingProxyType({})


def _parameters(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(";"))
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs if name.strip()}


def _quality(text: str) -> float:
    """Between 0 and 1; what is no weight counts as 1."""
    return float(text) if _WEIGHT.fullmatch(text) else 1.0


_WEIGHT: Final = re.compile(r"0(\.\d*)?|1(\.0*)?", re.ASCII)


def _stars(name: str) -> int:
    return 2 if name in ("*/*", "*") else 1 if name.endswith("/*") else 0


def _kind(name: str) -> str:
    return name.partition("/")[0]


def _covers(name: str, one: str) -> bool:
    return name == one or _stars(name) == 2 or (_stars(name) == 1 and _kind(name) == _kind(one))
