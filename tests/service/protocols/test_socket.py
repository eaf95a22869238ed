from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.core.callers import Rate
from service.core.contracts import Server
from service.core.deadline import NEVER, Deadline
from service.core.errors import NotOffered, Overloaded, UpgradeRequired
from service.core.messages import InferReply, InferRequest, Target
from service.core.signature import Column, Signature
from service.guards.guard import AccessRules, Guard
from service.guards.keys import entry_of, new_key
from service.guards.places import Places
from service.protocols.api import Api
from service.protocols.http import HttpReply, HttpRequest
from service.protocols.route import place
from service.protocols.routes import by_path
from service.protocols.socket import (
    CHECK_S,
    PATH,
    Close,
    Session,
    has_socket,
    is_handshake,
    open_session,
    refuse_plain,
)
from tests.service.protocols.fake_server import EXAMPLE, FakeServer, content_of, get, signature_of
from tests.service.protocols.test_api import Log

METHODS = by_path()[PATH]
HANDSHAKE = {
    "upgrade": "websocket",
    "connection": "keep-alive, Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


class Clock:
    """The real one, which a test may set forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


class SlowServer(FakeServer):
    """Answers when it is told to, each message by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[InferRequest, Future[InferReply]]] = []

    def infer(
        self,
        target: Target,
        read: Callable[[Signature], InferRequest],
        deadline: Deadline = NEVER,
        *,
        may_block: bool = False,
    ) -> Future[InferReply]:
        self.deadline = deadline
        self.waiting.append((read(self.signature), Future()))
        return self.waiting[-1][1]

    def answer(self, index: int) -> None:
        self.waiting[index][1].set_result(
            InferReply("shop", 3, self.signature, {"predict": np.array([f"answer {index}"])})
        )


def api_over(server: Server, log: Log | None = None, **options: Any) -> Api:
    return Api(server, max_body_bytes=1000, timeout_s=2.0, record=log or Log(), **options)


def handshake(model: str = "shop", **headers: str) -> HttpRequest:
    http = get(PATH, name=model)
    http.headers = {**HANDSHAKE, **{name.replace("_", "-"): value for name, value in headers.items()}}
    http.peer = "10.0.0.1"
    place(http, METHODS)
    return http


def session_over(api: Api, **headers: str) -> Session:
    opened = open_session(api, METHODS, handshake(**headers))
    assert isinstance(opened, Session)
    return opened


def told(session: Session, message: Any) -> Any:
    answer = session.feed(message if isinstance(message, str) else json.dumps(message))
    return json.loads(answer.result(timeout=0))


@pytest.mark.parametrize(
    ("changes", "is_one"),
    [
        pytest.param({}, True, id="a handshake"),
        pytest.param({"upgrade": "WebSocket"}, True, id="in odd letters"),
        pytest.param({"upgrade": "h2c"}, False, id="to another protocol"),
        pytest.param({"upgrade": ""}, False, id="to nothing"),
        pytest.param({"connection": "keep-alive"}, False, id="that the connection does not say"),
        pytest.param({"sec-websocket-version": "8"}, False, id="of another version"),
        pytest.param({"sec-websocket-version": "13,8"}, False, id="of two versions"),
        pytest.param({"sec-websocket-key": "short"}, False, id="with a key that is none"),
        pytest.param({"sec-websocket-key": "AAAA"}, False, id="with a key of three bytes"),
        pytest.param({"content-length": "5"}, False, id="with a body"),
        pytest.param({"transfer-encoding": "chunked"}, False, id="with a body in chunks"),
    ],
)
def test_handshake_is_what_the_rfc_says(changes: dict[str, str], is_one: bool) -> None:
    assert is_handshake("GET", HANDSHAKE | changes) is is_one
    assert not is_handshake("POST", HANDSHAKE | changes)


@pytest.mark.parametrize(
    "path", ["/models/ws", "/models//ws", "/models/a/b/ws", "/models/a/ws/", "/ws", "/models/a/ws\n"]
)
def test_no_other_path_has_a_socket(path: str) -> None:
    assert has_socket("/models/shop/ws")
    assert not has_socket(path)


def test_plain_request_is_told_what_is_missing() -> None:
    with pytest.raises(UpgradeRequired):
        refuse_plain(FakeServer(), get(PATH, name="shop"))
    with pytest.raises(NotOffered, match="uvicorn"):
        refuse_plain(FakeServer(), handshake())


def test_answer_is_that_of_http_with_the_id() -> None:
    session = session_over(api_over(FakeServer()))

    assert told(session, {"id": "a1"} | EXAMPLE) == {"id": "a1", "prediction": "yes", "model": "shop", "version": 3}


@pytest.mark.parametrize("given", ["", "größe", 'a"b', "x" * 128, 0, -5, 2**63 - 1])
def test_id_comes_back_as_it_was(given: str | int) -> None:
    assert told(session_over(api_over(FakeServer())), {"id": given} | EXAMPLE)["id"] == given


@pytest.mark.parametrize("message", [EXAMPLE, {"id": None} | EXAMPLE])
def test_message_without_id_has_an_answer_without(message: Any) -> None:
    assert "id" not in told(session_over(api_over(FakeServer())), message)


@pytest.mark.parametrize("given", ["x" * 129, 2**63, 1.5, True, [], {}])
def test_other_ids_are_refused_and_not_repeated(given: Any) -> None:
    answer = told(session_over(api_over(FakeServer())), {"id": given} | EXAMPLE)

    assert answer.keys() == {"error"}
    assert (answer["error"]["status"], '"id": expected' in answer["error"]["detail"]) == (422, True)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("", 400),
        ("[", 400),
        ("7", 422),
        ('{"id": "a", "age": "old", "city": null}', 422),
        ('{"instances": [[1e999]]}', 422),
    ],
)
def test_what_is_wrong_with_a_message_is_its_answer(message: str, status: int) -> None:
    log = Log()
    session = session_over(api_over(FakeServer(), log))

    answer = told(session, message)

    assert answer["error"]["status"] == log.lines[0][1].status == status
    assert answer["error"]["request_id"] == "req-1-1"
    assert answer.get("id") == ("a" if '"a"' in message else None)


def test_outputs_of_the_handshake_hold_for_messages_that_name_none() -> None:
    http = handshake()
    http.query = {"outputs": "predict_proba"}
    session = open_session(api_over(server := FakeServer()), METHODS, http)
    assert isinstance(session, Session)

    told(session, EXAMPLE)

    assert server.requests[0].outputs == ("predict_proba",)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        pytest.param({"id": 7, "age": 41}, 422, id="a record"),
        pytest.param({"id": "m", "instances": [[7, 41]]}, None, id="rows"),
        pytest.param({"id": "m", "columns": {"id": [7], "age": [41]}}, None, id="columns"),
    ],
)
def test_record_of_a_model_with_a_column_called_id_is_refused(message: Any, status: int | None) -> None:
    server = FakeServer(signature_of(Column(name="id", dtype="int64"), Column(name="age", dtype="int64")))

    answer = told(session_over(api_over(server)), message)

    assert answer["id"] == message["id"]
    assert answer.get("error", {}).get("status") == status


def test_integers_beyond_64_bits_are_read_exactly_and_the_id_with_them() -> None:
    server = FakeServer(signature_of(Column(name="n", dtype="uint64")))

    answer = told(session_over(api_over(server)), '{"id": "a", "instances": [[18446744073709551615]]}')
    beyond = told(session_over(api_over(server)), '{"id": "b", "instances": [[18446744073709551616]]}')

    assert (answer["id"], "predictions" in answer) == ("a", True)
    assert (beyond["id"], beyond["error"]["status"]) == ("b", 422)


def test_answers_come_when_they_are_there() -> None:
    session = session_over(api_over(server := SlowServer()))
    first, second = (session.feed(json.dumps({"id": index} | EXAMPLE)) for index in (0, 1))

    server.answer(1)

    assert (first.done(), json.loads(second.result(timeout=0))["prediction"]) == (False, "answer 1")
    server.answer(0)
    assert json.loads(first.result(timeout=0))["id"] == 0


def test_each_message_and_the_session_are_logged_and_none_is_left_under_way() -> None:
    log = Log()
    api = api_over(FakeServer(), log)
    session = session_over(api)

    told(session, EXAMPLE)
    session.close()
    session.close()

    lines = [(http.method, http.request_id, http.template, reply.status) for http, reply, _ in log.lines]
    assert lines == [("WS", "req-1-1", PATH, 200), ("GET", "req-1", PATH, 101)]
    assert not api.under_way


def test_what_is_not_answered_in_time_is_told_so() -> None:
    server, log, clock = SlowServer(), Log(), Clock()
    session = Session(api_over(server, log), handshake(x_request_timeout_ms="1000"), clock)
    answer = session.feed(json.dumps({"id": "a"} | EXAMPLE))
    assert session.due <= time.monotonic() + 1

    clock.ahead_s = 1.1
    session.tick()

    error = json.loads(answer.result(timeout=0))
    assert (error["id"], error["error"]["status"], log.lines[0][1].status) == ("a", 504, 504)
    assert server.deadline.is_cancelled
    server.answer(0)  # for nobody
    assert len(log.lines) == 1


def test_what_is_open_at_the_end_is_given_up() -> None:
    log = Log()
    session = session_over(api_over(server := SlowServer(), log))
    answer = session.feed(json.dumps(EXAMPLE))

    session.close()

    assert answer.cancelled()
    assert server.deadline.is_cancelled
    assert [reply.status for _, reply, _ in log.lines] == [499, 101]


def test_refusals_say_when_to_try_again() -> None:
    def full() -> None:
        raise Overloaded("too much", 7)

    session = session_over(api_over(FakeServer(), require_room=full))

    error = told(session, {"id": 1} | EXAMPLE)["error"]

    assert (error["status"], error["retry_after"], session.ending) == (503, 7, None)


def test_session_holds_a_place_until_it_is_closed() -> None:
    places = Places(2, 1)
    api = api_over(FakeServer(), places=places)
    session = session_over(api)

    refused = open_session(api, METHODS, handshake())

    assert isinstance(refused, HttpReply)
    assert (refused.status, places.taken) == (429, 1)
    session.close()
    assert places.taken == 0


@pytest.mark.parametrize(
    ("http", "status"),
    [
        pytest.param(handshake("nothing"), 404, id="no such model"),
        pytest.param(handshake(origin="https://evil.example"), 403, id="a page that may not"),
        pytest.param(handshake(origin="null"), 403, id="a page of no origin"),
    ],
)
def test_refused_handshake_is_a_problem_and_holds_no_place(http: HttpRequest, status: int) -> None:
    places = Places(2)
    guard = Guard(AccessRules(origins=("https://app.example",)))

    reply = open_session(api_over(FakeServer(), places=places, guard=guard), METHODS, http)

    assert isinstance(reply, HttpReply)
    assert (reply.status, content_of(reply)["status"], places.taken) == (status, status, 0)


def test_page_of_a_configured_origin_may_open_one_and_any_other_may_not_by_default() -> None:
    guard = Guard(AccessRules(origins=("https://app.example",)))

    allowed = open_session(api_over(FakeServer(), guard=guard), METHODS, handshake(origin="https://app.example"))
    refused = open_session(api_over(FakeServer()), METHODS, handshake(origin="https://app.example"))

    assert isinstance(allowed, Session)
    assert isinstance(refused, HttpReply)


class Guarded:
    """A guard with one key, which can be revoked, and a clock that reads the file again."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.key, self._file = Clock(), new_key(), folder / "keys.json"
        self.write("shop")
        self.guard = Guard(AccessRules(keys_file=self._file), self.clock)

    def write(self, *names: str) -> None:
        keys = {"shop": self.key, "other": new_key()}
        entries = [entry_of(name, keys[name], ["predict"], (), None, None) for name in names]
        self._file.write_text(json.dumps({"keys": entries}))

    def session(self, log: Log | None = None) -> Session:
        api = api_over(FakeServer(), log, guard=self.guard)
        http = handshake(x_api_key=self.key)
        assert api.admit(METHODS, http) is None
        return Session(api, http, self.clock)


def test_revoked_key_ends_the_session_though_nothing_is_asked(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    session = guarded.session()
    guarded.clock.ahead_s = 5
    session.tick()
    assert session.ending is None

    guarded.write("other")
    guarded.clock.ahead_s = 10
    session.tick()

    assert session.ending is Close.NOT_ALLOWED


def test_message_after_the_key_was_revoked_ends_the_session(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    session = guarded.session()
    guarded.write("other")
    guarded.clock.ahead_s = 5

    answer = told(session, {"id": 1} | EXAMPLE)

    assert (answer["error"]["status"], session.ending) == (401, Close.NOT_ALLOWED)


def test_to_ask_whether_to_go_on_counts_nothing() -> None:
    clock = Clock()
    session = Session(api_over(FakeServer(), guard=Guard(AccessRules(rate=Rate(1, 86400)), clock)), handshake(), clock)

    for _ in range(5):
        clock.ahead_s += CHECK_S
        session.tick()

    assert session.ending is None
    assert "error" not in told(session, EXAMPLE)
    assert told(session, EXAMPLE)["error"]["status"] == 429


def test_service_that_stops_ends_the_session() -> None:
    clock = Clock()
    api = api_over(FakeServer())
    session = Session(api, handshake(), clock)
    api.is_closing = True

    clock.ahead_s = CHECK_S + 0.1
    assert session.due <= clock()
    session.tick()

    assert session.ending is Close.STOPPING


def test_service_that_stops_begins_no_session() -> None:
    api = api_over(FakeServer())
    api.is_closing = True

    reply = open_session(api, METHODS, handshake())

    assert isinstance(reply, HttpReply)
    assert reply.status == 503
