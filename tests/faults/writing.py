"""The web servers with keys, and a scripted language model behind them, as the cases of texts ask them."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from service.guards.keys import entry_of, new_key
from tests.conformance.servers import CLIENT, SERVERS, Running, side_by_side, tandem_serve
from tests.conformance.wire import request
from tests.faults.fronts import PATIENCE_S, PREDICT, Front
from tests.faults.upstream import MODEL, SECRET, TEXTS, Upstream, scripted

WHOLE: Final = "/v1/generate"
STREAM: Final = "/v1/generate/stream"
COMPLETIONS: Final = "/v1/completions"
CHAT: Final = "/v1/chat/completions"
EVENTS: Final = "text/event-stream"

WRITER: Final = new_key()  # may ask for texts, and predict
READER: Final = new_key()  # may predict
OTHER: Final = new_key()  # as WRITER
NARROW: Final = new_key()  # may ask another model for texts
UPSTREAM_KEY: Final = "upstream-canary-5d1f"
MAX_BYTES: Final = 1_000_000
MAX_PROMPT: Final = 20_000
MAX_MESSAGES: Final = 50
FIRST_S: Final = 2.0
GAP_S: Final = 4.0
STREAMS: Final = 60
# gunicorn's other workers, which few tests ask.
WORKERS: Final = {
    f"gunicorn-{worker}": (*SERVERS["gunicorn"], "--worker-class", worker) for worker in ("gevent", "sync")
}


def write_keys(path: Path) -> None:
    entries = [
        entry_of("writer", WRITER, ["predict", "generate", "metrics"], (), None, None),
        entry_of("other", OTHER, ["generate"], (), None, None),
        entry_of("reader", READER, ["predict"], (), None, None),
        entry_of("narrow", NARROW, ["generate"], ["org/other:2b"], None, None),
    ]
    path.write_text(json.dumps({"keys": entries}))


@dataclass(frozen=True, slots=True)
class Writing(Front):
    """A front with a language model behind it, which is `upstream`."""

    upstream: Upstream

    def ask(self, method: str = "POST", path: str = PREDICT, *, key: str = WRITER, **arguments: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}", **arguments.pop("headers", {})}
        return CLIENT.request(method, f"{self.running.url}{path}", timeout=PATIENCE_S, headers=headers, **arguments)

    def told(self, script: str, path: str = WHOLE, **fields: Any) -> httpx.Response:
        """What comes of a prompt that has the upstream do `script`."""
        return self.ask("POST", path, json={**asking(path, script), **fields})

    def open(self, script: str, path: str = STREAM, *, streams: bool = True) -> socket.socket:
        """A connection on which a text was asked for."""
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
        body = json.dumps({**asking(path, script), "stream": streams}).encode()
        headers = [("Content-Type", "application/json"), ("Authorization", f"Bearer {WRITER}")]
        connection.sendall(request("POST", path, body, headers=headers))
        return connection


def asking(path: str, script: str) -> dict[str, Any]:
    text = f"do: {script};"
    return {"messages": [{"role": "user", "content": text}]} if path == CHAT else {"prompt": text}


@contextmanager
def writing_servers(
    repository: Path, folder: Path, servers: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[Mapping[str, Running], Upstream]]:
    """One of each of `servers`, with narrow limits, before an upstream of their own."""
    shutil.copytree(repository / "numbers", folder / "models" / "numbers")
    write_keys(folder / "keys.json")
    (folder / "upstream.key").write_text(UPSTREAM_KEY)
    settings = {
        "KEY_FILE": folder / "upstream.key", "FIRST_S": FIRST_S, "GAP_S": GAP_S, "MAX_BYTES": MAX_BYTES,
        "MAX_PROMPT_BYTES": MAX_PROMPT, "MAX_MESSAGES": MAX_MESSAGES, "PARAMETERS": "top_k,tools",
    }  # fmt: skip
    environment = {f"TANDEM_UPSTREAM_{name}": str(value) for name, value in settings.items()}
    environment["TANDEM_MAX_STREAMS"] = str(STREAMS)
    with scripted() as upstream:
        starts = {
            name: tandem_serve(
                *arguments,
                *("--models", str(folder / "models"), "--keys", str(folder / "keys.json")),
                *("--upstream", upstream.url, "--upstream-model", MODEL),
                log=folder / name,
                environment=environment,
            )
            for name, arguments in servers.items()
        }
        with side_by_side(starts) as running:
            yield running, upstream


@pytest.fixture(scope="session")
def writing_fronts(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Mapping[str, Running], Upstream]]:
    with writing_servers(repository, tmp_path_factory.mktemp("writing"), SERVERS) as started:
        yield started


@pytest.fixture(scope="session")
def writing_workers(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Mapping[str, Running], Upstream]]:
    with writing_servers(repository, tmp_path_factory.mktemp("workers"), WORKERS) as started:
        yield started


@pytest.fixture(params=SERVERS)
def writing(request: pytest.FixtureRequest) -> Iterator[Writing]:
    """Each of them in turn, or those of `WORKERS` that a test names; after the test it must be as well as before, and
    so must its way to the upstream."""
    started = "writing_fronts" if request.param in SERVERS else "writing_workers"
    running, upstream = request.getfixturevalue(started)
    front = Writing(request.param, running[request.param], upstream)
    since = front.running.log.stat().st_size
    yield front
    front.is_well(since)
    assert front.told("well").json()["text"] == "".join(TEXTS)
    log = front.running.log.read_text()
    assert UPSTREAM_KEY not in log
    assert SECRET not in log


def events(body: bytes) -> list[Any]:
    """What the events hold, comments left out; of an error (what says so, what is told)."""
    found: list[Any] = []
    for block in body.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if not line.startswith(":")]
        name = next((line[7:] for line in lines if line.startswith("event: ")), None)
        data = "\n".join(line[6:] for line in lines if line.startswith("data: "))
        if data:
            content = data if data == "[DONE]" else json.loads(data)
            found.append(content if name is None else (name, content))
    return found


def refusal_of(reply: httpx.Response, path: str) -> tuple[int, str]:
    """The status of what went wrong, and the text of it. A stream that has begun by then tells it in its last event:
    under Flask it begins early, so that a caller who leaves is noticed."""
    if reply.status_code == 200 and path == STREAM:
        return error_of(reply)["status"], reply.text
    return reply.status_code, reply.text


def error_of(reply: httpx.Response) -> dict[str, Any]:
    """The final error event of a stream of ours, which tells nothing of the upstream's inside."""
    assert (reply.status_code, reply.headers["content-type"]) == (200, EVENTS), reply.text[:500]
    name, problem = events(reply.content)[-1]
    assert name == "error"
    assert problem["type"].startswith("urn:tandem:problem:")
    assert SECRET not in reply.text and UPSTREAM_KEY not in reply.text
    found: dict[str, Any] = problem
    return found


def log_of(front: Front) -> list[dict[str, Any]]:
    """Lines in JSON; the banner is none."""
    return [json.loads(line) for line in front.running.log.read_text().splitlines() if line.startswith("{")]


def read_until(connection: socket.socket, end: bytes) -> bytes:
    body = b""
    while end not in body:
        more = connection.recv(65536)
        assert more, body
        body += more
    return body
