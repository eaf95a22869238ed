from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final

import grpc
import numpy as np
import pytest

from service import figures
from service.core.errors import ModelFailed
from service.core.messages import InferReply
from service.entrypoints.grpc_calls import address_of
from service.entrypoints.grpc_server import CannotListen, GrpcServer
from service.protocols.protos import inference_pb as pb
from service.protocols.protos.health_pb import HealthCheckRequest, HealthCheckResponse
from service.settings import Settings
from tests.conformance.servers import free_port
from tests.faults import h2
from tests.faults.cases import fault
from tests.service.entrypoints.slow import SlowServer
from tests.service.protocols.fake_server import SHOP, FakeServer

_PATIENCE_S: Final = 30.0
_INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
_STREAM: Final = "/inference.GRPCInferenceService/ModelStreamInfer"

_PERSON: Final = [
    pb.ModelInferRequest.InferInputTensor(
        name="age", datatype="INT64", shape=[1], contents=pb.InferTensorContents(int64_contents=[41])
    )
]


class Answering(FakeServer):
    """Answers at once, again and again; one that drains is not ready."""

    def infer(self, *arguments: Any, **options: Any) -> Future[InferReply]:
        self.pending = Future()
        return super().infer(*arguments, **options)

    def drain(self) -> None:
        self.ready = False


class Pending(SlowServer):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.drains = threading.Event()

    def drain(self) -> None:
        self.drains.set()

    def answer_all(self) -> None:
        for answer in self.answers:
            answer.set_result(InferReply("shop", 3, SHOP, {"predict": np.array(["yes"])}))


class Beside:
    """As much of `assembly.Tandem` as the gRPC server needs, with the server started beside it."""

    def __init__(self, server: Any = None, **settings: Any) -> None:
        self.server = server or Answering()
        self.settings = Settings(grpc_port=free_port(), **settings)
        # Nothing is scraped here: neither models nor queues are looked at.
        self.figures = figures.Figures(self.settings, None, None, lambda: 0)  # type: ignore[arg-type]
        self.api = types.SimpleNamespace(under_way=set())
        self.guard = None
        self.grpc = GrpcServer(self)  # type: ignore[arg-type]
        self.address = f"127.0.0.1:{self.settings.grpc_port}"


@contextmanager
def running(server: Any = None, **settings: Any) -> Iterator[Beside]:
    beside = Beside(server, **settings)
    beside.grpc.start()
    try:
        yield beside
    finally:
        beside.grpc.stop()


@contextmanager
def channel_to(beside: Beside) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(beside.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield channel


def infer(channel: grpc.Channel) -> grpc.UnaryUnaryMultiCallable:
    return channel.unary_unary(
        _INFER,
        request_serializer=lambda request: request if isinstance(request, bytes) else request.SerializeToString(),
        response_deserializer=pb.ModelInferResponse.FromString,
    )


def request(**fields: Any) -> Any:
    return pb.ModelInferRequest(model_name="shop", inputs=_PERSON, **fields)


def refused(call: Callable[[], Any]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> queue.Queue[dict[str, Any]]:
    """The access log, line by line."""
    written: queue.Queue[dict[str, Any]] = queue.Queue()
    monkeypatch.setattr(figures, "log_access", lambda **fields: written.put(fields))
    return written


# -- one call ------------------------------------------------------------------------------------


def test_a_call_is_answered_and_logged_under_its_callers_own_id(lines: queue.Queue[dict[str, Any]]) -> None:
    with running() as beside, channel_to(beside) as channel:
        metadata = (("x-request-id", "mine"), ("trace-bin", b"\xff"))
        response, call = infer(channel).with_call(request(), metadata=metadata, timeout=_PATIENCE_S)

    assert list(response.outputs[0].contents.bytes_contents) == [b"yes"]
    assert dict(call.trailing_metadata())["x-request-id"] == "mine"
    line = lines.get(timeout=_PATIENCE_S)
    assert line.pop("ms") >= 0
    assert line == {"method": "GRPC", "path": _INFER, "status": 200, "request_id": "mine", "error": None,
                    "caller": None, "trace_id": None}  # fmt: skip


@fault("R03", sent="bad messages", expected="INVALID_ARGUMENT, what is wrong")
def test_calls_are_counted_as_requests_are() -> None:
    with running() as beside, channel_to(beside) as channel:
        infer(channel)(request(), timeout=_PATIENCE_S)
        refused(lambda: infer(channel)(b"\xff", timeout=_PATIENCE_S))

    meter = beside.figures.meter
    meter.fold()
    assert meter.counts.counters["tandem_requests_total"] == {
        (_INFER, "grpc", "GRPC", "200", "ok"): 1,
        (_INFER, "grpc", "GRPC", "400", "unreadable-request"): 1,
    }
    assert not beside.api.under_way


@pytest.mark.parametrize(
    ("content", "code", "words", "status"),
    [
        (b"\xff", grpc.StatusCode.INVALID_ARGUMENT, "no inference.ModelInferRequest", 400),
        (pb.ModelInferRequest(model_name="shop"), grpc.StatusCode.INVALID_ARGUMENT, "no inputs", 422),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(
    content: Any, code: grpc.StatusCode, words: str, status: int, lines: queue.Queue[dict[str, Any]]
) -> None:
    with running() as beside, channel_to(beside) as channel:
        error = refused(lambda: infer(channel)(content, timeout=_PATIENCE_S, metadata=(("x-request-id", "mine"),)))

    assert error.code() is code
    assert words in error.details()
    assert dict(error.trailing_metadata())["x-request-id"] == "mine"
    assert lines.get(timeout=_PATIENCE_S)["status"] == status


@fault("R03", sent="a failure inside", expected="INTERNAL without details")
def test_what_fails_inside_is_no_business_of_the_caller(lines: queue.Queue[dict[str, Any]]) -> None:
    failure = ZeroDivisionError("/secret/path")
    with running(Answering(error=failure)) as beside, channel_to(beside) as channel:
        error = refused(lambda: infer(channel)(request(), timeout=_PATIENCE_S))

    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, str(ModelFailed()))
    assert lines.get(timeout=_PATIENCE_S)["error"] is failure


@fault("R03", sent="a method that is not there", expected="UNIMPLEMENTED")
def test_what_is_not_offered_is_unimplemented() -> None:
    with running(dialects=("v1",)) as beside, channel_to(beside) as channel:
        statistics = channel.unary_unary("/inference.GRPCInferenceService/ModelStatistics")

        assert refused(lambda: statistics(b"", timeout=_PATIENCE_S)).code() is grpc.StatusCode.UNIMPLEMENTED
        assert refused(lambda: infer(channel)(b"", timeout=_PATIENCE_S)).code() is grpc.StatusCode.UNIMPLEMENTED


@fault("R01", "R11", sent="a message of more than max_body_bytes, compressed or not", expected="RESOURCE_EXHAUSTED")
@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_that_is_too_large_is_refused_unread(compression: grpc.Compression) -> None:
    fits, too_large = (pb.ModelInferRequest(inputs=_PERSON, id="x" * size).SerializeToString() for size in (900, 1100))
    with running(max_body_bytes=1024) as beside, channel_to(beside) as channel:
        infer(channel)(fits, compression=compression, timeout=_PATIENCE_S)
        error = refused(lambda: infer(channel)(too_large, compression=compression, timeout=_PATIENCE_S))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("allowed", [True, False])
def test_models_are_changed_only_where_the_operator_lets_callers(allowed: bool) -> None:
    server = Answering()
    with running(server, model_control=allowed) as beside, channel_to(beside) as channel:
        unload = channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelUnload")
        content = pb.RepositoryModelUnloadRequest(model_name="shop").SerializeToString()
        if allowed:
            assert unload(content, timeout=_PATIENCE_S) == b""
        else:
            error = refused(lambda: unload(content, timeout=_PATIENCE_S))
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED

    assert server.changes == ([("unload", "shop")] if allowed else [])


@pytest.mark.parametrize("value", ["é".encode(), b"\xff\xfe"], ids=["utf-8", "no text"])
def test_metadata_that_is_not_ascii_is_refused_without_a_traceback_in_the_log(
    value: bytes, lines: queue.Queue[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    with running() as beside, h2.Connection(beside.settings.grpc_port or 0) as connection:
        block = h2.call_headers(_INFER.encode(), [(b"x-odd", value)])
        asked = h2.frame(h2.DATA, 1, h2.message(request().SerializeToString()), h2.END_STREAM)
        connection.send(h2.frame(h2.HEADERS, 1, block, h2.END_HEADERS), asked)
        trailers = next(one for one in connection.frames() if one.kind == h2.HEADERS and one.flags & h2.END_STREAM)

    assert b"the metadata 'x-odd' is not ASCII" in trailers.payload
    assert lines.get(timeout=_PATIENCE_S)["status"] == 400
    assert not [record for record in caplog.records if record.exc_info]


# -- answers that take their time ----------------------------------------------------------------


def test_an_answer_may_come_from_another_thread_later() -> None:
    server = Pending()
    with running(server) as beside, channel_to(beside) as channel:
        call = infer(channel).future(request(), timeout=_PATIENCE_S)
        assert server.asked.wait(_PATIENCE_S)

        server.answer_all()

        assert call.result().model_name == "shop"


@fault("R05", sent="no deadline of the caller's", expected="DEADLINE_EXCEEDED by the service's own")
def test_the_services_own_deadline_is_told(lines: queue.Queue[dict[str, Any]]) -> None:
    server = Pending()
    with running(server, timeout_s=0.05) as beside, channel_to(beside) as channel:
        error = refused(lambda: infer(channel)(request(), timeout=_PATIENCE_S))

    assert (error.code(), error.details()) == (grpc.StatusCode.DEADLINE_EXCEEDED, "no answer within 0.05 seconds")
    assert server.deadlines[0].is_cancelled
    assert lines.get(timeout=_PATIENCE_S)["status"] == 504


@fault("R05", sent="a deadline sooner than the service's", expected="DEADLINE_EXCEEDED")
def test_the_callers_deadline_counts_where_it_is_sooner() -> None:
    server = Pending()
    with running(server, timeout_s=60) as beside, channel_to(beside) as channel:
        error = refused(lambda: infer(channel)(request(), timeout=0.2))
        assert server.asked.wait(_PATIENCE_S)

    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert server.deadlines[0].seconds < 1  # on its way it may have been rounded up


@fault("R06", sent="a call cancelled while it waits", expected="dropped; 499 in the log")
def test_a_caller_that_hangs_up_cancels_what_is_not_begun(lines: queue.Queue[dict[str, Any]]) -> None:
    server = Pending()
    with running(server) as beside, channel_to(beside) as channel:
        call = infer(channel).future(request(), timeout=_PATIENCE_S)
        assert server.asked.wait(_PATIENCE_S)

        call.cancel()

        assert lines.get(timeout=_PATIENCE_S)["status"] == 499
        assert server.deadlines[0].is_cancelled


# -- streams and watches -------------------------------------------------------------------------


def stream(channel: grpc.Channel, requests: Iterator[bytes]) -> Any:
    return channel.stream_stream(_STREAM, response_deserializer=pb.ModelStreamInferResponse.FromString)(
        requests, timeout=_PATIENCE_S, metadata=(("x-request-id", "mine"),)
    )


def test_a_stream_answers_in_order_and_outlives_bad_requests(lines: queue.Queue[dict[str, Any]]) -> None:
    server = Answering()
    requests = [
        request(id="1").SerializeToString(),
        pb.ModelInferRequest(model_name="shop", id="2").SerializeToString(),
        b"\xff",
        request(id="4").SerializeToString(),
    ]
    with running(server) as beside, channel_to(beside) as channel:
        answers = list(stream(channel, iter(requests)))

    assert [(a.infer_response.id, a.error_message.partition(";")[0]) for a in answers] == [
        ("1", ""), ("2", "the request has no inputs"), ("", "the message is no inference.ModelInferRequest"), ("4", ""),
    ]  # fmt: skip
    assert [lines.get(timeout=_PATIENCE_S)["status"] for _ in requests] == [200, 422, 400, 200]


def test_a_stream_that_waits_ends_with_the_service() -> None:
    first = threading.Event()

    def requests() -> Iterator[bytes]:
        yield request(id="1").SerializeToString()
        first.wait(_PATIENCE_S)

    with running() as beside, channel_to(beside) as channel:
        answers = stream(channel, requests())
        assert next(answers).infer_response.id == "1"

        beside.grpc.stop()

        error = refused(lambda: next(answers))
        first.set()
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "the service is stopping")


@fault("R12", sent="a watch through load, ready and the end", expected="NOT_SERVING, SERVING, NOT_SERVING")
def test_a_watcher_hears_of_changes_and_of_the_end() -> None:
    server = Answering(is_ready=False)
    with running(server) as beside, channel_to(beside) as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch", response_deserializer=HealthCheckResponse.FromString
        )
        states = watch(HealthCheckRequest().SerializeToString(), timeout=_PATIENCE_S)
        heard = [next(states).status]
        server.ready = True
        heard.append(next(states).status)

        beside.grpc.stop()

        heard += [reply.status for reply in states]
    assert [HealthCheckResponse.ServingStatus.Name(state) for state in heard] == [
        "NOT_SERVING", "SERVING", "NOT_SERVING",
    ]  # fmt: skip


# -- beginning and end ---------------------------------------------------------------------------


@fault("R12", "R15", sent="a stop while a call is under way", expected="answered; new ones UNAVAILABLE")
def test_stop_answers_what_was_accepted_and_nothing_else() -> None:
    server = Pending()
    with running(server) as beside, channel_to(beside) as channel:
        accepted = infer(channel).future(request(), timeout=_PATIENCE_S)
        assert server.asked.wait(_PATIENCE_S)
        stopping = threading.Thread(target=beside.grpc.stop)
        stopping.start()
        assert server.drains.wait(_PATIENCE_S)
        late = infer(channel)
        while (code := refused(lambda: late(request(), timeout=0.2)).code()) is grpc.StatusCode.DEADLINE_EXCEEDED:
            pass  # taken in before the stop had begun

        server.answer_all()

        stopping.join(_PATIENCE_S)
        # grpc cancels what reaches a connection while it is being closed.
        assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert accepted.result().model_name == "shop"


def test_a_server_can_be_started_again_and_stopped_twice() -> None:
    with running() as beside:
        beside.grpc.start()
        beside.grpc.stop()
        beside.grpc.stop()
        beside.grpc.start()
        with channel_to(beside) as channel:
            assert infer(channel)(request(), timeout=_PATIENCE_S).model_name == "shop"


def test_an_address_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        beside = Beside()
        beside.grpc._address = f"127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(CannotListen, match=beside.grpc._address):
            beside.grpc.start()


def test_addresses_of_ipv6_stand_in_brackets() -> None:
    assert Beside(grpc_host="::1").grpc._address.startswith("[::1]:")


def test_greenlets_are_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    patched = types.SimpleNamespace(is_module_patched=lambda name: name == "threading")
    monkeypatch.setitem(sys.modules, "gevent.monkey", patched)

    with pytest.raises(CannotListen, match="--worker-class gthread"):
        Beside().grpc.start()


_FORK: Final = """
import os, sys, threading
from tests.service.entrypoints.test_grpc_server import Beside, channel_to, infer, request

beside = Beside()
child_first = sys.argv[1] == "before"
if not child_first:
    beside.grpc.start()
child = os.fork()
if child == 0:
    beside.grpc.start()  # as a service does that finds itself in a child
    status = 0
    if child_first:
        with channel_to(beside) as channel:
            status = 0 if infer(channel)(request(), timeout=30).model_name == "shop" else 3
    else:
        status = 0 if [thread.name for thread in threading.enumerate()] == ["MainThread"] else 4
    beside.grpc.stop()
    os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
if not child_first:
    with channel_to(beside) as channel:
        assert infer(channel)(request(), timeout=30).model_name == "shop"
    beside.grpc.stop()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_child_has_a_server_only_if_its_parent_has_none(when: str) -> None:
    done = run(_FORK, when)

    assert done.returncode == 0, done.stderr


_END: Final = """
import atexit, threading
from tests.service.entrypoints.test_grpc_server import Beside, Pending, channel_to, infer, request

atexit.register(lambda: asking.join(30))  # the last of all: it prints what came
server = Pending()
beside = Beside(server)
beside.grpc.start()

def ask():
    with channel_to(beside) as channel:
        print(infer(channel)(request(), timeout=30).model_name, flush=True)

def answer():
    assert server.drains.wait(30)
    server.answer_all()

asking = threading.Thread(target=ask, daemon=True)
asking.start()
assert server.asked.wait(30)
threading.Thread(target=answer, daemon=True).start()
"""


def test_the_end_of_a_process_waits_for_what_was_accepted() -> None:
    done = run(_END)

    assert done.returncode == 0, done.stderr
    assert "shop" in done.stdout.splitlines()  # beside the access log


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, *arguments],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:4711", "127.0.0.1"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("ipv6:[::1]:4711", "::1"),
        ("unix:", "unix:"),
    ],
)
def test_address_of_a_peer(peer: str, address: str) -> None:
    assert address_of(peer) == address
