"""Work that may never end: disks that do not answer, models that hang."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from service.core.artefact_errors import LoadTookTooLong
from service.repository.sources import Found, Snapshot, Source
from service.repository.versions import Loaded

T = TypeVar("T")


class _Work(Generic[T]):
    """Done on a thread of its own, for nobody can end a call that hangs."""

    def __init__(self, work: Callable[[], T], name: str) -> None:
        self.future: Future[T] = Future()
        self.thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        self.thread.start()

    def _run(self, work: Callable[[], T]) -> None:
        try:
            result = work()
        except BaseException as error:  # SystemExit, too: whoever waits decides
            self.future.set_exception(error)
        else:
            self.future.set_result(result)

    def result(self, within_s: float) -> T:
        """What came of it. Raises TimeoutError where nothing did."""
        self.thread.join(within_s)
        if self.thread.is_alive():
            raise TimeoutError
        return self.future.result()


class PatientSource:
    """A source whose disk may stop answering (a network file system): then `scan` says so and nothing changes."""

    def __init__(self, source: Source, within_s: float) -> None:
        self._source = source
        self._within_s = within_s
        self._stuck: _Work[Snapshot] | None = None

    def scan(self) -> Snapshot:
        """Raises OSError as the source does, and TimeoutError, which is one. While a look hangs there is no other."""
        if self._stuck is not None and self._stuck.thread.is_alive():
            raise TimeoutError("it still does not answer")
        self._stuck = _Work(self._source.scan, "tandem-scan")
        try:
            snapshot = self._stuck.result(self._within_s)
        except TimeoutError:
            if self._stuck.thread.is_alive():
                raise TimeoutError(f"it did not answer within {self._within_s:g} seconds") from None
            raise
        self._stuck = None
        return snapshot

    def promote(self, name: str, version: int) -> None:
        self._source.promote(name, version)


def patient(load: Callable[[Found], Loaded], within_s: float) -> Callable[[Found], Loaded]:
    """`load`, but a version that takes longer is refused, and let go should it come later after all.

    What hangs stays behind on its thread: only the end of the process ends it.

    Raises:
        LoadTookTooLong: nothing came of it in time.
    """

    def load_within(found: Found) -> Loaded:
        work = _Work(lambda: load(found), "tandem-load")
        try:
            return work.result(within_s)
        except TimeoutError:
            if not work.thread.is_alive():
                raise
            work.future.add_done_callback(_let_go)
            raise LoadTookTooLong(
                f"version {found.version} of {found.name} was not loaded and checked within {within_s:g} seconds"
            ) from None

    return load_within


def _let_go(late: Future[Loaded]) -> None:
    if late.exception() is None:
        late.result().close()
