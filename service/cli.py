"""The command line of the serving side. `training.cli` adds `train` and `export` to it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, NoReturn, get_args

import click
from pydantic import ValidationError

from service import __version__
from service.core.errors import TandemError
from service.core.rules import Fidelity, ModelRules, Pickle
from service.entrypoints.servers import Binding, WorkerClass, run_granian, run_gunicorn, run_uvicorn
from service.guards.key_file import add, entries, remove
from service.guards.keys import entry_of, new_key
from service.hosting import Hosts, metrics_folder, orders_file
from service.inspection import as_text, find_version
from service.loading.loader import Loader
from service.observability.share import Ends
from service.platforms import defaults_of
from service.preflight import (
    SERVERS,
    banner,
    check_access,
    check_environment,
    check_grpc,
    check_server,
    check_startable,
    hosts_of,
)
from service.repository.labels import promote as point_label
from service.settings import Settings
from service.signatures import keys, sign, verify


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
    help="Web server.  [default: uvicorn under FastAPI, gunicorn under Flask, or granian where it does not run]",
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
    "--trusted-key",
    "trusted_keys",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A public key: with any, only versions that one of them signed are served. Repeatable.",
)
@click.option(
    "--allow-rollback", is_flag=True, default=None, help="Serve older signed versions where the newest is gone."
)
@click.option(
    "--allow-shared-files",
    is_flag=True,
    default=None,
    help="Open model files that other users of this machine own or can change.",
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
    "--keys", "keys_file", type=click.Path(path_type=Path), help="File of API keys; nobody asks without one of them."
)
@click.option(
    "--jwks",
    "jwks_file",
    type=click.Path(path_type=Path),
    help="File of the public keys of who signs tokens (JWT), which are accepted like API keys.",
)
@click.option("--jwt-issuer", help="What the iss of a token must be.")
@click.option("--jwt-audience", help="What the aud of a token must be or hold.")
@click.option(
    "--allow-anonymous", is_flag=True, default=None, help="Answer everybody beyond loopback, too, without keys."
)
@click.option(
    "--upstream",
    metavar="URL",
    help="A server of a language model that speaks OpenAI's protocol, such as http://127.0.0.1:11434/v1, for "
    "/v1/generate, /v1/completions and /v1/chat/completions.",
)
@click.option("--upstream-model", metavar="NAME", help="The model to ask there.  [default: callers name one]")
@click.option("--rate-limit", metavar="RATE", help="Requests of one caller, such as 100/minute; beyond it 429.")
@click.option("--limit-store", metavar="URI", help="redis://… where processes and machines count requests together.")
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="A name by which callers ask.  [default: those of loopback there, else any] Repeatable.",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="An origin whose pages may ask, such as https://app.example. Repeatable.",
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    multiple=True,
    metavar="ADDRESS",
    help="A proxy, or a block of them, whose X-Forwarded-For is true. Repeatable.",
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
    check_environment(os.environ, host)
    settings = read_settings(
        platform.settings, model_file=model_file, grpc_host=host, per_model=model_rules(rules), **options
    )
    binding = Binding(host, port or platform.port, settings.workers)
    check_grpc(settings, binding, worker_class if server == "gunicorn" else None)
    settings = settings.model_copy(update={"allowed_hosts": hosts_of(settings, binding)})
    check_startable(settings, binding, is_container=platform.is_container)
    check_access(settings, binding, is_container=platform.is_container)
    # Once for all workers: they find these processes, and each other, by what stands in the environment.
    with (
        orders_file(settings) as orders,
        metrics_folder(settings) as folder,
        closing(Ends(folder)) as ends,
        closing(Hosts(settings, ended=ends)) as hosts,
    ):
        hosts.start()
        settings = settings.model_copy(update={**hosts.sockets(), "orders_file": orders, "metrics_folder": folder})
        with suppress(OSError):  # nobody takes it: no reason not to serve
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
@click.option("--allow-shared-files", is_flag=True, help="As for serve.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, as in GET /models/{name}.")
def inspect(
    name: str, version: int | None, models: Path, fidelity: Fidelity, pickle: Pickle, trust: tuple[str, ...],
    allow_shared_files: bool, as_json: bool,
) -> None:  # fmt: skip
    """Show VERSION of model NAME as this machine would serve it: engines, how close they are, and what they cost.

    Without VERSION it is the one that plain requests get. --pickle always times the estimator, too.
    """
    found = find_version(models, name, version)
    rules = ModelRules(fidelity=fidelity, pickle=pickle)
    checked = Loader(trust=trust, rules=lambda _: rules, allow_shared_files=allow_shared_files)(found)
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


@tandem.group("api-keys")
def api_keys() -> None:
    """Make and revoke the keys of callers. Services that use the file follow within a second."""


_KEYS: Final = click.option(
    "--keys", "path", type=click.Path(path_type=Path), envvar="TANDEM_KEYS_FILE", default=Path("keys.json"),
    show_default=True, help="The file they stand in, as hashes.",
)  # fmt: skip


@api_keys.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["predict", "generate", "metrics", "admin"]),
    default=["predict"],
    show_default=True,
    help="What it is good for. Repeatable.",
)
@click.option("--model", "models", multiple=True, metavar="MODEL", help="[default: all] Repeatable.")
@click.option("--limit", metavar="RATE", help="Such as 100/minute.  [default: the one of the service]")
@click.option("--expires", metavar="DATE", help="Such as 2027-01-31, at midnight UTC.  [default: never]")
@_KEYS
def create_key(
    name: str, scopes: tuple[str, ...], models: tuple[str, ...], limit: str | None, expires: str | None, path: Path
) -> None:
    """Make a key for caller NAME and print it: once, for only its hash is kept."""
    key = new_key()
    add(path, entry_of(name, key, scopes, models, limit, expires))
    click.echo(key)


@api_keys.command("list")
@_KEYS
def list_keys(path: Path) -> None:
    """Show whose keys there are, and what they are good for."""
    for entry in entries(path):
        about = [",".join(entry["scopes"]), f"models {','.join(entry['models'])}" if entry.get("models") else ""]
        about += [f"{field} {entry[field]}" for field in ("limit", "expires") if field in entry]
        click.echo("  ".join([entry["name"], *filter(None, about)]))


@api_keys.command("revoke")
@click.argument("name")
@_KEYS
def revoke_key(name: str, path: Path) -> None:
    """Take the key of caller NAME out of the file."""
    remove(path, name)
    click.echo(f"{name}: revoked")


for _command in (keys, sign, verify):
    tandem.add_command(_command)


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
