from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.core.artefact_errors import KeyUnusable, ModelFileUnreadable
from service.entrypoints.servers import Binding
from service.generation.rules import UpstreamUnusable
from service.guards.guard import CannotGuard
from service.preflight import (
    CannotStart,
    banner,
    check_access,
    check_grpc,
    check_server,
    check_startable,
    check_upstream,
    hosts_of,
    is_loopback,
)
from service.repository.manifest import GOLDEN
from service.repository.signing import create_keys
from service.settings import Settings
from tests.faults.cases import fault
from tests.service.conftest import NASTY


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TANDEM_")]:
        monkeypatch.delenv(name)


def test_a_server_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.preflight.find_spec", lambda name: None if name == "gevent" else object())

    with pytest.raises(CannotStart, match=r"gevent is not installed: pip install 'tandem-serving\[gevent\]'"):
        check_server("flask", "gunicorn", "gevent")


def test_a_server_that_somebody_has_removed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.preflight.find_spec", lambda name: None)

    with pytest.raises(CannotStart, match="granian is not installed: pip install granian"):
        check_server("flask", "granian", "gthread")


@pytest.mark.parametrize("missing", ["grpc", "google", "google.protobuf"])
def test_grpc_is_asked_for_only_where_it_is_installed(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.preflight.find_spec", lambda name: None if name == missing else object())
    binding = Binding("127.0.0.1", 8000, 1)

    check_grpc(Settings(), binding, None)
    with pytest.raises(CannotStart, match=rf"{missing} is not installed: pip install 'tandem-serving\[grpc\]'"):
        check_grpc(Settings(grpc_port=8001), binding, None)


@fault("P03", sent="an upstream whose name is at a metadata address", expected="refused at start")
def test_upstream_at_a_metadata_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ["169.254.169.254"]
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, **_: [(2, 1, 6, "", (address, port)) for address in addresses]
    )
    settings = Settings(upstream="http://metadata.example/v1")

    with pytest.raises(CannotStart, match=r"upstream: metadata\.example has a link-local address"):
        check_upstream(settings)
    addresses[:] = ["10.0.0.1"]
    check_upstream(settings)


def test_upstream_that_is_not_known_yet_is_no_reason_not_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror("unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    check_upstream(Settings(upstream="http://later.example/v1"))


def test_upstream_has_one_key(tmp_path: Path) -> None:
    both = {"upstream_key": "sk-canary", "upstream_key_file": tmp_path / "key"}

    with pytest.raises(CannotStart, match="upstream_key and upstream_key_file are both there") as caught:
        check_upstream(Settings(upstream="http://127.0.0.1/v1", **both))  # type: ignore[arg-type]
    assert "canary" not in str(caught.value)
    with pytest.raises(UpstreamUnusable, match="upstream_key_file: No such file"):
        check_upstream(Settings(upstream="http://127.0.0.1/v1", upstream_key_file=tmp_path / "key"))


def test_grpc_needs_threads_and_a_port_of_its_own() -> None:
    binding = Binding("127.0.0.1", 8000, 1)

    check_grpc(Settings(grpc_port=8001), binding, "gthread")
    with pytest.raises(CannotStart, match="use --worker-class gthread"):
        check_grpc(Settings(grpc_port=8001), binding, "gevent")
    with pytest.raises(CannotStart, match="gRPC needs a port of its own"):
        check_grpc(Settings(grpc_port=8000), binding, None)


def test_the_port_of_grpc_must_be_free(models: Path, binding: Binding) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        with pytest.raises(CannotStart, match=f"cannot listen on 127.0.0.1 port {port}"):
            check_startable(Settings(models=models, grpc_port=port), binding)


def test_banner_tells_the_port_of_grpc(models: Path) -> None:
    settings = Settings(models=models, grpc_port=8001)

    assert banner(settings, Binding("127.0.0.1", 8000, 1), "fastapi").endswith("gRPC:     port 8001")


def test_own_bare_file_may_be_served_and_its_banner_warns(model_file: Path, binding: Binding) -> None:
    settings = Settings(model_file=model_file)

    check_startable(settings, binding)

    assert "a joblib file is code that runs when it is opened" in banner(settings, binding, "fastapi")


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
     ("::", False), ("10.0.0.1", False), ("localhost.example.org", False), ("", False)],
)  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# The banner


def _curl(text: str) -> list[str]:
    """The words of the command, as a shell cuts them."""
    command = text[text.index("Try it:") + len("Try it:") : text.index("\nLook:")]
    show = f"{shlex.quote(sys.executable)} -c 'import json, sys; print(json.dumps(sys.argv[1:]))'"
    script = f'curl() {{ {show} "$@"; }}\n{command}'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    words: list[str] = json.loads(done.stdout)
    return words


def _body(words: list[str]) -> Any:
    return json.loads(words[words.index("-d") + 1])


def test_banner_holds_a_request_that_shell_and_service_understand(models: Path) -> None:
    words = _curl(banner(Settings(models=models), Binding("127.0.0.1", 8000, 1), "fastapi"))

    assert words[:2] == ["-s", "http://127.0.0.1:8000/models/iris/predict"]
    assert words[words.index("-H") + 1] == "content-type: application/json"
    assert _body(words) == {"x0": 0.0, "x1": 1.0}


def test_banner_quotes_whatever_stands_in_the_data(models: Path) -> None:
    settings = Settings(models=models, default_model="town")

    assert _body(_curl(banner(settings, Binding("127.0.0.1", 8000, 1), "flask"))) == {NASTY: NASTY}


def test_banner_writes_an_address_of_ipv6_in_brackets(models: Path) -> None:
    assert "http://[::1]:8000/docs" in banner(Settings(models=models), Binding("::1", 8000, 1), "flask")


def test_banner_of_an_empty_folder_says_what_comes_next(tmp_path: Path) -> None:
    text = banner(Settings(models=tmp_path), Binding("127.0.0.1", 8000, 1), "flask")

    assert "No model is there yet; one that is exported is served within a poll." in text


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"request": {"columns": {"x0": []}}}'])
def test_damaged_version_does_not_keep_the_others_from_being_served(models: Path, content: bytes | None) -> None:
    golden = models / "iris" / "2" / GOLDEN
    golden.unlink()
    if content is not None:
        golden.write_bytes(content)

    assert "/models/town/predict" in banner(Settings(models=models), Binding("127.0.0.1", 8000, 1), "flask")


def test_banner_of_a_bare_file_tells_its_digest(model_file: Path) -> None:
    text = banner(Settings(model_file=model_file), Binding("127.0.0.1", 8000, 1), "fastapi")

    assert "churn: sha256 " in text
    assert _body(_curl(text)) == {"x0": 0.0, "x1": 0.0}


def test_banner_of_a_bad_bare_file_is_its_error(tmp_path: Path) -> None:
    path = tmp_path / "churn.joblib"
    path.write_bytes(b"")

    with pytest.raises(ModelFileUnreadable):
        banner(Settings(model_file=path), Binding("127.0.0.1", 8000, 1), "fastapi")


# Keys


def test_keys_are_read_before_the_server_starts(models: Path, binding: Binding, tmp_path: Path) -> None:
    create_keys(tmp_path / "mine")
    check_startable(Settings(models=models, trusted_keys=str(tmp_path / "mine.pub")), binding)

    with pytest.raises(KeyUnusable, match=r"mine\.key is no public key"):
        check_startable(Settings(models=models, trusted_keys=str(tmp_path / "mine.key")), binding)


def test_where_a_key_is_trusted_no_bare_file_is_served(model_file: Path, binding: Binding, tmp_path: Path) -> None:
    create_keys(tmp_path / "mine")

    with pytest.raises(CannotStart, match="a bare file cannot be signed"):
        check_startable(Settings(model_file=model_file, trusted_keys=str(tmp_path / "mine.pub")), binding)


@pytest.mark.parametrize("place", ["versions", "iris/versions", "../models/versions"])
def test_highest_versions_are_not_kept_where_models_are_written(
    models: Path, binding: Binding, tmp_path: Path, place: str
) -> None:
    create_keys(tmp_path / "mine")
    settings = Settings(models=models, trusted_keys=str(tmp_path / "mine.pub"), versions_file=models / place)

    with pytest.raises(CannotStart, match="lies in the folder of models"):
        check_startable(settings, binding)


# Who may ask


def _keys(folder: Path, content: str) -> Path:
    path = folder / "callers.json"
    path.write_text(content)
    return path


GOOD_KEYS = '{"keys": [{"name": "shop", "sha256": "%s", "scopes": ["predict"]}]}' % ("ab" * 32)


@fault("A11", sent="an address beyond loopback, and no keys", expected="refuses to start, says which settings")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "tandem.example"])
def test_strangers_are_not_let_in_unless_somebody_says_so(host: str, tmp_path: Path) -> None:
    binding = Binding(host, 8000, 1)

    with pytest.raises(CannotStart, match=r"--keys .* --jwks.* --allow-anonymous") as caught:
        check_access(Settings(), binding)

    assert host in str(caught.value)
    check_access(Settings(allow_anonymous=True), binding)
    check_access(Settings(keys_file=_keys(tmp_path, GOOD_KEYS)), binding)
    check_access(Settings(), binding, is_container=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_loopback_nobody_need_be_asked(host: str) -> None:
    check_access(Settings(), Binding(host, 8000, 1))


@fault("A12", sent="a file without a key, with an empty or a sample key", expected="refuses to start, names the entry")
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"keys": []}', "there is no key in it"),
        ("", "expected JSON"),
        (GOOD_KEYS.replace("ab" * 32, ""), "key 'shop': expected sha256"),
        (
            GOOD_KEYS.replace("ab" * 32, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            "key 'shop' is empty or a sample",
        ),
    ],
)
def test_keys_that_are_none_are_said_before_the_server_starts(content: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(CannotGuard, match=says):
        check_access(Settings(keys_file=_keys(tmp_path, content)), Binding("127.0.0.1", 8000, 1))


@pytest.mark.parametrize(
    ("given", "host", "hosts"),
    [
        pytest.param((), "127.0.0.1", ("localhost", "127.0.0.1", "::1"), id="loopback"),
        pytest.param((), "127.0.0.2", ("localhost", "127.0.0.1", "::1", "127.0.0.2"), id="another loopback"),
        pytest.param((), "0.0.0.0", (), id="all addresses"),
        pytest.param(("tandem.example",), "127.0.0.1", ("tandem.example",), id="as somebody says"),
    ],
)
def test_on_loopback_the_service_has_the_names_of_loopback(
    given: tuple[str, ...], host: str, hosts: tuple[str, ...]
) -> None:
    assert hosts_of(Settings(allowed_hosts=given), Binding(host, 8000, 1)) == hosts
