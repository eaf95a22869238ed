from __future__ import annotations

import gzip
import time
from concurrent.futures import Future
from typing import Any

import pytest

from service.core.callers import Rate
from service.core.errors import (
    DeadlinePassed,
    MethodNotAllowed,
    Overloaded,
    ReplyTooLarge,
    RequestTooLarge,
    UnknownRoute,
    UnreadableRequest,
)
from service.guards.guard import AccessRules, Guard
from service.protocols.api import Api, allowed_methods, request_id
from service.protocols.http import HttpReply, HttpRequest
from service.protocols.route import Dialect, Route, Scope
from service.protocols.routes import by_path
from tests.faults.cases import fault
from tests.service.protocols.fake_server import EXAMPLE, FakeServer, content_of, get, post

PATHS = by_path()


class Log:
    """Keeps what an access log would be told."""

    def __init__(self) -> None:
        self.lines: list[tuple[HttpRequest, HttpReply, BaseException | None]] = []

    def __call__(self, http: HttpRequest, reply: HttpReply, seconds: float, error: BaseException | None) -> None:
        assert seconds >= 0
        self.lines.append((http, reply, error))


def api_over(server: FakeServer, log: Log | None = None) -> Api:
    return Api(server, max_body_bytes=1000, timeout_s=2.0, record=log or Log())


def route_to(handler: Any) -> dict[str, Route]:
    return {"GET": Route("GET", "/x", handler, Scope.PUBLIC, "x")}


def test_answer_that_is_there_is_returned_at_once() -> None:
    reply = api_over(FakeServer()).answer(PATHS["/health/live"], get())

    assert isinstance(reply, HttpReply)
    assert content_of(reply) == {"live": True}


def test_answer_that_is_computed_is_a_future_of_the_reply() -> None:
    server = FakeServer(waits=True)
    answered = api_over(server).answer(PATHS["/predict"], post(EXAMPLE))
    assert isinstance(answered, Future)
    assert not answered.done()

    server.finish()

    assert content_of(answered.result(timeout=0))["prediction"] == "yes"


def test_every_reply_carries_request_id_and_is_neither_stored_nor_sniffed() -> None:
    reply = api_over(FakeServer()).answer(PATHS["/health/live"], get())

    assert isinstance(reply, HttpReply)
    assert reply.headers == {
        "x-request-id": "req-1",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
    }


@pytest.mark.parametrize(("limit", "status"), [(10, 413), (1000, 200)])
def test_answer_that_is_larger_than_allowed_is_not_sent(limit: int, status: int) -> None:
    log = Log()
    api = Api(FakeServer(), max_body_bytes=1000, timeout_s=2.0, record=log, max_reply_bytes=limit)

    reply = api.answer(PATHS["/predict"], post(EXAMPLE))

    assert isinstance(reply, HttpReply)
    assert reply.status == status
    assert isinstance(log.lines[0][2], ReplyTooLarge) is (status == 413)


def test_handler_may_let_its_reply_be_stored() -> None:
    reply = api_over(FakeServer()).answer(PATHS["/docs/{file}"], get(file="swagger-ui.css"))

    assert isinstance(reply, HttpReply)
    assert reply.headers["cache-control"] == "max-age=86400"


def test_head_is_answered_as_get() -> None:
    http = get("/models")
    http.method = "HEAD"

    reply = api_over(FakeServer()).answer(PATHS["/models"], http)

    assert isinstance(reply, HttpReply)
    assert (reply.status, "models" in content_of(reply)) == (200, True)


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        pytest.param("/predict", "GET", "POST", id="get where there is post"),
        pytest.param("/predict", "HEAD", "POST", id="head where there is no get"),
        pytest.param("/models", "POST", "GET, HEAD", id="post where there is get"),
        pytest.param("/models", "OPTIONS", "GET, HEAD", id="options"),
        pytest.param("/models", "BREW", "GET, HEAD", id="unheard of"),
    ],
)
def test_other_method_is_told_the_allowed_ones(path: str, method: str, allow: str) -> None:
    log = Log()
    http = get(path)
    http.method = method

    reply = api_over(FakeServer(), log).answer(PATHS[path], http)

    assert isinstance(reply, HttpReply)
    assert (reply.status, reply.headers["allow"]) == (405, allow)
    assert isinstance(log.lines[0][2], MethodNotAllowed)


def test_allowed_methods_name_head_beside_get() -> None:
    assert allowed_methods(PATHS["/models"]) == ["GET", "HEAD"]


@fault("O08", sent="a handler that raises", expected="500 that says nothing; the log has the error")
def test_unexpected_exception_of_a_handler_says_nothing_but_is_logged() -> None:
    log = Log()
    secret = ValueError("/srv/secret")

    def broken(server: Any, http: HttpRequest) -> HttpReply:
        raise secret

    reply = api_over(FakeServer(), log).answer(route_to(broken), get())

    assert isinstance(reply, HttpReply)
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert log.lines[0][2] is secret


@fault("O08", sent="a model that raises whatever it likes", expected="500 with a request id, and nothing of the error")
@pytest.mark.parametrize("error", [ValueError("/srv/secret"), MemoryError(), SystemExit(1)], ids=repr)
def test_failure_of_the_engine_is_a_reply_and_says_nothing(error: BaseException) -> None:
    log = Log()

    reply = api_over(FakeServer(error=error), log).answer(PATHS["/predict"], post(EXAMPLE))

    assert isinstance(reply, HttpReply)
    assert (reply.status, content_of(reply)["request_id"]) == (500, "req-1")
    assert b"secret" not in reply.body
    assert log.lines[0][2] is error


def test_cancelled_engine_is_a_reply_too() -> None:
    server = FakeServer(waits=True)
    answered = api_over(server).answer(PATHS["/predict"], post(EXAMPLE))

    server.pending.cancel()

    assert isinstance(answered, Future)
    assert answered.result(timeout=0).status == 500


@pytest.mark.parametrize(
    ("refuse", "status", "kind"),
    [
        pytest.param(lambda api, http: api.not_found(http), 404, UnknownRoute, id="no route"),
        pytest.param(lambda api, http: api.wrong_method(PATHS["/models"], http), 405, MethodNotAllowed, id="method"),
        pytest.param(lambda api, http: api.too_large(http), 413, RequestTooLarge, id="too large"),
        pytest.param(lambda api, http: api.cut_off(http), 400, UnreadableRequest, id="cut off"),
        pytest.param(lambda api, http: api.too_late(http), 504, DeadlinePassed, id="too late"),
    ],
)
def test_what_an_entry_point_refuses_is_a_problem_and_is_logged(refuse: Any, status: int, kind: type) -> None:
    log = Log()

    reply = refuse(api_over(FakeServer(), log), get())

    assert (reply.status, reply.content_type) == (status, "application/problem+json")
    assert reply.headers["x-request-id"] == "req-1"
    assert [type(error) for _, _, error in log.lines] == [kind]


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        pytest.param(None, 2.0, id="nothing"),
        pytest.param("150", 0.15, id="less"),
        pytest.param("60000", 2.0, id="more than the service allows"),
    ],
)
def test_caller_may_ask_for_an_answer_sooner(asked: str | None, seconds: float) -> None:
    server = FakeServer(waits=True)
    headers = {"content-type": "application/json", **({"x-request-timeout-ms": asked} if asked else {})}
    http = post(EXAMPLE, headers=headers)
    before = time.monotonic()

    api_over(server).answer(PATHS["/predict"], http)

    assert http.deadline.seconds == seconds
    assert before + seconds <= http.deadline.at <= time.monotonic() + seconds
    assert server.deadline is http.deadline


@pytest.mark.parametrize("asked", ["0", "-5", "1.5", "soon", "", "1e3", "9" * 10, "１"])
def test_time_that_is_no_number_of_milliseconds_is_refused(asked: str) -> None:
    http = post(EXAMPLE, headers={"content-type": "application/json", "x-request-timeout-ms": asked})

    reply = api_over(FakeServer()).answer(PATHS["/predict"], http)

    assert isinstance(reply, HttpReply)
    assert reply.status == 400
    assert "whole milliseconds" in content_of(reply)["detail"]


def test_what_nobody_waits_for_any_more_is_cancelled() -> None:
    api = api_over(FakeServer(waits=True))
    late, gone = post(EXAMPLE), post(EXAMPLE)
    for http in (late, gone):
        api.answer(PATHS["/predict"], http)

    api.too_late(late)
    api.gone(gone)

    assert late.deadline.is_cancelled
    assert gone.deadline.is_cancelled


@pytest.mark.parametrize(
    ("give_up", "status"),
    [
        pytest.param(lambda api, http: api.gone(http), 499, id="gone"),
        pytest.param(lambda api, http: api.too_late(http), 504, id="too late"),
        pytest.param(lambda api, http: api.stopped(http), 503, id="stopped"),
    ],
)
def test_work_that_is_given_up_is_cancelled_and_logged_by_its_reason(give_up: Any, status: int) -> None:
    log, work = Log(), Future[HttpReply]()
    api, http = api_over(FakeServer(), log), get("/x")

    def handle(server: Any, http: HttpRequest) -> Future[HttpReply]:
        http.work = work
        return work

    api.answer(route_to(handle), http)

    give_up(api, http)

    assert work.cancelled()
    assert [line[1].status for line in log.lines] == [status]


def test_every_request_is_logged_once() -> None:
    log = Log()
    api = api_over(FakeServer(), log)
    requests = [post(EXAMPLE), get("/models"), post(b"{")]

    for http in requests:
        api.answer(PATHS["/models" if http.method == "GET" else "/predict"], http)

    assert [(http, reply.status) for http, reply, _ in log.lines] == list(zip(requests, [200, 200, 400], strict=True))


def test_reply_that_comes_after_the_deadline_is_not_logged_twice() -> None:
    log = Log()
    server = FakeServer(waits=True)
    api = api_over(server, log)
    http = post(EXAMPLE)
    api.answer(PATHS["/predict"], http)
    api.too_late(http)

    server.finish()

    assert [reply.status for _, reply, _ in log.lines] == [504]


@pytest.mark.parametrize("given", ["a", "req-1", "0b5c:1@host/x=2+3._-", "x" * 128])
def test_safe_request_id_is_kept(given: str) -> None:
    assert request_id(given) == given


@pytest.mark.parametrize(
    "given",
    [None, "", "x" * 129, "a b", "a\r\nset-cookie: x", "a\n", "<script>", "ä", "a\x00", '{"a":1}'],
    ids=repr,
)
def test_other_request_id_is_replaced_by_a_fresh_one(given: str | None) -> None:
    one, other = request_id(given), request_id(given)

    assert one != given
    assert one != other
    assert request_id(one) == one


def admin_route() -> dict[str, Route]:
    return {"POST": Route("POST", "/x", lambda server, http: HttpReply(200, b"done"), Scope.ADMIN, "x")}


@pytest.mark.parametrize(("model_control", "status"), [(False, 403), (True, 200)])
def test_what_is_served_changes_only_where_the_operator_lets_callers(model_control: bool, status: int) -> None:
    api = Api(FakeServer(), max_body_bytes=1000, timeout_s=2.0, record=Log(), model_control=model_control)

    reply = api.answer(admin_route(), post(b""))

    assert isinstance(reply, HttpReply)
    assert reply.status == status


def test_coded_body_reaches_the_handler_as_it_was() -> None:
    http = post(gzip.compress(b"hello"), headers={"content-encoding": "gzip"})

    api_over(FakeServer()).answer({"POST": route_to(lambda server, http: HttpReply(200, b""))["GET"]}, http)

    assert http.body == b"hello"


def test_dialect_says_in_its_own_words_what_went_wrong() -> None:
    dialect = Dialect("odd", lambda error, request_id: HttpReply(418, str(error).encode()), "/odd/")
    api = Api(FakeServer(), max_body_bytes=1000, timeout_s=2.0, record=Log(), dialects=[dialect])
    elsewhere, nowhere = get("/elsewhere"), get("/odd/nowhere")
    late = get()
    late.problem = dialect.problem

    assert api.not_found(nowhere).status == 418
    assert api.not_found(elsewhere).status == 404
    assert api.too_late(late).status == 418


# Admission, by a guard


def guarded_api(server: FakeServer, log: Log | None = None, **rules: Any) -> Api:
    guard = Guard(AccessRules(**rules))
    return Api(server, max_body_bytes=1000, timeout_s=2.0, record=log or Log(), guard=guard)


def from_host(http: HttpRequest, host: str = "localhost", **headers: str) -> HttpRequest:
    http.headers = {**http.headers, "host": host, **headers}
    return http


def test_what_no_entry_point_admitted_is_not_answered() -> None:
    server = FakeServer()
    api = guarded_api(server, hosts=("localhost",))

    reply = api.answer(PATHS["/predict"], from_host(post(EXAMPLE), "evil.example"))

    assert isinstance(reply, HttpReply)
    assert (reply.status, content_of(reply)["type"]) == (421, "urn:tandem:problem:wrong-host")
    assert server.requests == []


def test_who_was_admitted_is_told_what_is_left_of_the_limit() -> None:
    api = guarded_api(FakeServer(), rate=Rate(2, 60))

    replies = [api.answer(PATHS["/models"], get()) for _ in range(3)]

    assert [reply.status for reply in replies if isinstance(reply, HttpReply)] == [200, 200, 429]
    for reply in replies:
        assert isinstance(reply, HttpReply)
        assert reply.headers["ratelimit-policy"] == '"default";q=2;w=60'


def test_fields_of_a_reply_and_of_its_origin_vary_together() -> None:
    api = guarded_api(FakeServer(), origins=("https://app.example",))

    def coded(server: Any, http: HttpRequest) -> HttpReply:
        return HttpReply(200, b"", headers={"vary": "Accept-Encoding"})

    reply = api.answer(route_to(coded), from_host(get(), origin="https://app.example"))

    assert isinstance(reply, HttpReply)
    assert reply.headers["vary"] == "Origin, Accept-Encoding"
    assert reply.headers["access-control-allow-origin"] == "https://app.example"


def test_admission_is_by_the_route_whatever_else_the_request_says() -> None:
    log = Log()
    api = guarded_api(FakeServer(), log, hosts=("localhost",))
    http = from_host(get(), **{"x-http-method-override": "POST", "x-original-url": "/health/live"})
    http.method = "DELETE"

    refused = api.admit(PATHS["/models"], http)

    assert refused is not None
    assert (refused.status, len(log.lines)) == (405, 1)


def _full() -> None:
    raise Overloaded("too much waits", 7)


@fault("B09", sent="predictions and other requests while the queue is full", expected="503 before the body is read")
def test_full_service_turns_predictions_away_before_they_are_read_and_nothing_else() -> None:
    log = Log()
    api = Api(FakeServer(), max_body_bytes=1000, timeout_s=2.0, record=log, require_room=_full)

    refused = api.admit(PATHS["/predict"], post(b""))

    assert refused is not None
    assert (refused.status, refused.headers["retry-after"]) == (503, "7")
    assert isinstance(log.lines[0][2], Overloaded)
    assert all(api.admit(PATHS[path], get()) is None for path in ("/health/live", "/models", "/metrics"))


def test_who_may_not_ask_is_not_told_that_the_service_is_full() -> None:
    guard = Guard(AccessRules(hosts=("localhost",)))
    api = Api(FakeServer(), max_body_bytes=1000, timeout_s=2.0, record=Log(), require_room=_full, guard=guard)

    refused = api.admit(PATHS["/predict"], from_host(post(b""), "evil.example"))

    assert refused is not None
    assert refused.status == 421
