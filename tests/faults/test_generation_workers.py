"""Texts on every server, gunicorn's other workers among them: what all do, and callers who leave (section P)."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from tests.conformance.servers import CLIENT, SERVERS, eventually, tandem_serve
from tests.conformance.wire import request, talk
from tests.faults.cases import Came, fault
from tests.faults.fronts import is_problem
from tests.faults.sockets import HANDSHAKE
from tests.faults.upstream import MODEL, TEXTS, USAGE, Asked, scripted
from tests.faults.writing import (
    CHAT,
    COMPLETIONS,
    STREAM,
    WHOLE,
    WORKERS,
    WRITER,
    Writing,
    asking,
    error_of,
    events,
    log_of,
    read_until,
)

LEFT_WITHIN_S: Final = 1.0
# Whoever is held up by a busy machine is so for a second now and then, and not three times in a row.
ATTEMPTS: Final = 3

OTHERS: Final = [pytest.param(name, marks=pytest.mark.front("gunicorn")) for name in WORKERS]

other_workers = pytest.mark.parametrize("writing", OTHERS, indirect=True)
every_server = pytest.mark.parametrize("writing", [*SERVERS, *OTHERS], indirect=True)
# Granian hands over no connection that could be looked at.
looking_servers = pytest.mark.parametrize("writing", ["uvicorn", "gunicorn", *OTHERS], indirect=True)


# gunicorn's other workers


@other_workers
@pytest.mark.parametrize("path", [WHOLE, STREAM])
def test_text_comes(writing: Writing, path: str) -> None:
    reply = writing.told("well", path)

    assert reply.status_code == 200
    if path == WHOLE:
        assert (reply.json()["text"], reply.json()["usage"]) == ("".join(TEXTS), USAGE)
    else:
        texts = [{"text": text} for text in TEXTS]
        assert events(reply.content) == [*texts, {"finish_reason": "stop", "usage": USAGE}, "[DONE]"]


@other_workers
def test_what_goes_wrong_is_told(writing: Writing) -> None:
    whole, stream = writing.told("status500"), writing.told("late-error", STREAM)

    is_problem(whole, 502)
    assert events(stream.content)[0] == {"text": TEXTS[0]}
    assert error_of(stream)["status"] == 502


@pytest.mark.parametrize(("writing", "at_a_time"), [("gunicorn-gevent", 2), ("gunicorn-sync", 1)], indirect=["writing"])
def test_gevent_makes_texts_at_a_time_and_sync_one_by_one(writing: Writing, at_a_time: int) -> None:
    before = len(writing.upstream.asked)

    with closing(writing.open("well 0.3")) as first, closing(writing.open("well")) as second:
        came = read_until(first, json.dumps(TEXTS[-2]).encode())  # the last one is made now
        under_way = len(writing.upstream.asked) - before
        came += read_until(first, b"[DONE]")
        first.close()  # for which the sync worker waits
        other = read_until(second, b"[DONE]")

    assert under_way == at_a_time
    assert came.count(b'{"text"') == other.count(b'{"text"') == len(TEXTS)


@pytest.mark.parametrize("writing", ["gunicorn-sync"], indirect=True)
def test_worker_that_answers_one_at_a_time_speaks_no_websocket(writing: Writing) -> None:
    headers = [*HANDSHAKE, ("Authorization", f"Bearer {WRITER}")]

    reply = talk(writing.port, [request("GET", "/models/numbers/ws", headers=headers)])[0]

    assert reply.status == 501
    assert "gthread" in json.loads(reply.body)["detail"]


def test_text_may_take_longer_than_gunicorn_waits_for_a_sign_of_the_sync_worker(
    repository: Path, tmp_path: Path
) -> None:
    shutil.copytree(repository / "numbers", tmp_path / "models" / "numbers")
    watched = {"TANDEM_TIMEOUT_S": "1", "TANDEM_GRACE_S": "2"}  # together the watchdog's time: it looks every second
    with (
        scripted() as upstream,
        tandem_serve(
            *(*WORKERS["gunicorn-sync"], "--models", str(tmp_path / "models")),
            *("--upstream", upstream.url, "--upstream-model", MODEL),
            log=tmp_path / "log",
            environment=watched,
        ) as running,
    ):
        whole, stream = (CLIENT.post(f"{running.url}{path}", json=asking(path, "well 0.8")) for path in (WHOLE, STREAM))

    assert whole.json()["text"] == "".join(TEXTS)
    assert events(stream.content)[-1] == "[DONE]"


# Callers who leave


Leave = Callable[[socket.socket], None]


def closes(connection: socket.socket) -> None:
    connection.close()


def says_no_more(connection: socket.socket) -> None:
    """It closes its own side alone; uvicorn takes that for leaving."""
    connection.shutdown(socket.SHUT_WR)


def left_after_s(writing: Writing, script: str, path: str, leave: Leave, *, streams: bool) -> float:
    """From when the caller leaves until the service leaves the upstream. Of a stream, the first text has come."""
    before = len(writing.upstream.asked)
    with closing(writing.open(script, path, streams=streams)) as connection:
        asked: Asked = eventually(lambda: next(iter(writing.upstream.asked[before:]), None), "the upstream to be asked")
        if streams:
            read_until(connection, TEXTS[0].encode())
        leave(connection)
        closed_at = time.monotonic()
        return eventually(lambda: asked.left_at, "the upstream to be left") - closed_at


def leaves(writing: Writing, script: str, path: str, leave: Leave, came: Came, *, streams: bool) -> None:
    since = len(log_of(writing))
    seconds: list[float] = []
    while len(seconds) < ATTEMPTS and not any(one < LEFT_WITHIN_S for one in seconds):
        seconds.append(left_after_s(writing, script, path, leave, streams=streams))

    came(f"{seconds[-1]:.2f} s")
    assert seconds[-1] < LEFT_WITHIN_S, seconds
    statuses = eventually(lambda: [line["status"] for line in log_of(writing)[since:] if "status" in line], "its line")
    assert set(statuses) == {499}


@fault("P07", sent="a caller who leaves a stream that goes on, and one that is silent", expected="upstream left in 1 s")
@every_server
@pytest.mark.parametrize(("script", "path"), [("drip", STREAM), ("silent text", STREAM), ("silent text", CHAT)])
def test_caller_leaves_a_stream(writing: Writing, script: str, path: str, came: Came) -> None:
    leaves(writing, script, path, closes, came, streams=True)


@fault("P07", sent="a caller who leaves before a whole text is there", expected="upstream left in 1 s")
@looking_servers
@pytest.mark.parametrize(("path", "leave"), [(WHOLE, closes), (WHOLE, says_no_more), (COMPLETIONS, closes)])
def test_caller_leaves_a_whole_text(writing: Writing, path: str, leave: Leave, came: Came) -> None:
    leaves(writing, "silent", path, leave, came, streams=False)
