"""Before a server starts: what would only show once it runs, and what a person wants to know first."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import shlex
import socket
import stat
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any, Final

from service import __version__
from service.core.errors import TandemError
from service.entrypoints.servers import Binding
from service.generation.address import allowed
from service.generation.rules import key_of
from service.guards.guard import guard_of
from service.guards.hosts import LOOPBACK
from service.loading.loader import Checked, Loader
from service.loading.sandbox import Sandbox
from service.protocols.native import example_body, first_record
from service.repository.manifest import GOLDEN, digest, installed_libraries
from service.repository.policy import served_version
from service.repository.signing import read_trusted_keys
from service.repository.sources import BareFile, Found, source_in
from service.settings import Settings

# The web servers of each framework, the first of them by default. gunicorn forks, which not every system does.
SERVERS: Final = {
    "fastapi": ("uvicorn",),
    "flask": ("gunicorn", "granian") if hasattr(os, "fork") else ("granian",),
}

# A URL as it looks once it was taken for a path, which has no empty parts.
_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/+(?P<rest>.+)")

# What Kubernetes tells every container of a service that is called tandem, or tandem-something.
_KUBERNETES: Final = re.compile(
    r"TANDEM(_[A-Z0-9_]+)?_(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT(_\d+_[A-Z]+(_(PROTO|PORT|ADDR))?)?)"
)
# How Flask takes its variable for false.
_OFF: Final = frozenset({"", "0", "false", "no"})


class CannotStart(TandemError):
    """The server cannot start as it was asked to; the message says what to change."""

    title = "Cannot start"


def check_environment(environment: Mapping[str, str], host: str) -> None:
    """
    Raises:
        CannotStart: a variable looks like a setting and is none, or asks for a debugger that strangers could reach.
    """
    known = {f"TANDEM_{name.upper()}" for name in Settings.model_fields}
    for name in sorted(environment):
        if name.upper().startswith("TANDEM_") and name.upper() not in known and not _KUBERNETES.fullmatch(name):
            near = get_close_matches(name.upper(), known, 1)
            raise CannotStart(f"there is no setting {name}{f'; is it {near[0]}?' if near else ''}")
    if environment.get("FLASK_DEBUG", "0").lower() not in _OFF and not is_loopback(host):
        raise CannotStart(f"FLASK_DEBUG is set, and {host} can be reached from other machines: unset it")


def check_server(framework: str, server: str, worker_class: str) -> None:
    """Raises CannotStart where the framework has no such server, or it is not installed."""
    if server not in SERVERS[framework]:
        raise CannotStart(f"{framework} is served by {' or '.join(SERVERS[framework])}, not by {server}")
    needed = [server, *(["gevent"] if (server, worker_class) == ("gunicorn", "gevent") else [])]
    for package in needed:
        if find_spec(package) is None:
            extra = "'tandem-serving[gevent]'" if package == "gevent" else package
            raise CannotStart(f"{package} is not installed: pip install {extra}")


def check_startable(settings: Settings, binding: Binding, *, is_container: bool = False) -> None:
    """What would only show once the server runs is looked at before.

    A bare file is looked at less strictly in a container of a platform: nobody else writes there, nor reaches it.

    Raises:
        CannotStart: no models there, an untrusted file, or a port is taken.
    """
    check_keys(settings)
    if settings.model_file is not None:
        check_model_file(settings, binding, is_container=is_container)
    elif not settings.models.is_dir():
        raise CannotStart(
            f"there is no folder {str(settings.models)!r}: export a model into it first "
            "(tandem train iris --name iris), or name another with --models"
        )
    check_upstream(settings)
    check_address(binding.host, binding.port)
    if settings.grpc_port is not None:
        check_address(binding.host, settings.grpc_port)


def check_keys(settings: Settings) -> None:
    """
    Raises:
        KeyUnusable: a trusted key cannot be read.
        CannotStart: keys are trusted, and what is served cannot be signed, or remembered safely.
    """
    if not read_trusted_keys(settings.trusted_keys):
        return
    if settings.model_file is not None:
        raise CannotStart("a bare file cannot be signed: leave --trusted-key out, or export it and serve the folder")
    file = settings.versions_file
    if file is not None and file.resolve().is_relative_to(settings.models.resolve()):
        raise CannotStart(
            f"{file} lies in the folder of models: whoever can write there could let old versions back in"
        )


def check_upstream(settings: Settings) -> None:
    """
    Raises:
        CannotStart: the upstream is at an address that nothing may be asked at, or it is not known which key it wants.
        UpstreamUnusable: its key cannot be read.
    """
    rules = settings.generation
    if rules is None:
        return
    if settings.upstream_key is not None and settings.upstream_key_file is not None:
        raise CannotStart("upstream_key and upstream_key_file are both there: the upstream wants one key")
    key_of(rules.upstream)
    address = rules.upstream.address
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError:  # it may be known later, and is looked at again for each connection
        return
    if not allowed([str(one[0]) for *_, one in found], None):
        raise CannotStart(
            f"upstream: {address.host} has a link-local address, or another that must not be asked: from there clouds "
            "hand out credentials"
        )


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


def hosts_of(settings: Settings, binding: Binding) -> tuple[str, ...]:
    """The names by which the service may be asked. On loopback these are its own, so that no page on the internet
    can point a name there; elsewhere the operator knows them, or all are good."""
    if settings.allowed_hosts or not is_loopback(binding.host):
        return settings.allowed_hosts
    return tuple(dict.fromkeys([*LOOPBACK, binding.host]))


def check_access(settings: Settings, binding: Binding, *, is_container: bool = False) -> None:
    """Who reaches this machine is no caller yet: beyond loopback there are keys, or somebody says that none are meant.

    In a container of a platform only the platform asks, which knows its callers.

    Raises:
        CannotStart: strangers could ask, and nobody said that they may.
        CannotGuard, StoreUnusable: what callers are to be known by cannot be used.
    """
    strangers_may = is_loopback(binding.host) or is_container or settings.allow_anonymous
    if not strangers_may and not settings.access.know_callers:
        raise CannotStart(
            f"{binding.host} can be reached from other machines, and callers would not be asked who they are. "
            "Name the file of their keys with --keys (tandem api-keys create NAME makes one), or of the public keys "
            "that sign their tokens with --jwks; or let everybody in with --allow-anonymous"
        )
    guard_of(settings.access)


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
    if (url := _URL.match(str(path))) is not None:
        address = f"{url['scheme']}://{url['rest']}"
        raise CannotStart(
            f"a model is not fetched from {address}: fetch the file, compare its sha256 with the publisher's, and "
            f"serve it: curl -fLO {shlex.quote(address)}"
        )
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
        return name, True, _load(found.versions[name][1], settings).example
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


def _load(found: Found, settings: Settings) -> Checked:
    if not settings.sandbox:
        return Loader(trust=settings.trust)(found)
    with contextlib.closing(Sandbox(memory_bytes=settings.sandbox_bytes, seconds=settings.sandbox_s)) as sandbox:
        return Loader(trust=settings.trust, sandbox=sandbox)(found)
