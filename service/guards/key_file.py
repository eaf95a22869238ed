"""Changes to the file of keys, as the command line makes them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.guards.keys import KeysInvalid, parse_keys

Entries = list[dict[str, Any]]


def entries(path: Path) -> Entries:
    """What stands in the file; nothing where there is none. Raises KeysInvalid."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    parse_keys(content)
    found: Entries = json.loads(content)["keys"]
    return found


def add(path: Path, entry: dict[str, Any]) -> None:
    """Raises KeysInvalid, also where there is a key of that name."""

    def added(before: Entries) -> Entries:
        if any(other["name"] == entry["name"] for other in before):
            raise KeysInvalid(f"there is a key {entry['name']!r} already: revoke it first, or choose another name")
        return [*before, entry]

    _change(path, added)


def remove(path: Path, name: str) -> None:
    """Raises KeysInvalid, also where there is no key of that name."""

    def removed(before: Entries) -> Entries:
        after = [entry for entry in before if entry["name"] != name]
        if len(after) == len(before):
            raise KeysInvalid(f"there is no key {name!r} in {path}")
        return after

    _change(path, removed)


def _change(path: Path, change: Callable[[Entries], Entries]) -> None:
    """Readers see the file before or after, never between; of two that write at once, one is told to try again."""
    draft = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeysInvalid(f"somebody else is changing {path}; if nobody is, remove {draft}") from None
    except OSError as error:
        raise KeysInvalid(f"{path} cannot be written: {error.strerror}") from error
    try:
        with open(descriptor, "wb") as file:
            file.write(json.dumps({"keys": change(entries(path))}, indent=2).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        raise
