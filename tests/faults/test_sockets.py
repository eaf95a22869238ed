"""Section S: WebSockets. What streams of events do is shown with the routes that have them."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from tests.conformance.servers import eventually, tandem_serve
from tests.conformance.wire import Reply
from tests.faults.cases import Came, fault
from tests.faults.fronts import GOOD, KNOWN, PATIENCE_S, is_problem
from tests.faults.guarded import BANK, KEYS, NAMES, ORIGIN, SLOW, SLOW_REQUESTS, write_keys
from tests.faults.sockets import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FRONTS,
    MAX_MESSAGE_BYTES,
    MAX_OF_CALLER,
    MAX_STREAMS,
    PING,
    PONG,
    TEXT,
    Speaker,
    ask,
    frame,
    works,
)

ROW = json.dumps(GOOD["instances"][0])
MESSAGE = json.dumps(GOOD).encode()
MIB = 1024 * 1024


def padded(size: int) -> str:
    text = json.dumps(GOOD)
    return text + " " * (size - len(text))


def refusal(error: InvalidStatus) -> Reply:
    response = error.response
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, headers, response.body)


@pytest.fixture
def crowd(speaker: Speaker) -> Iterator[list[ClientConnection]]:
    """All places taken: by `shop` as many as it may have, by `bank` the others."""
    with ExitStack() as stack:

        def fill() -> list[ClientConnection]:
            opened = []
            try:
                for _ in range(MAX_OF_CALLER):
                    opened.append(speaker.open())
                for _ in range(MAX_STREAMS - MAX_OF_CALLER):
                    opened.append(speaker.open(BANK, "amounts"))
            except InvalidStatus:  # another test's are not given back yet
                for client in opened:
                    client.close()
                return []
            return opened

        for client in (opened := eventually(fill, "free places")):
            stack.enter_context(client)
        yield opened


@fault(
    "S01", sent="more WebSockets than a key may have, and than there are places", expected="429 and 503; predict 200"
)
def test_places_are_counted(speaker: Speaker, crowd: list[ClientConnection], came: Came) -> None:
    statuses = []
    for key, model in (("shop", "numbers"), ("bank", "amounts")):
        with pytest.raises(InvalidStatus) as refused:
            speaker.open(KEYS[key], model)
        problem = refusal(refused.value)
        is_problem(problem)
        assert int(problem.headers["retry-after"]) >= 1
        statuses.append(problem.status)

    predicted = speaker.ask(json=GOOD)
    crowd[0].close()
    eventually(lambda: _may_open(speaker), "a place that was given back")

    came(statuses, predicted.status_code)
    assert statuses == [429, 503]
    assert predicted.json()["predictions"] == KNOWN
    assert works(crowd[1])


def _may_open(speaker: Speaker) -> bool:
    try:
        with speaker.open() as client:
            return works(client)
    except InvalidStatus:
        return False


@fault("S01", sent="200 handshakes at once while all places are taken", expected="refused; predict answered meanwhile")
def test_flood_of_handshakes(speaker: Speaker, crowd: list[ClientConnection], came: Came) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(speaker.connect()) for _ in range(200)]
        for connection in connections:
            connection.sendall(speaker.handshake())
        predicted = speaker.ask(json=GOOD)
        heads = [connection.makefile("rb").readline() for connection in connections]

    came(predicted.status_code, f"{len(heads)} refused")
    assert predicted.json()["predictions"] == KNOWN
    assert {head.split()[1] for head in heads} == {b"429"}
    assert works(crowd[0])


@fault("S02", sent="a message of exactly the limit, and one byte more", expected="answered; closed with 1009")
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(padded(MAX_MESSAGE_BYTES + 1), id="ascii"),
        pytest.param("é" * (MAX_MESSAGE_BYTES // 2) + " ", id="two bytes each"),
    ],
)
def test_message_above_the_limit(speaker: Speaker, text: str, came: Came) -> None:
    with speaker.open() as client:
        client.send(padded(MAX_MESSAGE_BYTES))
        answered = json.loads(client.recv(PATIENCE_S))
        client.send(text)
        with pytest.raises(ConnectionClosed):
            client.recv(PATIENCE_S)

    came(client.close_code)
    assert answered["predictions"] == KNOWN
    assert client.close_code == 1009


@fault("S02", sent="fragments without end, together beyond the limit", expected="closed with 1009; memory bounded")
def test_fragments_beyond_the_limit(speaker: Speaker, came: Came) -> None:
    before = speaker.memory_bytes()

    with speaker.speak() as client:
        client.send(frame(TEXT, b" ", fin=False))
        with contextlib.suppress(OSError):  # nobody need read them any more
            for _ in range(1000):
                client.send(frame(CONTINUATION, b" " * 4096, fin=False) * 16)
    with speaker.speak() as client:
        client.send(frame(TEXT, b" " * MAX_MESSAGE_BYTES, fin=False), frame(CONTINUATION, b" ", fin=False))
        code = client.close_code()

    grown = speaker.memory_bytes() - before
    came(code, f"{grown >> 20} MiB more")
    assert code == 1009
    assert grown < 32 * MIB


@fault("S02", sent="20,000 empty fragments", expected="memory bounded; the message is answered once it ends")
def test_empty_fragments(speaker: Speaker, came: Came) -> None:
    before = speaker.memory_bytes()

    with speaker.speak() as client:
        client.send(frame(TEXT, MESSAGE, fin=False), frame(CONTINUATION, fin=False) * 20_000, frame(CONTINUATION))
        answer = client.answer()

    grown = speaker.memory_bytes() - before
    came(f"{grown >> 20} MiB more")
    assert answer["predictions"] == KNOWN
    assert grown < 16 * MIB


@fault("S02", sent="compression offered, and a compressed frame", expected="not taken up; 1002: nothing is inflated")
def test_compressed_frames(speaker: Speaker, came: Came) -> None:
    with speaker.speak(("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")) as client:
        client.send(frame(TEXT, b"\xaa\x56\x4a\x2d\x2a\xca\x2f\x52", reserved=4))
        code = client.close_code()

    came(code)
    assert "sec-websocket-extensions" not in client.head
    assert code == 1002


@fault("S03", sent="frames that break the protocol", expected="closed with 1007 or 1002")
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(frame(TEXT, b'{"id": "\xff\xfe"}'), 1007, id="bad UTF-8"),
        pytest.param(frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b" "), 1007, id="bad UTF-8 over fragments"),
        pytest.param(frame(TEXT, MESSAGE, masked=False), 1002, id="unmasked"),
        pytest.param(frame(0x3, MESSAGE), 1002, id="an opcode that is not there"),
        pytest.param(frame(0xB, b""), 1002, id="a control opcode that is not there"),
        pytest.param(frame(CONTINUATION, MESSAGE), 1002, id="a continuation of nothing"),
        pytest.param(frame(TEXT, b"{", fin=False) + frame(TEXT, MESSAGE), 1002, id="a message within another"),
        pytest.param(frame(PING, b"x" * 126), 1002, id="a ping of 126 bytes"),
        pytest.param(frame(PING, b"x", fin=False), 1002, id="a ping in fragments"),
        pytest.param(frame(TEXT, MESSAGE, reserved=2), 1002, id="a reserved bit"),
        pytest.param(frame(CLOSE, b"\x03"), 1002, id="half a close code"),
        pytest.param(frame(BINARY, MESSAGE), 1003, id="binary"),
    ],
)
def test_broken_frames(speaker: Speaker, sent: bytes, code: int, came: Came) -> None:
    with speaker.speak() as client:
        client.send(sent)
        got = client.close_code()

    came(got)
    assert got == code


@fault(
    "S04", sent="no key, a wrong one, one in the query, wrong Origins, others' models", expected="401, 403, 404 before"
)
@pytest.mark.parametrize(
    ("key", "model", "headers", "query", "status"),
    [
        pytest.param(None, "numbers", {}, "", 401, id="no key"),
        pytest.param("x" * 43, "numbers", {}, "", 401, id="a wrong key"),
        pytest.param(None, "numbers", {}, "?api_key={key}&access_token={key}", 401, id="in the query"),
        pytest.param("shop", "numbers", {"Origin": "https://evil.example"}, "", 403, id="another page"),
        pytest.param("shop", "numbers", {"Origin": "null"}, "", 403, id="a page of no origin"),
        pytest.param("shop", "nothing", {}, "", 404, id="no such model"),
        pytest.param("bank", "numbers", {}, "", 404, id="a model that this key shall not see"),
    ],
)
def test_refused_before_the_upgrade(
    speaker: Speaker, key: str | None, model: str, headers: dict[str, str], query: str, status: int, came: Came
) -> None:
    since = speaker.running.log.stat().st_size
    sent = key if key is None else KEYS.get(key, key)

    with pytest.raises(InvalidStatus) as refused:
        speaker.open(sent, model, query.format(key=KEYS["shop"]), headers=headers)

    came(refused.value.response.status_code)
    is_problem(refusal(refused.value), status)
    assert KEYS["shop"].encode() not in speaker.running.log.read_bytes()[since:]


@fault("S04", sent="the Origin that is configured, and none", expected="101")
@pytest.mark.parametrize("headers", [{"Origin": ORIGIN}, {}], ids=["configured", "none"])
def test_pages_that_may_ask(speaker: Speaker, headers: dict[str, str], came: Came) -> None:
    with speaker.open(headers=headers) as client:
        came(101)
        assert works(client)


@fault("S05", sent="no pong", expected="closed, once another ping would be due")
def test_no_pong(speaker: Speaker, came: Came) -> None:
    with speaker.speak() as client:
        seen = []
        while not seen or seen[-1][0] != CLOSE:
            seen.append(client.next())

    came([opcode for opcode, _ in seen], int.from_bytes(seen[-1][1][:2]))
    assert [opcode for opcode, _ in seen] == [PING, CLOSE]
    assert int.from_bytes(seen[-1][1][:2]) == 1011


@fault("S05", sent="pongs, and nothing else", expected="kept open beyond several pings")
def test_pongs_keep_it_open(speaker: Speaker, came: Came) -> None:
    with speaker.speak() as client:
        for _ in range(3):
            opcode, payload = client.next()
            assert opcode == PING
            client.send(frame(PONG, payload))
        client.send(frame(TEXT, MESSAGE))
        answer = client.answer()

    came("3 pings, 1 answer")
    assert answer["predictions"] == KNOWN


@fault("S05", sent="messages with large answers, none of which is read", expected="cut off; memory bounded")
def test_caller_that_does_not_read(speaker: Speaker, came: Came) -> None:
    before, since = speaker.memory_bytes(), speaker.running.log.stat().st_size
    rows = ",".join([ROW] * 2000)
    message = f'{{"instances": [{rows}], "outputs": ["predict_proba"]}}'.encode()
    name = f"slow-{speaker.name}"

    with speaker.speak(("X-Request-Id", name), receive_bytes=4096) as client:
        client.connection.settimeout(0.5)
        sent = 0
        with pytest.raises(OSError):  # noqa: PT012  nobody reads on, or the connection is reset
            for _ in range(500):
                client.send(frame(TEXT, message))
                sent += 1
        eventually(lambda: f'"{name}"' in speaker.running.log.read_bytes()[since:].decode(), "the end of the session")

    grown = speaker.memory_bytes() - before
    came(f"{sent} messages were taken, {grown >> 20} MiB more")
    assert sent < 500
    assert grown < 64 * MIB


@fault("S05", sent="200,000 pings, none of whose answers is read", expected="cut off, or bounded")
def test_pings_whose_answers_are_not_read(speaker: Speaker, came: Came) -> None:
    before = speaker.memory_bytes()

    with speaker.speak(receive_bytes=4096) as client:
        client.connection.settimeout(5)
        try:
            for _ in range(200):
                client.send(frame(PING, b"x" * 100) * 1000)
        except OSError:
            came("cut off")
    grown = speaker.memory_bytes() - before

    came(f"{grown >> 20} MiB more")
    assert grown < 16 * MIB


@fault("S06", sent="the key revoked, nothing asked meanwhile", expected="closed with 1008; others go on")
def test_key_revoked(speaker: Speaker, came: Came) -> None:
    with speaker.open() as other, speaker.open(KEYS["leaving"]) as client:
        assert works(client)
        try:
            write_keys(speaker.keys, *(name for name in NAMES if name != "leaving"))
            with pytest.raises(ConnectionClosed):
                client.recv(PATIENCE_S)
        finally:
            write_keys(speaker.keys, *NAMES)
        goes_on = works(other)

    came(client.close_code)
    assert client.close_code == 1008
    assert goes_on


@fault("S07", sent="SIGTERM with WebSockets open", expected="closed with 1001; what was asked before is answered")
@pytest.mark.parametrize("name", FRONTS)
@pytest.mark.parametrize("drain_s", ["0", "1"])
def test_drain(name: str, drain_s: str, socket_models: Path, tmp_path: Path, came: Came) -> None:
    log = tmp_path / "log"
    serving = tandem_serve(
        *FRONTS[name], "--models", str(socket_models), log=log, environment={"TANDEM_DRAIN_S": drain_s}
    )
    with serving as running, Speaker(name, running, log, None).open(None) as client:
        assert works(client)
        client.send(MESSAGE.decode())
        running.terminate()
        answer = json.loads(client.recv(PATIENCE_S))
        with pytest.raises(ConnectionClosed):
            client.recv(PATIENCE_S)

    came(client.close_code)
    assert answer["predictions"] == KNOWN
    assert client.close_code == 1001


@fault("S08", sent="more messages than the key may ask in a day", expected="429 for each beyond, as over HTTP")
def test_messages_are_counted_as_requests(speaker: Speaker, came: Came) -> None:
    with speaker.open(SLOW) as client:  # which is one itself
        answers = [ask(client, {"id": number} | GOOD) for number in range(SLOW_REQUESTS + 1)]
    by_http = speaker.ask(json=GOOD, key=SLOW)

    refused = [answer for answer in answers if "error" in answer]
    came(f"{len(refused)} of {len(answers)} refused, then {by_http.status_code} over HTTP")
    assert [answer["id"] for answer in refused] == [SLOW_REQUESTS - 1, SLOW_REQUESTS]
    assert {answer["error"]["status"] for answer in refused} == {429}
    assert all(answer["error"]["retry_after"] > 0 for answer in refused)
    assert by_http.status_code == 429


@fault(
    "S08", sent="1,000 messages at once on one socket", expected="each answered once, with 200 or 503; predict goes on"
)
def test_flood_of_messages(speaker: Speaker, came: Came) -> None:
    count = 1000
    with speaker.open() as client:
        messages = [json.dumps({"id": number} | GOOD) for number in range(count)]
        sending = threading.Thread(target=lambda: [client.send(message) for message in messages])
        sending.start()
        predicted = speaker.ask(json=GOOD)
        answers = [json.loads(client.recv(PATIENCE_S)) for _ in range(count)]
        sending.join()

    refused = [answer["error"]["status"] for answer in answers if "error" in answer]
    came(f"{count - len(refused)} answered, {len(refused)} refused")
    assert sorted(answer["id"] for answer in answers) == list(range(count))
    assert all(answer["predictions"] == KNOWN for answer in answers if "error" not in answer)
    assert set(refused) <= {503}
    assert predicted.json()["predictions"] == KNOWN


@fault("S08", sent="messages that are wrong in any way", expected="an error each; the session goes on")
@pytest.mark.parametrize(
    ("text", "status"),
    [
        pytest.param("", 400, id="nothing"),
        pytest.param("{", 400, id="half of one"),
        pytest.param("[" * 40 + "]" * 40, 400, id="nested too deep"),
        pytest.param('{"id": "a", "instances": [[1]]}', 422, id="too few values"),
        pytest.param('{"id": {"a": 1}, "instances": [[1, 2, 3, 4]]}', 422, id="an object as id"),
        pytest.param(json.dumps({"id": "x" * 129}), 422, id="a long id"),
        pytest.param('{"id": true}', 422, id="true as id"),
        pytest.param('{"id": "\\ud800"}', 400, id="half a character as id"),
    ],
)
def test_wrong_messages(speaker: Speaker, text: str, status: int, came: Came) -> None:
    with speaker.open() as client:
        client.send(text)
        answer = json.loads(client.recv(PATIENCE_S))
        goes_on = works(client)

    came(answer["error"]["status"])
    assert answer["error"]["status"] == status
    assert {"type", "title", "status", "detail", "request_id"} <= answer["error"].keys()
    assert goes_on
