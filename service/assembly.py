"""The one place where the object graph is built and taken down."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

from service.hosting import Hosts
from service.loading.elsewhere import Elsewhere
from service.loading.loader import Loader
from service.loading.memory import give_back
from service.observability.logs import log_access
from service.protocols.api import Api
from service.protocols.http import HttpReply, HttpRequest
from service.protocols.platforms import vertex
from service.protocols.route import Route
from service.protocols.routes import by_path, dialects_of
from service.repository.catalog import Catalog
from service.repository.control import Orders
from service.repository.sources import BareFile, Found, Source, source_in
from service.repository.versions import Loaded
from service.repository.watcher import Watcher
from service.runtimes.threads import limit_libraries, limit_this_thread
from service.scheduling.admission import Admission
from service.scheduling.lane import Lane
from service.scheduling.workers import Workers
from service.server import ModelServer
from service.settings import Settings


class Part(Protocol):
    """What is there only while the service is: another server beside the web framework."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Tandem:
    """A service without a web framework: build it, `start` it, ask its `api`, `stop` it.

    Threads are started by `start`, not by building, and once more in a forked child
    (gunicorn's --preload), where those of the parent do not exist.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._workers = Workers(settings.thread_budget, limit_this_thread)
        self._admission = Admission(
            max(1, settings.queue_rows // settings.workers),
            max(1, settings.queue_bytes // settings.workers),
            settings.thread_budget,
        )
        self._hosts = Hosts(settings)
        self._loader: Loader | None = None
        self._catalog = Catalog(
            source_of(settings),
            self._load,
            keep=settings.keep_versions,
            default_model=settings.default_model,
            orders=Orders(settings.orders_file),
        )
        self._watcher = Watcher(self._catalog.poll, settings.poll_s)
        self._lock = threading.Lock()
        self._is_started = False
        self._parts: list[Part] = []
        _restart_after_fork(self)
        self.server = ModelServer(self._catalog, self._watcher.ask)
        self.paths = by_path(settings.dialects, _chosen_routes(settings))
        self.api = Api(
            self.server,
            max_body_bytes=settings.max_body_bytes,
            timeout_s=settings.timeout_s,
            record=_record,
            model_control=settings.model_control,
            dialects=dialects_of(settings.dialects),
        )

    def attach(self, part: Part) -> None:
        """From now on `part` starts and stops with the service. To be called before `start`."""
        self._parts.append(part)

    def start(self) -> None:
        """Begin to load models, and to follow the repository. Returns at once; a second call does nothing."""
        with self._lock:
            if self._is_started:
                return
            self._is_started = True
            limit_libraries(1)  # what computes is a thread of ours, and brings no others along
            self.server.welcome()
            self._workers.start()
            self._watcher.start()
            for part in self._parts:
                part.start()

    def stop(self) -> None:
        """Not ready any more; what was accepted is finished; threads end."""
        self.server.drain()
        with self._lock:
            if not self._is_started:
                return
            self._is_started = False
        for part in self._parts:  # while what they accepted can still be computed
            part.stop()
        self._watcher.stop()
        self._workers.stop()
        self._hosts.close()
        self._loader = None

    def _restart(self) -> None:
        self._lock = threading.Lock()
        self._catalog.forget()
        self._admission.reset()
        self._loader = None  # its connections to other processes are the parent's
        if self._is_started:
            self._workers.start()
            self._watcher.start()
            for part in self._parts:
                part.start()

    def _new_loader(self) -> Loader:
        """Made when there is something to load: the processes beside this one may take seconds to start."""
        settings = self.settings
        self._hosts.start()
        elsewhere = Elsewhere(
            self._hosts.gpu,
            self._hosts.apart,
            isolated=settings.isolate,
            is_strict=settings.device == "gpu",
            answer_s=settings.timeout_s,
        )
        return Loader(
            trust=settings.trust,
            allow_version_mismatch=settings.allow_version_mismatch,
            rules=settings.rules,
            elsewhere=elsewhere,
        )

    def _load(self, found: Found) -> Loaded:
        if self._loader is None:
            self._loader = self._new_loader()
        checked = self._loader(found)
        give_back()
        lane = Lane(
            checked.engine,
            self._workers,
            self._admission,
            permits=self._workers.permits,
            width=self.settings.thread_budget if checked.engine.is_reentrant else 1,
            max_batch_rows=self.settings.batch_rows,
            merges=checked.merges,
        )
        return Loaded(checked.manifest, lane.submit, checked.example, checked.about, checked.close)


def source_of(settings: Settings) -> Source:
    return BareFile(settings.model_file) if settings.model_file is not None else source_in(settings.models)


def _chosen_routes(settings: Settings) -> list[Route]:
    """Routes at the paths that Vertex AI chose for this service."""
    if "vertex" not in settings.dialects:
        return []
    asked = ((settings.vertex_predict_route, vertex.predict_route), (settings.vertex_health_route, vertex.health_route))
    return [route(path) for path, route in asked if path is not None]


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
