"""What the operator says of the upstream, and what callers may ask of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from service.core.errors import TandemError
from service.generation.address import Address

# Names by which somebody could try to choose where a request goes, or what goes with it. Refused wherever they stand.
ROUTING: Final = frozenset(
    {
        "api_base", "api_key", "api_version", "authorization", "base_url", "endpoint", "extra_headers", "headers",
        "host", "proxy", "uri", "url",
    }
)  # fmt: skip

_PARAMETER: Final = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_KEY: Final = re.compile(r"[\x21-\x7e]{1,4096}", re.ASCII)


class UpstreamUnusable(TandemError):
    """The upstream cannot be asked as the operator says; the message names the setting."""

    title = "Upstream unusable"


@dataclass(frozen=True, slots=True)
class RequestRules:
    """`model` is what every request asks; None lets callers name it. `parameters` are allowed beyond the usual ones.

    `max_prompt_bytes` is of the prompt or messages and the values of `parameters`, all together.
    """

    model: str | None = None
    max_tokens: int = 4096
    max_prompt_bytes: int = 256 * 1024
    max_messages: int = 256
    max_n: int = 1
    parameters: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class UpstreamRules:
    """Times are in seconds: to connect, to the first byte of an answer, between two bytes, and for all of it."""

    address: Address
    key: str | None = field(default=None, repr=False)
    key_file: Path | None = None
    connect_s: float = 5.0
    first_s: float = 120.0
    gap_s: float = 30.0
    total_s: float = 600.0
    connections: int = 64
    max_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class GenerationRules:
    upstream: UpstreamRules
    requests: RequestRules


def check_parameters(names: Iterable[str]) -> None:
    """Raises ValueError for what is not spelt as a parameter, or would let callers choose where requests go."""
    for name in names:
        if not _PARAMETER.fullmatch(name):
            raise ValueError(f"expected the name of a parameter, such as top_k, got {name[:60]!r}")
        if name in ROUTING:
            raise ValueError(f"{name} would let callers choose where requests go")


def key_of(rules: UpstreamRules) -> str | None:
    """The key that the upstream wants.

    Raises:
        UpstreamUnusable: its file cannot be read, or no header could hold it. The message does not.
    """
    key, setting = rules.key, "upstream_key"
    if rules.key_file is not None:
        setting = "upstream_key_file"
        try:
            key = rules.key_file.read_text("ascii", errors="replace").strip()
        except OSError as error:
            raise UpstreamUnusable(f"{setting}: {error.strerror or 'it cannot be read'}") from error
    if key is not None and not _KEY.fullmatch(key):
        raise UpstreamUnusable(f"{setting}: expected up to 4096 visible ASCII characters in one line")
    return key
