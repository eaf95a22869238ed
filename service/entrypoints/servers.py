"""Web servers, started in this process: uvicorn for FastAPI, Granian or gunicorn for Flask.

Settings travel to worker processes in the environment, and each worker builds its own app.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from types import FrameType
from typing import Any, Final, Literal, NoReturn

from service.entrypoints.drain import DRAIN, SETTLE_S, Drain
from service.entrypoints.limits import HttpLimits
from service.entrypoints.listener import BACKLOG, listen
from service.protocols.framing import HEADER_BYTES
from service.settings import Settings

_log = logging.getLogger("tandem.servers")

FASTAPI_APP: Final = "service.entrypoints.fastapi_app:app"
FLASK_APP: Final = "service.entrypoints.flask_app:app"

# A request waits on its thread while the model computes, so threads bound how many wait at once.
WAITING: Final = 64
# Some threads never wait for a model, so that health is answered whatever the models do.
SPARE: Final = 8
# Files that a process has open beside its connections: sockets, logs, and models while they are loaded.
OWN_FILES: Final = 40
LEAST_CONNECTIONS: Final = 16

_SHARED_MEMORY: Final = "/dev/shm"

# uvicorn's own exit code for an app that does not start.
STARTUP_FAILED: Final = 3

# As uvicorn has it; the two seconds of gunicorn are for sync workers, which answer nobody else meanwhile.
KEEP_ALIVE_S: Final = 5

WorkerClass = Literal["sync", "gthread", "gevent"]


@dataclass(frozen=True, slots=True)
class Binding:
    host: str
    port: int
    workers: int

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def run_uvicorn(settings: Settings, binding: Binding) -> NoReturn:
    """FastAPI under uvicorn, with uvloop and httptools where they are installed.

    One worker answers in this process; several have it as their supervisor.
    """
    import uvicorn

    from service.entrypoints.uvicorn_workers import HUNG_S, ServerInFront, Supervisor

    settings = within_open_files(settings)
    os.environ.update(settings.as_environment())
    # uvicorn restores our handler when it has drained, and raises the signal once more.
    signal.signal(signal.SIGTERM, _exit_cleanly)
    signal.signal(signal.SIGINT, _exit_cleanly)
    _configure_logs(settings)
    listener = listen(binding.host, binding.port)
    config = uvicorn.Config(
        FASTAPI_APP,
        http=_http(settings),
        ws=_sockets(settings),
        ws_max_size=settings.max_message_bytes,
        ws_ping_interval=settings.ping_s,
        ws_ping_timeout=settings.ping_s,
        ws_per_message_deflate=False,  # a kilobyte may unpack to a megabyte
        workers=binding.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # which proxies are trusted is a setting of our own, and nobody is by default
        backlog=BACKLOG,
        timeout_graceful_shutdown=_finishing_s(settings),
        timeout_worker_healthcheck=HUNG_S,
    )
    if binding.workers == 1:
        signal.signal(signal.SIGHUP, _nothing_to_reload)
        server = ServerInFront(config, lambda: drain.install())
        drain = Drain(settings, listener, lambda: [os.getpid()], server.give_up)
        server.run(sockets=[listener])
        sys.exit(0 if server.started else STARTUP_FAILED)
    supervisor = Supervisor(config, sockets=[listener])
    Drain(settings, listener, supervisor.pids).install()
    supervisor.run()
    sys.exit(0)


def run_granian(settings: Settings, binding: Binding) -> NoReturn:
    """Flask under Granian's WSGI server."""
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings

    from service.entrypoints.granian_workers import Supervisor, serve_wsgi

    settings = within_open_files(settings)
    os.environ.update(_with_spare_threads(settings))
    _configure_logs(settings)
    listener = listen(binding.host, binding.port)
    server = Supervisor(
        FLASK_APP,
        listener,
        interface=Interfaces.WSGI,
        workers=binding.workers,
        blocking_threads=_threads(settings),
        backpressure=settings.max_connections,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=max(1, int(settings.headers_timeout_s * 1000)),
            max_buffer_size=settings.max_headers_bytes + settings.max_url_bytes,
        ),
        respawn_failed_workers=True,
        workers_kill_timeout=_finishing_s(settings),
        log_enabled=False,
    )
    server.on_startup(Drain(settings, listener, server.pids).install)
    server.serve(spawn_target=serve_wsgi)
    sys.exit(0)


def run_gunicorn(settings: Settings, binding: Binding, worker_class: WorkerClass) -> NoReturn:
    """Flask under gunicorn."""
    from gunicorn.app.base import BaseApplication
    from gunicorn.glogging import Logger

    from service.entrypoints.gunicorn_workers import worker_of

    settings = within_open_files(settings)
    os.environ.update(_with_spare_threads(settings) if worker_class == "gthread" else settings.as_environment())
    listener = listen(binding.host, binding.port)

    class OurLogger(Logger):  # type: ignore[misc]
        def setup(self, cfg: Any) -> None:
            super().setup(cfg)
            _configure_logs(settings)

    def when_ready(arbiter: Any) -> None:
        Drain(settings, listener, lambda: list(arbiter.WORKERS)).install()

    def pre_fork(arbiter: Any, worker: Any) -> None:
        if worker.age > 1:  # those that follow the first take connections when they can answer
            os.environ["TANDEM_LOAD_FIRST"] = "true"

    options: dict[str, Any] = {
        "bind": f"fd://{os.dup(listener.fileno())}",  # gunicorn closes it
        "workers": binding.workers,
        "worker_class": worker_of(worker_class, HttpLimits.of(settings)),
        "worker_connections": settings.max_connections + 1,  # the one more takes the place of a silent one
        "keepalive": KEEP_ALIVE_S,
        "limit_request_line": settings.max_url_bytes + len("OPTIONS  HTTP/1.1"),
        "limit_request_field_size": HEADER_BYTES,
        "threads": _threads(settings) if worker_class == "gthread" else 1,
        "graceful_timeout": _finishing_s(settings),
        "timeout": int(settings.timeout_s) + _finishing_s(settings),
        "control_socket_disable": True,
        # Where workers show that they live; a disk may be full, slow, or not there.
        "worker_tmp_dir": _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None,
        "forwarded_allow_ips": "",  # as above
        "logger_class": OurLogger,
        "when_ready": when_ready,
        "pre_fork": pre_fork,
        "post_worker_init": _close_kept_alive_when_told,
    }

    class Application(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            for name, value in options.items():
                if name in self.cfg.settings:
                    self.cfg.set(name, value)

        def load(self) -> Any:
            from service.entrypoints import flask_app

            return flask_app.app

    Application().run()
    sys.exit(0)


def _close_kept_alive_when_told(worker: Any) -> None:
    """gunicorn drops the header by which the app closes a connection, as WSGI has it.

    Of its workers only gthread keeps connections, as many as `max_keepalived`; with none left to keep, it says so in
    each answer. (Its setting `keepalive` is no way: connections that were told they are kept would be closed as well.)
    """
    drain: Any = signal.getsignal(DRAIN)

    def told(number: int, frame: FrameType | None) -> None:
        worker.max_keepalived = 0
        drain(number, frame)

    signal.signal(DRAIN, told)


def _http(settings: Settings) -> Any:
    """Our protocol for uvicorn, or its own where httptools, which ours extends, is not installed."""
    if find_spec("httptools") is None:
        return "auto"
    from service.entrypoints.uvicorn_protocol import Protocols

    return Protocols(HttpLimits.of(settings))


def _sockets(settings: Settings) -> Any:
    """Our protocol for WebSockets. None are spoken where HTTP is not our own, which says where they begin."""
    if find_spec("httptools") is None:
        return "none"
    from service.entrypoints.uvicorn_sockets import Sockets

    return Sockets(HttpLimits.of(settings))


def _finishing_s(settings: Settings) -> int:
    """What is left of the time of grace when the drain is over, for what is under way."""
    return max(1, int(settings.grace_s - settings.drain_s - SETTLE_S))


def within_open_files(settings: Settings) -> Settings:
    """With no more connections than this process may have open, beside the files that it needs itself.

    A server that runs out of files cannot accept, and cannot refuse either: some then turn round and round.
    """
    if find_spec("resource") is None:
        return settings
    import resource

    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed - OWN_FILES >= settings.max_connections:
        return settings
    return settings.model_copy(update={"max_connections": max(LEAST_CONNECTIONS, allowed - OWN_FILES)})


def _with_spare_threads(settings: Settings) -> dict[str, str]:
    return {**settings.as_environment(), "TANDEM_MAX_WAITING": str(settings.max_waiting or WAITING)}


def _threads(settings: Settings) -> int:
    """That a WSGI server may have: for what waits for predictions, for streams, and for what answers at once."""
    return (settings.max_waiting or WAITING) + settings.max_streams + SPARE


def _configure_logs(settings: Settings) -> None:
    from service.observability.logs import configure_logs  # only now: other commands do without structlog and rich

    configure_logs(settings.log_format, settings.log_level)


def _exit_cleanly(signum: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)


def _nothing_to_reload(signum: int, frame: FrameType | None) -> None:
    _log.info("SIGHUP: models and keys are followed as they change; for other settings, start the service anew")
