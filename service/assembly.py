"""The one place where the object graph is built and taken down."""

from __future__ import annotations

import os
import threading
import weakref
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from service.loader import Loader
from service.observability.logs import log_access
from service.protocols.api import Api
from service.protocols.http import HttpReply, HttpRequest
from service.repository.catalog import Catalog
from service.repository.sources import BareFile, Folder, Found, Source
from service.repository.versions import Loaded
from service.repository.watcher import Watcher
from service.scheduling.lane import Lane
from service.server import ModelServer
from service.settings import Settings


class Tandem:
    """A service without a web framework: build it, `start` it, ask its `api`, `stop` it.

    Threads are started by `start`, not by building, and once more in a forked child
    (gunicorn's --preload), where those of the parent do not exist.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._workers = Workers(settings.threads)
        self._loader = Loader(trust=settings.trust, allow_version_mismatch=settings.allow_version_mismatch)
        self._catalog = Catalog(
            source_of(settings),
            self._load,
            keep=settings.keep_versions,
            default_model=settings.default_model,
        )
        self._watcher = Watcher(self._catalog.poll, settings.poll_s)
        self._lock = threading.Lock()
        self._is_started = False
        _restart_after_fork(self)
        self.server = ModelServer(self._catalog)
        self.api = Api(
            self.server, max_body_bytes=settings.max_body_bytes, timeout_s=settings.timeout_s, record=_record
        )

    def start(self) -> None:
        """Begin to load models, and to follow the repository. Returns at once; a second call does nothing."""
        with self._lock:
            if self._is_started:
                return
            self._is_started = True
            self.server.welcome()
            self._workers.start()
            self._watcher.start()

    def stop(self) -> None:
        """Not ready any more; what was accepted is finished; threads end."""
        self.server.drain()
        with self._lock:
            if not self._is_started:
                return
            self._is_started = False
        self._watcher.stop()
        self._workers.stop()

    def _restart(self) -> None:
        self._lock = threading.Lock()
        self._catalog.forget()
        if self._is_started:
            self._workers.start()
            self._watcher.start()

    def _load(self, found: Found) -> Loaded:
        checked = self._loader(found)
        return Loaded(checked.manifest, Lane(checked.engine, self._workers).submit, checked.example)


class Workers(Executor):
    """A thread pool that can be started again, after a fork."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None

    def start(self) -> None:
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tandem-worker")

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._pool is None:
            raise RuntimeError("the service is not started: call start() first")
        return self._pool.submit(fn, *args, **kwargs)

    def stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True)


def source_of(settings: Settings) -> Source:
    return BareFile(settings.model_file) if settings.model_file is not None else Folder(settings.models)


def _restart_after_fork(tandem: Tandem) -> None:
    if not hasattr(os, "register_at_fork"):
        return
    reference = weakref.ref(tandem)

    def restart() -> None:
        alive = reference()
        if alive is not None:
            alive._restart()

    os.register_at_fork(after_in_child=restart)


def _record(http: HttpRequest, reply: HttpReply, seconds: float, error: BaseException | None) -> None:
    log_access(
        method=http.method,
        path=http.path,
        status=reply.status,
        ms=seconds * 1000,
        request_id=http.request_id,
        error=error,
    )
