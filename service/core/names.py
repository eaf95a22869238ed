"""How models, versions and labels are spelt: one pattern at export, at load and in a request.

A name can stand in a URL, a folder and a log line unchanged on every file system:
ASCII letters, digits, `.`, `_`, `-`, starting with a letter or digit, without `..`.
"""

from __future__ import annotations

import re
from typing import Final

from service.core.artefact_errors import NameInvalid, NameReserved

_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_FOREIGN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}", re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)

# What the paths of the service begin with: a model of such a name would be taken for a route by people and proxies.
RESERVED: Final = frozenset(
    (
        "docs", "execution-parameters", "health", "invocations", "metrics", "models", "openapi.json", "ping",
        "predict", "predictions", "v1", "v2", "version",
    )
)  # fmt: skip


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def is_foreign_name(text: str) -> bool:
    """Whether servers of language models may spell a model like that: `llama3.2:1b`, `org/Name-7B@main`."""
    return _FOREIGN.fullmatch(text) is not None


def check_name(text: str, what: str = "model name") -> str:
    """`text` itself.

    Raises:
        NameInvalid: it is not spelt as names are.
    """
    if not is_name(text):
        raise NameInvalid(
            f"{what} {text[:100]!r}: up to 100 letters, digits, '.', '_' and '-' are allowed, "
            "beginning with a letter or digit, without '..'"
        )
    return text


def check_model_name(text: str) -> str:
    """`text` itself.

    Raises:
        NameInvalid: it is not spelt as names are.
        NameReserved: it is called like a route.
    """
    if check_name(text) in RESERVED:
        raise NameReserved(f"a model cannot be called {text!r}: paths of the service begin with it")
    return text


def parse_version(text: str) -> int | None:
    """The version number, or None where `text` is not one ("0", "01", "-1", "1e3" are not)."""
    return int(text) if _VERSION.fullmatch(text) else None
