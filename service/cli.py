"""The command line of the serving side. `training.cli` adds `train` and `export` to it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn, get_args

import click
from pydantic import ValidationError

from service import __version__
from service.core.errors import TandemError
from service.core.rules import Fidelity, ModelRules, Pickle
from service.entrypoints.servers import Binding, WorkerClass, run_granian, run_gunicorn, run_uvicorn
from service.hosting import Hosts, orders_file
from service.inspection import as_text, find_version
from service.loading.loader import Loader
from service.platforms import defaults_of
from service.preflight import SERVERS, banner, check_grpc, check_server, check_startable
from service.repository.labels import promote as point_label
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
    type=click.Choice([server for servers in SERVERS.values() for server in servers]),
    help="Web server.  [default: uvicorn under FastAPI, granian under Flask]",
)
@click.option(
    "--worker-class",
    type=click.Choice(get_args(WorkerClass)),
    default="gthread",
    show_default=True,
    help="Of gunicorn.",
)
@click.option("--host", help="[default: 127.0.0.1, or what the platform of a container asks for]")
@click.option("--port", type=click.IntRange(1, 65535), help="[default: 8000, or what the platform asks for]")
@click.option("--grpc-port", type=click.IntRange(1, 65535), help="Answer gRPC, too, on this port of the same host.")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes.  [default: 1]")
@click.option("--threads", type=int, help="Threads that compute, per process.  [default: cores / workers]")
@click.option("--device", type=click.Choice(["auto", "cpu", "gpu"]), help="Where to compute.  [default: auto]")
@click.option("--fidelity", type=click.Choice(get_args(Fidelity)), help="Which engines may answer.  [default: close]")
@click.option("--pickle", type=click.Choice(get_args(Pickle)), help="When model files are opened.  [default: lazy]")
@click.option("--engine", type=click.Choice(["auto", "estimator"]), help="[default: auto, the cheapest]")
@click.option(
    "--set",
    "rules",
    multiple=True,
    metavar="MODEL.RULE=VALUE",
    help="fidelity, pickle or engine of one model: --set churn.engine=onnx. Repeatable.",
)
@click.option(
    "--isolate", multiple=True, metavar="MODEL", help="A model to run in a process of its own; * is all. Repeatable."
)
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
    "--model-control",
    is_flag=True,
    default=None,
    help="Let callers load and unload models, by the protocols that can ask for it.",
)
@click.option(
    "--log-format", type=click.Choice(["json", "console"]), help="[default: console on a terminal, else json]"
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
def serve(
    model_file: Path | None, framework: str, server: str | None, worker_class: WorkerClass, host: str | None,
    port: int | None, rules: tuple[str, ...], **options: Any,
) -> None:  # fmt: skip
    """Serve MODEL_FILE, or every model in the folder of exported models.

    Options not given here are read from TANDEM_* variables, and in a container of SageMaker or Vertex AI from those
    of the platform.
    """
    if options["log_format"] is None and sys.stderr.isatty():
        options["log_format"] = "console"
    server = server or SERVERS[framework][0]
    check_server(framework, server, worker_class)
    platform = defaults_of(os.environ, has_models=model_file is not None or options["models"] is not None)
    host = host or platform.host
    settings = read_settings(
        platform.settings, model_file=model_file, grpc_host=host, per_model=model_rules(rules), **options
    )
    binding = Binding(host, port or platform.port, settings.workers)
    check_grpc(settings, binding, worker_class if server == "gunicorn" else None)
    check_startable(settings, binding, is_container=platform.is_container)
    # Once for all workers: they find these processes, and each other, by what stands in the environment.
    with orders_file(settings) as orders, closing(Hosts(settings)) as hosts:
        hosts.start()
        settings = settings.model_copy(update={**hosts.sockets(), "orders_file": orders})
        click.echo(banner(settings, binding, framework), err=True)
        if server == "uvicorn":
            run_uvicorn(settings, binding)
        elif server == "granian":
            run_granian(settings, binding)
        else:
            run_gunicorn(settings, binding, worker_class)


@tandem.command()
@click.argument("name")
@click.argument("version", type=click.IntRange(1), required=False)
@click.option("--models", type=click.Path(path_type=Path), default=Path("models"), show_default=True)
@click.option("--fidelity", type=click.Choice(get_args(Fidelity)), default="close", show_default=True)
@click.option("--pickle", type=click.Choice(get_args(Pickle)), default="lazy", show_default=True)
@click.option("--trust", multiple=True, metavar="NAME", help="A name beyond the allow-list, as for serve.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, as in GET /models/{name}.")
def inspect(
    name: str, version: int | None, models: Path, fidelity: Fidelity, pickle: Pickle, trust: tuple[str, ...],
    as_json: bool,
) -> None:  # fmt: skip
    """Show VERSION of model NAME as this machine would serve it: engines, how close they are, and what they cost.

    Without VERSION it is the one that plain requests get. --pickle always times the estimator, too.
    """
    found = find_version(models, name, version)
    rules = ModelRules(fidelity=fidelity, pickle=pickle)
    checked = Loader(trust=trust, rules=lambda _: rules)(found)
    click.echo(json.dumps(checked.about(), indent=2) if as_json else as_text(checked))


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


def model_rules(given: Sequence[str]) -> dict[str, dict[str, str]]:
    """`("churn.engine=onnx",)` as {"churn": {"engine": "onnx"}}.

    Raises:
        click.UsageError: not of that form.
    """
    rules: dict[str, dict[str, str]] = {}
    for text in given:
        name, equals, value = text.partition("=")
        model, dot, rule = name.rpartition(".")
        if not (equals and dot and model and value):
            raise click.UsageError(f"--set: expected MODEL.RULE=VALUE, got {text!r}")
        rules.setdefault(model, {})[rule] = value
    return rules


def read_settings(defaults: Mapping[str, Any] | None = None, /, **options: Any) -> Settings:
    """Settings from what was given, from the environment for the rest, and before their own from `defaults`.

    Raises:
        click.UsageError: a value is refused; the message names the setting.
    """
    given = {**(defaults or {}), **{name: value for name, value in options.items() if value not in (None, (), {})}}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        setting = ".".join(map(str, first["loc"])) or "settings"
        raise click.UsageError(f"{setting}: {first['msg'].removeprefix('Value error, ')}") from None


def main() -> NoReturn:
    tandem(prog_name="tandem")
    sys.exit(0)
