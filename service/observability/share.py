"""How processes add up their figures: each writes its own into a file, and whoever is asked reads them all.

    <folder>/<id>.lock     locked for as long as the process lives, by the kernel's own account
    <folder>/<id>.json     what it counted, replaced as a whole
    <folder>/gone.json     what processes that ended had counted, all together
    <folder>/lock          held while files are read together, or moved into `gone.json`

prometheus_client has a way of its own: every increment writes to a mapped file, of which one is left behind by every
process that ever was, and which an environment variable must name before its first import. Here nothing is written
on the way of a request, and the files of the dead become one.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import orjson

from service.observability.counts import Counts, Gauges, read, write

_log = logging.getLogger(__name__)

_GONE: Final = "gone.json"


class Share:
    """This process's part of a folder that several have in common. One thread at a time.

    Raises OSError where the folder cannot be written, from every method.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._id = f"{os.getpid()}-{secrets.token_hex(4)}"
        # Kept open: the lock is this process's sign of life. A child that is forked inherits it, and with it the
        # figures of its parent are those of a living one, until both have ended.
        self._life = (folder / f"{self._id}.lock").open("wb")
        fcntl.flock(self._life, fcntl.LOCK_EX)

    def close(self) -> None:
        """From now on this is a process that ended."""
        self._life.close()

    def publish(self, counts: Counts, gauges: Gauges) -> None:
        """From now on others see these figures of this process."""
        _replace(self._folder / f"{self._id}.json", write(counts, gauges))

    def collect(self) -> tuple[Counts, list[Gauges]]:
        """What all processes have counted, those that ended among them, and the gauges of those that live."""
        with self._alone():
            total, absorbed = self._gone()
            gauges: list[Gauges] = []
            ended: list[str] = []
            for lock in sorted(self._folder.glob("*.lock")):
                found = self._of(lock.stem)
                if lock.stem == self._id or _is_held(lock):
                    total.include(found[0])
                    gauges.append(found[1])
                else:
                    ended.append(lock.stem)
                    if lock.stem not in absorbed:
                        total.include(found[0])
            if ended:
                self._bury(ended)
            return total, gauges

    def _of(self, process: str) -> tuple[Counts, Gauges]:
        path = self._folder / f"{process}.json"
        try:
            return read(path.read_bytes())
        except FileNotFoundError:  # it has just begun
            pass
        except (ValueError, LookupError, TypeError) as error:
            _log.error("the figures of process %s cannot be read: %s", process, error)
        return Counts(), {}

    def _gone(self) -> tuple[Counts, set[str]]:
        """What those that ended had counted, and which of them have files left that are counted in it."""
        try:
            content = orjson.loads((self._folder / _GONE).read_bytes())
            return read(orjson.dumps(content["figures"]))[0], set(content["of"])
        except FileNotFoundError:
            return Counts(), set()

    def _bury(self, ended: list[str]) -> None:
        """Their counts are kept, their files are not. Whoever is killed in between leaves nothing to count twice."""
        gone, absorbed = self._gone()
        for process in ended:
            if process not in absorbed:
                gone.include(self._of(process)[0])
        figures = orjson.Fragment(write(gone))
        _replace(self._folder / _GONE, orjson.dumps({"of": ended, "figures": figures}))
        for process in ended:
            (self._folder / f"{process}.json").unlink(missing_ok=True)
            (self._folder / f"{process}.lock").unlink(missing_ok=True)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with (self._folder / "lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class Ends:
    """Tells the web processes of ends that they do not see: of the processes which `tandem serve` starts for them.

    Safe to call from any thread. Without a folder nobody is told.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._counts = Counts()
        self._share: Share | None = None

    def __call__(self, process: str) -> None:
        """`process` ended, and nobody asked it to."""
        if self._folder is None:
            return
        with self._lock:
            self._counts.add("tandem_device_restarts_total", (process,))
            try:
                if self._share is None:
                    self._share = Share(self._folder)
                self._share.publish(self._counts, {})
            except OSError as error:
                _log.error("the end of a process cannot be counted: %s", error)

    def close(self) -> None:
        if self._share is not None:
            self._share.close()


def _is_held(lock: Path) -> bool:
    """Whether the process whose lock this is lives."""
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _replace(path: Path, content: bytes) -> None:
    """Nobody ever reads half of it."""
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
