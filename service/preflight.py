"""Before a server starts: what would only show once it runs, and what a person wants to know first."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shlex
import socket
import stat
from importlib.util import find_spec
from typing import Any, Final

from service import __version__
from service.core.errors import TandemError
from service.entrypoints.servers import Binding
from service.loading.loader import Loader
from service.protocols.native import example_body, first_record
from service.repository.manifest import GOLDEN, digest, installed_libraries
from service.repository.policy import served_version
from service.repository.sources import BareFile, source_in
from service.settings import Settings

# The web servers of each framework, the first of them by default.
SERVERS: Final = {"fastapi": ("uvicorn",), "flask": ("granian", "gunicorn")}


class CannotStart(TandemError):
    """The server cannot start as it was asked to; the message says what to change."""

    title = "Cannot start"


def check_server(framework: str, server: str, worker_class: str) -> None:
    """Raises CannotStart where the framework has no such server, or it is not installed."""
    if server not in SERVERS[framework]:
        raise CannotStart(f"{framework} is served by {' or '.join(SERVERS[framework])}, not by {server}")
    needed = [server, *(["gevent"] if (server, worker_class) == ("gunicorn", "gevent") else [])]
    for package in needed:
        if find_spec(package) is None:
            raise CannotStart(f"{package} is not installed: pip install 'tandem-serving[gunicorn]'")


def check_startable(settings: Settings, binding: Binding, *, is_container: bool = False) -> None:
    """What would only show once the server runs is looked at before.

    A bare file is looked at less strictly in a container of a platform: nobody else writes there, nor reaches it.

    Raises:
        CannotStart: no models there, an untrusted file, or a port is taken.
    """
    if settings.model_file is not None:
        check_model_file(settings, binding, is_container=is_container)
    elif not settings.models.is_dir():
        raise CannotStart(
            f"there is no folder {str(settings.models)!r}: export a model into it first "
            "(tandem train iris --name iris), or name another with --models"
        )
    check_address(binding.host, binding.port)
    if settings.grpc_port is not None:
        check_address(binding.host, settings.grpc_port)


def check_grpc(settings: Settings, binding: Binding, worker_class: str | None) -> None:
    """`worker_class` is gunicorn's.

    Raises:
        CannotStart: gRPC is asked for and cannot be answered here.
    """
    if settings.grpc_port is None:
        return
    # Protobuf lies in a folder of several packages, which must be looked for first.
    for package in ("grpc", "google", "google.protobuf"):
        if find_spec(package) is None:
            raise CannotStart(f"{package} is not installed: pip install 'tandem-serving[grpc]'")
    if worker_class == "gevent":
        raise CannotStart("gRPC needs threads, which gevent replaces: use --worker-class gthread")
    if settings.grpc_port == binding.port:
        raise CannotStart(f"--grpc-port and --port are both {binding.port}: gRPC needs a port of its own")


def check_address(host: str, port: int) -> None:
    """Raises CannotStart where somebody else listens, or nobody can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotStart(f"cannot listen on {host} port {port}: {error.strerror}") from None


def check_model_file(settings: Settings, binding: Binding, *, is_container: bool = False) -> None:
    """A bare file is code that somebody wrote: an own file, loopback only, nothing beyond the allow-list.

    Raises:
        CannotStart: one of these does not hold; the message says how to mend it.
        ArtefactError: the file cannot be served at all.
    """
    path = settings.model_file
    assert path is not None
    if not path.is_file():
        raise CannotStart(f"there is no file {str(path)!r}")
    if is_container:
        return
    if not is_loopback(binding.host):
        raise CannotStart(
            f"a bare file is served on loopback only, not on {binding.host}; "
            "export it (tandem export) and serve the folder instead"
        )
    for place in (path, path.resolve().parent):
        mode = place.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise CannotStart(
                f"{place} can be changed by every user of this machine, and a model file is code. "
                f"If it is yours: chmod o-w {shlex.quote(str(place))}"
            )
    if hasattr(os, "geteuid") and path.stat().st_uid not in (os.geteuid(), 0):
        raise CannotStart(f"{path} belongs to another user, and a model file is code; copy it first")


def is_loopback(host: str) -> bool:
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
    if settings.model_file is not None:
        content = settings.model_file.read_bytes()
        lines += [
            f"{name}: sha256 {digest(content)}, scikit-learn {installed_libraries()['scikit-learn']}",
            f"Warning: a joblib file is code that runs when it is opened. {settings.model_file.name} is opened because "
            "it names nothing beyond the allow-list and what --trust adds.",
        ]
    lines += [
        f"Try it:   curl -s {binding.url}{path} -H 'content-type: application/json' "
        f"-d {shlex.quote(json.dumps(example_body(example), ensure_ascii=False))}",
        f"Look:     {binding.url}/docs",
    ]
    if settings.grpc_port is not None:
        lines.append(f"gRPC:     port {settings.grpc_port}")
    return "\n".join(lines)


def _one_model(settings: Settings) -> tuple[str, bool, dict[str, Any]] | None:
    """A model that will be served, whether it is the default one, and one record it takes."""
    if settings.model_file is not None:
        found = BareFile(settings.model_file).scan()
        name = next(iter(found.versions))
        return name, True, Loader(trust=settings.trust)(found.versions[name][1]).example
    snapshot = source_in(settings.models).scan()
    for name in sorted(snapshot.versions, key=lambda name: (name != settings.default_model, name)):
        version = served_version(snapshot.versions[name], snapshot.labels[name])
        if version is None:
            continue
        # A damaged version is the loader's business: it must not keep the others from being served.
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            columns = json.loads((snapshot.versions[name][version].path / GOLDEN).read_bytes())["request"]["columns"]
            is_default = name == settings.default_model or len(snapshot.versions) == 1
            return name, is_default, first_record(columns)
    return None
