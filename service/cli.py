"""The command line of the serving side. `training.cli` adds `train` and `export` to it."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shlex
import socket
import stat
import sys
from pathlib import Path
from typing import Any, NoReturn, get_args

import click
from pydantic import ValidationError

from service import __version__
from service.core.errors import TandemError
from service.entrypoints.servers import Binding, WorkerClass, run_granian, run_gunicorn, run_uvicorn
from service.loader import Loader
from service.protocols.native import WORDS
from service.repository.labels import promote as point_label
from service.repository.manifest import GOLDEN, digest, installed_libraries
from service.repository.policy import served_version
from service.repository.sources import BareFile, Folder
from service.settings import Settings


class TandemGroup(click.Group):
    """Says what is wrong in one line instead of a traceback, where the user can mend it."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TandemError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=TandemGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tandem")
def tandem() -> None:
    """Serve fitted scikit-learn models through FastAPI or Flask."""


@tandem.command()
@click.argument("model_file", required=False, type=click.Path(path_type=Path))
@click.option("--models", type=click.Path(path_type=Path), help="Folder of exported models.  [default: models]")
@click.option("--framework", type=click.Choice(["fastapi", "flask"]), default="fastapi", show_default=True)
@click.option(
    "--server",
    type=click.Choice(["granian", "gunicorn"]),
    default="granian",
    show_default=True,
    help="Web server under Flask; FastAPI runs under uvicorn.",
)
@click.option(
    "--worker-class",
    type=click.Choice(get_args(WorkerClass)),
    default="gthread",
    show_default=True,
    help="Of gunicorn.",
)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes.")
@click.option("--threads", type=int, help="Threads that compute predictions, per process.  [default: one per core]")
@click.option("--device", type=click.Choice(["auto", "cpu", "gpu"]), help="Where to compute.  [default: auto]")
@click.option("--default-model", help="What POST /predict asks where there are several models.")
@click.option(
    "--trust",
    multiple=True,
    metavar="NAME",
    help="A name beyond the allow-list that model files may use: package.module.Name or package.*",
)
@click.option(
    "--allow-version-mismatch",
    is_flag=True,
    default=None,
    help="Load models of another minor version of scikit-learn if their golden rows still agree.",
)
@click.option(
    "--log-format", type=click.Choice(["json", "console"]), help="[default: console on a terminal, else json]"
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
def serve(
    model_file: Path | None, framework: str, server: str, worker_class: WorkerClass, host: str, port: int,
    workers: int, **options: Any,
) -> None:  # fmt: skip
    """Serve MODEL_FILE, or every model in the folder of exported models.

    Options not given here are read from TANDEM_* variables.
    """
    if options["log_format"] is None and sys.stderr.isatty():
        options["log_format"] = "console"
    settings = read_settings(model_file=model_file, **options)
    binding = Binding(host, port, workers)
    check_startable(settings, binding)
    click.echo(banner(settings, binding, framework), err=True)
    if framework == "fastapi":
        run_uvicorn(settings, binding)
    elif server == "granian":
        run_granian(settings, binding)
    else:
        run_gunicorn(settings, binding, worker_class)


@tandem.command()
@click.argument("name")
@click.argument("version", type=click.IntRange(1))
@click.option("--label", default="stable", show_default=True)
@click.option("--models", type=click.Path(path_type=Path), default=Path("models"), show_default=True)
def promote(name: str, version: int, label: str, models: Path) -> None:
    """Point a label of model NAME at VERSION. Services follow within a poll; rolling back is the same call."""
    before = point_label(models, name, version, label)
    came_from = f" (was {before})" if before is not None else ""
    click.echo(f"{name}: {label} is version {version}{came_from}")


def read_settings(**options: Any) -> Settings:
    """Settings from what was given, and from the environment for the rest.

    Raises:
        click.UsageError: a value is refused; the message names the setting.
    """
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        setting = ".".join(map(str, first["loc"])) or "settings"
        raise click.UsageError(f"{setting}: {first['msg'].removeprefix('Value error, ')}") from None


def check_startable(settings: Settings, binding: Binding) -> None:
    """What would only show once the server runs is looked at before.

    Raises:
        click.ClickException: no models there, an untrusted file, or the port is taken.
    """
    if settings.model_file is not None:
        check_model_file(settings, binding)
    elif not settings.models.is_dir():
        raise click.ClickException(
            f"there is no folder {str(settings.models)!r}: export a model into it first "
            "(tandem train iris --name iris), or name another with --models"
        )
    family = socket.AF_INET6 if ":" in binding.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((binding.host, binding.port))
        except OSError as error:
            raise click.ClickException(
                f"cannot listen on {binding.host} port {binding.port}: {error.strerror}"
            ) from None


def check_model_file(settings: Settings, binding: Binding) -> None:
    """A bare file is code that somebody wrote: an own file, loopback only, nothing beyond the allow-list.

    Raises:
        click.ClickException: one of these does not hold; the message says how to mend it.
        ArtefactError: the file cannot be served at all.
    """
    path = settings.model_file
    assert path is not None
    if not path.is_file():
        raise click.ClickException(f"there is no file {str(path)!r}")
    if not ipaddress_is_loopback(binding.host):
        raise click.ClickException(
            f"a bare file is served on loopback only, not on {binding.host}; "
            "export it (tandem export) and serve the folder instead"
        )
    for place in (path, path.resolve().parent):
        mode = place.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise click.ClickException(
                f"{place} can be changed by every user of this machine, and a model file is code. "
                f"If it is yours: chmod o-w {shlex.quote(str(place))}"
            )
    if hasattr(os, "geteuid") and path.stat().st_uid not in (os.geteuid(), 0):
        raise click.ClickException(f"{path} belongs to another user, and a model file is code; copy it first")
    click.echo(
        f"Warning: a joblib file is code that runs when it is opened. {path.name} is opened because it names "
        "nothing beyond the allow-list and what --trust adds.",
        err=True,
    )


def ipaddress_is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def banner(settings: Settings, binding: Binding, framework: str) -> str:
    """What is about to be served, and a request to try it with."""
    found = _one_model(settings)
    source = settings.model_file or settings.models
    lines = [f"Tandem {__version__}: {source} with {framework} on {binding.url}"]
    if found is None:
        lines.append("No model is there yet; one that is exported is served within a poll.")
        return "\n".join(lines)
    name, is_default, example = found
    path = "/predict" if is_default else f"/models/{name}/predict"
    body = {"instances": [example]} if set(example) & set(WORDS) else example
    if settings.model_file is not None:
        content = settings.model_file.read_bytes()
        lines.append(f"{name}: sha256 {digest(content)}, scikit-learn {installed_libraries()['scikit-learn']}")
    lines += [
        f"Try it:   curl -s {binding.url}{path} -H 'content-type: application/json' "
        f"-d {shlex.quote(json.dumps(body, ensure_ascii=False))}",
        f"Look:     {binding.url}/docs",
    ]
    return "\n".join(lines)


def _one_model(settings: Settings) -> tuple[str, bool, dict[str, Any]] | None:
    """A model that will be served, whether it is the default one, and one record it takes."""
    if settings.model_file is not None:
        found = BareFile(settings.model_file).scan()
        name = next(iter(found.versions))
        return name, True, Loader(trust=settings.trust)(found.versions[name][1]).example
    snapshot = Folder(settings.models).scan()
    for name in sorted(snapshot.versions, key=lambda name: (name != settings.default_model, name)):
        version = served_version(snapshot.versions[name], snapshot.labels[name])
        if version is None:
            continue
        # A damaged version is the loader's business: it must not keep the others from being served.
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            columns = json.loads((snapshot.versions[name][version].path / GOLDEN).read_bytes())["request"]["columns"]
            is_default = name == settings.default_model or len(snapshot.versions) == 1
            return name, is_default, {column: values[0] for column, values in columns.items()}
    return None


def main() -> NoReturn:
    tandem(prog_name="tandem")
    sys.exit(0)
