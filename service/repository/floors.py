"""How far each model has come, so that nobody takes it back unasked.

Old signed versions stay signed. Whoever can write to the folder of models, but has no key, could take the newest
version away and leave one that was replaced for a reason.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from service.core.artefact_errors import KeyUnusable

_log = logging.getLogger(__name__)


class Floors:
    """The highest version of each model that ever was live. Called by one thread of each process.

    With a `path` it outlives the process, and is shared by all that have the same one. It must lie where nobody
    who can write models can write. Without, it is this process's own.

    Raises:
        KeyUnusable: the file is there and cannot be read: whoever damages it must not be let through.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, int] = {}
        try:
            self._known.update(self._read())
        except (OSError, ValueError) as error:
            raise KeyUnusable(f"the file of highest versions cannot be read: {error}") from error

    def of(self, model: str) -> int:
        """Versions below this one are not served unless an operator says so; 0 where none was live yet."""
        return self._known.get(model, 0)

    def lift(self, model: str, version: int) -> None:
        """`version` is live. A file that cannot be written is told in the log; this process knows all the same."""
        if version <= self.of(model):
            return
        self._known[model] = version
        if self._path is None:
            return
        try:
            with _alone(self._path.parent):
                for known, number in self._read().items():  # another process may have come further
                    self._known[known] = max(number, self.of(known))
                _write(self._path, self._known)
        except (OSError, ValueError) as error:
            _log.error("the highest version of %s cannot be written down: %s", model, error)

    def _read(self) -> Mapping[str, int]:
        if self._path is None:
            return {}
        try:
            content = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        if not isinstance(content, dict) or not all(type(version) is int for version in content.values()):
            raise ValueError('expected {"model": version, …}')
        return content


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While no other process writes. The lock is on the folder: the file is another one each time."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path: Path, known: Mapping[str, int]) -> None:
    draft = path.with_name(f".{path.name}.{uuid4().hex}")
    draft.write_text(json.dumps(known) + "\n")
    os.replace(draft, path)
