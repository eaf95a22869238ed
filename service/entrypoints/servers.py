"""Web servers, started in this process: uvicorn for FastAPI, Granian or gunicorn for Flask.

Settings travel to worker processes in the environment, and each worker builds its own app.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, Literal, NoReturn

from service.settings import Settings

FASTAPI_APP: Final = "service.entrypoints.fastapi_app:app"
FLASK_APP: Final = "service.entrypoints.flask_app:app"

# A request waits on its thread while the model computes, so threads bound how many wait at once.
WAITING: Final = 64
# Some threads never wait for a model, so that health is answered whatever the models do.
WSGI_THREADS: Final = WAITING + 8
# What is under way at SIGTERM may finish; orchestrators kill after 30 seconds by default.
GRACE_S: Final = 25

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
    """FastAPI under uvicorn, with uvloop and httptools where they are installed."""
    import uvicorn

    os.environ.update(settings.as_environment())
    # uvicorn restores our handler when it has drained, and raises the signal once more.
    signal.signal(signal.SIGTERM, _exit_cleanly)
    signal.signal(signal.SIGINT, _exit_cleanly)
    uvicorn.run(
        FASTAPI_APP,
        host=binding.host,
        port=binding.port,
        workers=binding.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    sys.exit(0)


def run_granian(settings: Settings, binding: Binding) -> NoReturn:
    """Flask under Granian's WSGI server."""
    from granian import Granian
    from granian.constants import Interfaces

    os.environ.update(_with_spare_threads(settings))
    Granian(
        FLASK_APP,
        address=binding.host,
        port=binding.port,
        interface=Interfaces.WSGI,
        workers=binding.workers,
        blocking_threads=WSGI_THREADS,
        respawn_failed_workers=True,
        workers_kill_timeout=GRACE_S,
        log_enabled=False,
    ).serve()
    sys.exit(0)


def run_gunicorn(settings: Settings, binding: Binding, worker_class: WorkerClass) -> NoReturn:
    """Flask under gunicorn, for those who have it."""
    from gunicorn.app.base import BaseApplication

    os.environ.update(_with_spare_threads(settings) if worker_class == "gthread" else settings.as_environment())
    options: dict[str, Any] = {
        "bind": f"{binding.host}:{binding.port}",
        "workers": binding.workers,
        "worker_class": worker_class,
        "threads": WSGI_THREADS if worker_class == "gthread" else 1,
        "graceful_timeout": GRACE_S,
        "timeout": int(settings.timeout_s) + GRACE_S,
        "control_socket_disable": True,
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


def _with_spare_threads(settings: Settings) -> dict[str, str]:
    return {**settings.as_environment(), "TANDEM_MAX_WAITING": str(settings.max_waiting or WAITING)}


def _exit_cleanly(signum: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)
