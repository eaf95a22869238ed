"""WebSockets: what HTTP answers, over one connection, from every server that speaks them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.conformance.servers import CLIENT, Running, eventually, tandem_serve
from tests.conformance.wire import request, talk

PATIENCE_S: Final = 60.0
HANDSHAKE: Final = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)
GOOD: Final = {"instances": [[0.5, -0.25, 1.0, 2.0]]}


@pytest.fixture(scope="session")
def speakers(
    servers: Mapping[str, Running], repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Running]]:
    """The servers that speak WebSocket; gunicorn with threads, and with gevent."""
    log = tmp_path_factory.mktemp("gevent") / "log"
    arguments = ("--framework", "flask", "--server", "gunicorn", "--worker-class", "gevent")
    trusted = ("--models", str(repository), "--trust", "tests.conformance.models.days")
    with tandem_serve(*arguments, *trusted, log=log) as gevent:
        yield {"uvicorn": servers["uvicorn"], "gthread": servers["gunicorn"], "gevent": gevent}


@pytest.fixture(params=["uvicorn", "gthread", "gevent"])
def speaker(request: pytest.FixtureRequest, speakers: Mapping[str, Running]) -> Running:
    return speakers[request.param]


def opened(server: Running, model: str, query: str = "", **arguments: Any) -> ClientConnection:
    url = f"ws://127.0.0.1:{server.port}/models/{model}/ws{query}"
    return connect(url, proxy=None, max_size=None, open_timeout=PATIENCE_S, close_timeout=PATIENCE_S, **arguments)


def ask(client: ClientConnection, message: Any) -> Any:
    """`message` is JSON, or what becomes it."""
    client.send(message if isinstance(message, str) else json.dumps(message))
    return json.loads(client.recv(PATIENCE_S))


def by_http(server: Running, model: str, body: Any) -> tuple[int, Any]:
    content = body if isinstance(body, str) else json.dumps(body)
    headers = {"Content-Type": "application/json"}
    reply = CLIENT.post(f"{server.url}/models/{model}/predict", content=content, headers=headers)
    return reply.status_code, reply.json()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param("numbers", GOOD, id="instances"),
        pytest.param("numbers", GOOD | {"outputs": ["predict", "predict_proba"]}, id="outputs"),
        pytest.param("versions", {"x0": 0.5, "x1": -0.5}, id="a record"),
        pytest.param("versions", {"columns": {"x0": [0.5, 1.0], "x1": [-0.5, 2.0]}}, id="columns"),
        pytest.param("counts", {"instances": [[1, 2, 3, 400]]}, id="an integer beyond its type"),
        pytest.param("numbers", '{"instances": [[1e400, 0, 0, 0]]}', id="a number beyond float64"),
        pytest.param("numbers", '{"instances": [[', id="no JSON"),
        pytest.param("numbers", {"instances": [[0.5]]}, id="too few values"),
        pytest.param("numbers", {"instances": [[0.5, "a", None, True]]}, id="values of other types"),
        pytest.param("numbers", GOOD | {"outputs": ["nothing"]}, id="an unknown output"),
        pytest.param("numbers", [], id="no object"),
        pytest.param("people", {"age": 41, "city": 7}, id="a wrong record"),
    ],
)
def test_answers_are_those_of_http(speaker: Running, model: str, message: Any) -> None:
    status, expected = by_http(speaker, model, message)

    with opened(speaker, model) as client:
        came = ask(client, message)

    if status != 200:
        assert came.keys() == {"error"}
        came = came["error"]
        assert len(came.pop("request_id")) > len(expected.pop("request_id"))  # a number more
    assert came == expected


def test_every_message_has_the_answer_with_its_id(speaker: Running) -> None:
    rows = [[index / 64, -0.25, 1.0, 2.0] for index in range(200)]
    expected = by_http(speaker, "numbers", {"instances": rows, "outputs": ["predict_proba"]})[1]["probabilities"]
    came = {}

    with opened(speaker, "numbers", "?outputs=predict_proba") as client:
        for index, row in enumerate(rows):
            client.send(json.dumps({"id": index if index % 2 else f"a{index}", "instances": [row]}))
        for _ in rows:
            answer = json.loads(client.recv(PATIENCE_S))
            came[int(str(answer["id"]).lstrip("a"))] = answer["probabilities"][0]

    assert sorted(came) == list(range(len(rows)))
    for index, probabilities in enumerate(expected):  # computed with other neighbours: the last digit may differ
        assert came[index] == pytest.approx(probabilities, rel=1e-9)


def test_a_large_answer_is_whole(speaker: Running) -> None:
    rows = [[0.5, -0.25, 1.0, 2.0]] * 20_000

    with opened(speaker, "numbers") as client:
        came = ask(client, {"id": "a", "instances": rows, "outputs": ["predict", "predict_proba"]})

    assert len(came["probabilities"]) == len(rows)


def test_fragments_are_one_message(speaker: Running) -> None:
    text = json.dumps({"id": "größe"} | GOOD, ensure_ascii=False)

    with opened(speaker, "numbers") as client:
        client.send(iter([text[:7], text[7:8], text[8:]]))
        came = json.loads(client.recv(PATIENCE_S))

    assert (came["id"], came["predictions"]) == ("größe", [2])


def test_ping_is_answered_and_close_is_returned(speaker: Running) -> None:
    with opened(speaker, "numbers") as client:
        assert client.ping().wait(PATIENCE_S)
        client.close(1000)

    assert (client.close_code, client.protocol.close_rcvd.code) == (1000, 1000)


def test_each_message_is_a_line_of_the_log_without_rows(speaker: Running) -> None:
    since = speaker.log.stat().st_size

    with opened(speaker, "numbers", additional_headers={"X-Request-Id": "session-7"}) as client:
        assert client.response.headers["x-request-id"] == "session-7"
        ask(client, {"id": "a"} | GOOD)
        ask(client, {"instances": [["canary-in-a-row"]]})
    lines = eventually(lambda: lines_of(speaker.log, since, "session-7"), "the end of the session in the log")

    assert [lines[name]["status"] for name in ("session-7-1", "session-7-2", "session-7")] == [200, 422, 101]
    assert {lines[name]["method"] for name in ("session-7-1", "session-7-2")} == {"WS"}
    assert b"canary" not in speaker.log.read_bytes()[since:]


def lines_of(log: Path, since: int, last: str) -> dict[str, Any]:
    """The new lines by request id; none before that of `last` is there."""
    lines = [json.loads(line) for line in log.read_bytes()[since:].decode().split("\n")[:-1]]
    found = {line["request_id"]: line for line in lines if "request_id" in line}
    return found if last in found else {}


def test_a_server_that_hands_over_no_connection_says_so(servers: Mapping[str, Running]) -> None:
    reply = talk(servers["granian"].port, [request("GET", "/models/numbers/ws", headers=HANDSHAKE)])[0]

    assert reply.status == 501
    assert "uvicorn" in json.loads(reply.body)["detail"]


@pytest.mark.parametrize(
    "left_out", ["Upgrade", "Connection", "Sec-WebSocket-Version", "Sec-WebSocket-Key"], ids=lambda name: f"no {name}"
)
def test_what_is_no_handshake_is_an_ordinary_request(speaker: Running, left_out: str) -> None:
    headers = [field for field in HANDSHAKE if field[0] != left_out]

    reply = talk(speaker.port, [request("GET", "/models/numbers/ws", headers=headers)])[0]

    assert (reply.status, reply.headers["upgrade"], reply.headers["sec-websocket-version"]) == (426, "websocket", "13")
