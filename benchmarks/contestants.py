"""Who competes: the naive apps, Tandem and the bare echo, each under every web server, with their command lines.

Everybody runs as people start them: default logs (into a file), default settings of the web
server. Tandem is `tandem serve` with nothing but its framework and server named.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchmarks.models import Work

HERE: Final = Path(__file__).parent
# What the quickstarts of hosting companies give a Flask app: one process, eight threads.
NAIVE_THREADS: Final = 8

Kind = Literal["naive", "Tandem", "echo"]
Framework = Literal["FastAPI", "Flask"]  # of an echo: the interface, ASGI or WSGI

# By deployment, what gunicorn is told.
GUNICORN: Final[Mapping[str, tuple[str, ...]]] = {
    "gunicorn sync -w 1": ("sync", "1"),
    "gunicorn sync -w 4": ("sync", "4"),
    "gunicorn gthread": ("gthread", "1"),
    "gunicorn gevent": ("gevent", "1"),
}
DEPLOYMENTS: Final[Mapping[Framework, tuple[str, ...]]] = {
    "FastAPI": ("uvicorn",),
    "Flask": ("granian", *GUNICORN),
}


@dataclass(frozen=True, slots=True)
class Contestant:
    """`is_main` ones run in every cell; the others, which only vary the server, at 64 connections."""

    kind: Kind
    framework: Framework
    deployment: str
    is_main: bool

    @property
    def name(self) -> str:
        framework = {"FastAPI": "ASGI", "Flask": "WSGI"}[self.framework] if self.kind == "echo" else self.framework
        return f"{self.kind} {framework}, {self.deployment}"

    def path(self, work: Work) -> str:
        """Where it answers; everybody gives the probabilities alone."""
        return "/predict?outputs=predict_proba" if self.kind == "Tandem" else f"/{work.route}"

    def command(self, models: Path, port: int) -> list[str]:
        """`models` is the folder that `benchmarks.models` wrote for one work."""
        if self.kind == "Tandem":
            return self._tandem(models / "models", port)
        folder, module = ("naive", "flask_app:app") if self.kind == "naive" else ("echo", "wsgi:app")
        match self.deployment.split()[0]:
            case "uvicorn":
                app = "fastapi_app:app" if self.kind == "naive" else "asgi:app"
                quiet = [] if self.kind == "naive" else ["--no-access-log", "--lifespan", "off"]
                options = ["--app-dir", str(HERE / folder), "--host", "127.0.0.1", "--port", str(port), *quiet]
                return [sys.executable, "-m", "uvicorn", app, *options]
            case "granian":
                options = ["--working-dir", str(HERE / folder), "--host", "127.0.0.1", "--port", str(port)]
                return [sys.executable, "-m", "granian", module, "--interface", "wsgi", *options]
            case _:
                kind, workers = GUNICORN[self.deployment]
                threads = ["--threads", str(NAIVE_THREADS)] if kind == "gthread" else []
                options = ["-k", kind, "-w", workers, *threads, "--chdir", str(HERE / folder)]
                # The control socket is one file per user, which several gunicorns would take from each other.
                bind = ["-b", f"127.0.0.1:{port}", "--no-control-socket"]
                return [sys.executable, "-m", "gunicorn", module, *bind, *options]

    def environment(self, models: Path) -> dict[str, str]:
        if self.kind != "naive":
            return {}
        return {"MODEL_FILE": str(models / "model.joblib")}

    def _tandem(self, models: Path, port: int) -> list[str]:
        options = ["--models", str(models), "--port", str(port), "--framework", self.framework.lower()]
        if self.deployment in GUNICORN:
            kind, workers = GUNICORN[self.deployment]
            options += ["--server", "gunicorn", "--worker-class", kind, "--workers", workers]
        else:
            options += ["--server", self.deployment]
        return [sys.executable, "-c", "from training.cli import main; main()", "serve", *options]


# Of the naive Flask app both deployments that a ratio is given for; of Tandem its defaults.
_MAIN: Final = (
    ("naive", "uvicorn"), ("naive", "granian"), ("naive", "gunicorn gthread"),
    ("Tandem", "uvicorn"), ("Tandem", "gunicorn gthread"),
    ("echo", "uvicorn"), ("echo", "granian"),
)  # fmt: skip
KINDS: Final[tuple[Kind, ...]] = ("naive", "Tandem", "echo")

CONTESTANTS: Final = tuple(
    Contestant(kind, framework, deployment, (kind, deployment) in _MAIN)
    for kind in KINDS
    for framework, deployments in DEPLOYMENTS.items()
    for deployment in deployments
)
