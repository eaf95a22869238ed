"""The one place where the object graph is built and taken down."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from types import FrameType
from typing import Final, Protocol

from service.figures import Figures
from service.generation.generator import Generator
from service.guards.guard import guard_of
from service.guards.places import Places
from service.hosting import Hosts
from service.loading.elsewhere import Elsewhere
from service.loading.loader import Loader
from service.loading.memory import give_back, settle
from service.loading.sandbox import Sandbox
from service.protocols.api import Api
from service.protocols.framing import Framing
from service.protocols.platforms import vertex
from service.protocols.route import Route
from service.protocols.routes import by_path, dialects_of
from service.repository.catalog import Catalog
from service.repository.control import Orders
from service.repository.floors import Floors
from service.repository.patience import PatientSource, patient
from service.repository.signing import read_trusted_keys
from service.repository.sources import BareFile, Found, Source, source_in
from service.repository.versions import Loaded
from service.repository.watcher import Watcher
from service.runtimes.threads import limit_libraries, limit_this_thread
from service.scheduling.admission import Admission
from service.scheduling.event_loop import EventLoop
from service.scheduling.lane import Lane
from service.scheduling.workers import Workers
from service.server import ModelServer
from service.settings import Settings

# Connections wait that long for a worker with all its models, and then it takes them and says that it is not ready.
LOAD_FIRST_S: Final = 60.0


class Part(Protocol):
    """What is there only while the service is: another server beside the web framework."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Tandem:
    """A service without a web framework: build it, `start` it, ask its `api`, `stop` it.

    Threads are started by `start`, not by building, and once more in a forked child, where those of the parent do
    not exist. In a process that only forks those that answer (gunicorn's --preload) there are none: a child that is
    forked while another thread imports a library, as loading a model does, can never import it.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._workers = Workers(settings.thread_budget, limit_this_thread)
        self._admission = Admission(
            max(1, settings.queue_rows // settings.workers),
            max(1, settings.queue_bytes // settings.workers),
            settings.thread_budget,
            settings.queue_s,
        )
        self._loader: Loader | None = None
        self._sandbox = sandbox_of(settings)
        self._settled_after = 0
        self._catalog = Catalog(
            PatientSource(source_of(settings), settings.scan_timeout_s),
            patient(self._load, settings.load_timeout_s),
            keep=settings.keep_versions,
            default_model=settings.default_model,
            orders=Orders(settings.orders_file),
            floors=Floors(settings.versions_file) if settings.trusted_keys and not settings.allow_rollback else None,
        )
        self._watcher = Watcher(self._poll, settings.poll_s)
        self._lock = threading.Lock()
        self._is_started = False
        self._parts: list[Part] = []
        _restart_after_fork(self)
        self.figures = Figures(settings, self._catalog, self._admission, lambda: len(self.api.under_way))
        self._hosts = Hosts(settings, ended=self.figures.meter.restart)
        self.loop = EventLoop()
        self.server = ModelServer(self._catalog, self._watcher.ask, self.figures.scrape, self.loop, settings.limits)
        self.guard = guard_of(settings.access)
        chosen = _chosen_routes(settings)
        if (rules := settings.generation) is not None:
            generator = Generator(rules, self.loop, self.figures.meter)
            self.figures.show_generation(generator)
            self.attach(generator)
            chosen += generator.routes()
        self.paths = by_path(settings.dialects, chosen)
        self.api = Api(
            self.server,
            max_body_bytes=settings.max_body_bytes,
            timeout_s=settings.timeout_s,
            record=self.figures.request,
            model_control=settings.model_control,
            guard=self.guard,
            dialects=dialects_of(settings.dialects),
            max_reply_bytes=settings.max_reply_bytes,
            framing=Framing(settings.max_url_bytes, settings.max_headers_bytes),
            require_room=self._admission.require_room,
            places=Places(settings.max_streams, settings.max_streams_per_caller),
            loop=self.loop,
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
            self.server.welcome()
            if _forks_first():
                return
            self._start_threads()
            if self.settings.load_first:
                self._wait_until_loaded()
            self._start_parts()

    def drain(self) -> None:
        """Not ready any more, and every answer closes its connection; all else goes on."""
        self.server.drain()
        self.api.is_closing = True

    def stop(self) -> None:
        """Not ready any more; what was accepted is finished; threads end."""
        self.server.drain()
        with self._lock:
            if not self._is_started:
                return
            self._is_started = False
        for part in self._parts:  # while what they accepted can still be computed
            part.stop()
        self.loop.stop()
        self._watcher.stop()
        self._workers.stop()
        self._hosts.close()
        if self._sandbox is not None:
            self._sandbox.close()
        self._loader = None
        self.figures.stop()

    def _start_threads(self) -> None:
        limit_libraries(1)  # what computes is a thread of ours, and brings no others along
        self.figures.start()
        self._workers.start()
        self._watcher.start()

    def _start_parts(self) -> None:
        for part in self._parts:
            part.start()

    def _wait_until_loaded(self) -> None:
        until = time.monotonic() + LOAD_FIRST_S
        while not self._catalog.is_loaded and time.monotonic() < until:
            time.sleep(0.02)

    def _restart(self) -> None:
        self._lock = threading.Lock()
        self._catalog.forget()
        self._admission.reset()
        self.api.under_way.clear()
        self.api.places.forget()
        if self.guard is not None:
            self.guard.renew()
        self.loop.forget()
        self.figures.forget()
        self._loader = None  # its connections to other processes are the parent's
        self._sandbox = sandbox_of(self.settings)
        if self._is_started:
            self._start_threads()
            self._start_parts()

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
            sandbox=self._sandbox,
            keys=read_trusted_keys(settings.trusted_keys),
            allow_shared_files=settings.allow_shared_files,
            measure_s=settings.measure_s,
        )

    def _poll(self) -> None:
        self._catalog.poll()
        if self._sandbox is not None:
            self._sandbox.rest()
        if (changes := self._catalog.changes) != self._settled_after:
            settle()
            self._settled_after = changes

    def _load(self, found: Found) -> Loaded:
        with self.figures.loading():
            return self._loaded(found)

    def _loaded(self, found: Found) -> Loaded:
        if self._loader is None:
            self._loader = self._new_loader()
        checked = self._loader(found)
        give_back()
        checked.engine.observe(self.figures.meter)
        lane = Lane(
            checked.engine,
            self._workers,
            self._admission,
            permits=self._workers.permits,
            width=self.settings.thread_budget if checked.engine.is_reentrant else 1,
            max_batch_rows=self.settings.batch_rows,
            merges=checked.merges,
            observer=self.figures.meter,
            loop_here=self.loop.here,
        )
        return Loaded(checked.manifest, lane.submit, checked.example, checked.about, checked.close, checked.merges)


def sandbox_of(settings: Settings) -> Sandbox | None:
    if not settings.sandbox:
        return None
    return Sandbox(memory_bytes=settings.sandbox_bytes, seconds=settings.sandbox_s)


def source_of(settings: Settings) -> Source:
    if settings.model_file is not None:
        return BareFile(settings.model_file)
    return source_in(settings.models, keep=settings.keep_versions, max_bytes=settings.max_model_bytes)


def _chosen_routes(settings: Settings) -> list[Route]:
    """Routes at the paths that Vertex AI chose for this service."""
    if "vertex" not in settings.dialects:
        return []
    asked = ((settings.vertex_predict_route, vertex.predict_route), (settings.vertex_health_route, vertex.health_route))
    return [route(path) for path, route in asked if path is not None]


def _forks_first() -> bool:
    """Whether this is gunicorn's arbiter, which loads the app before it forks its workers (--preload)."""
    names: set[str] = set()
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == "gunicorn.arbiter":
            names.add(frame.f_code.co_name)
        frame = frame.f_back
    return bool(names) and "spawn_worker" not in names


def _restart_after_fork(tandem: Tandem) -> None:
    if not hasattr(os, "register_at_fork"):
        return
    reference = weakref.ref(tandem)

    def restart() -> None:
        alive = reference()
        if alive is not None:
            alive._restart()

    os.register_at_fork(after_in_child=restart)
