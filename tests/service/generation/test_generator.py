from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from service.core.callers import ANYBODY, Caller, Scope
from service.core.errors import InvalidField, Unavailable, UnknownModel, UnsupportedMediaType, UpstreamFailed
from service.generation import generator as module
from service.generation.address import parse_address
from service.generation.events import HEARTBEAT
from service.generation.generator import SEEING, WRITING, Generator, Pace
from service.generation.rules import GenerationRules, RequestRules, UpstreamRules
from service.protocols.http import HttpReply, HttpRequest, StreamReply
from service.scheduling.event_loop import EventLoop
from tests.conformance.servers import eventually
from tests.faults.cases import fault
from tests.faults.upstream import MODEL, TEXTS, USAGE, scripted
from tests.faults.upstream import Upstream as Scripted

PATIENCE_S = 20.0


class Observed:
    def __init__(self) -> None:
        self.firsts: list[float] = []
        self.counts: list[tuple[str, int]] = []

    def first_token(self, seconds: float) -> None:
        self.firsts.append(seconds)

    def tokens(self, kind: str, count: int) -> None:
        self.counts.append((kind, count))


@pytest.fixture(scope="module")
def model() -> Iterator[Scripted]:
    with scripted() as model:
        yield model


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop()
    yield loop
    loop.stop()


@pytest.fixture
def observed() -> Observed:
    return Observed()


@pytest.fixture
def generator(model: Scripted, loop: EventLoop, observed: Observed) -> Iterator[Generator]:
    rules = GenerationRules(UpstreamRules(parse_address(model.url)), RequestRules(model=MODEL))
    generator = Generator(rules, loop, observed)
    generator.start()
    yield generator
    generator.stop()


def request(script: str, *, may_block: bool = False, caller: Caller = ANYBODY, **fields: Any) -> HttpRequest:
    return HttpRequest(
        "POST", "/", {}, {}, {"content-type": "application/json"},
        json.dumps({"prompt": f"do: {script};", **fields}).encode(), "id", may_block=may_block, caller=caller,
    )  # fmt: skip


def begin(generator: Generator, path: str, http: HttpRequest) -> Future[Any]:
    (route,) = [route for route in generator.routes() if route.path == path]
    http.problem = route.dialect.problem
    work = route.handler(None, http)  # type: ignore[arg-type]
    assert isinstance(work, Future)
    return work


def pieces_of(loop: EventLoop, reply: StreamReply) -> Iterator[bytes]:
    return loop.iterate(reply.pieces)


def test_every_route_is_for_callers_who_may_generate_and_holds_a_place(generator: Generator) -> None:
    routes = generator.routes()

    assert {route.path for route in routes} == {
        "/v1/generate", "/v1/generate/stream", "/v1/completions", "/v1/chat/completions",
    }  # fmt: skip
    for route in routes:
        assert (route.method, route.scope, route.streams) == ("POST", Scope.GENERATE, True)
        assert route.timeout_s is not None and route.timeout_s > UpstreamRules(parse_address("http://x")).total_s


def test_whole_text_is_one_reply_and_its_tokens_are_counted(generator: Generator, observed: Observed) -> None:
    http = request("well")

    work = begin(generator, "/v1/generate", http)
    reply = work.result(PATIENCE_S)

    assert isinstance(reply, HttpReply)
    assert json.loads(reply.body)["text"] == "".join(TEXTS)
    assert http.work is work
    assert observed.counts == [("prompt", USAGE["prompt_tokens"]), ("completion", USAGE["completion_tokens"])]


def test_stream_is_as_many_pieces_as_came(generator: Generator, loop: EventLoop, observed: Observed) -> None:
    reply = begin(generator, "/v1/generate/stream", request("well 0.05")).result(PATIENCE_S)

    pieces = list(pieces_of(loop, reply))

    assert [json.loads(piece[6:])["text"] for piece in pieces[:-1]] == list(TEXTS)
    assert pieces[-1].endswith(b"data: [DONE]\n\n")
    assert reply.headers == {"cache-control": "no-store", "x-accel-buffering": "no"}
    assert reply.error is None
    assert len(observed.firsts) == 1
    assert observed.counts == [("prompt", USAGE["prompt_tokens"]), ("completion", USAGE["completion_tokens"])]
    assert generator.under_way == 0


@fault("P14", sent="silence in a stream", expected="heartbeats")
def test_heartbeats_fill_a_silence(generator: Generator, loop: EventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITING", Pace(0.01, 0.01))
    for script, first in [("silent head", HEARTBEAT), ("silent text", b'data: {"text":"Once"}\n\n')]:
        reply = begin(generator, "/v1/generate/stream", request(script, may_block=True)).result(PATIENCE_S)
        pieces = pieces_of(loop, reply)

        assert next(piece for piece in pieces if piece == first)
        assert [next(pieces) for _ in range(3)] == [HEARTBEAT] * 3
        loop.run(reply.close()).result(PATIENCE_S)


@fault(
    "P07", sent="a caller who leaves, where only writing tells", expected="noticed by the second heartbeat, in a second"
)
def test_two_heartbeats_of_those_who_must_write_to_notice_are_in_a_second() -> None:
    assert 2 * WRITING.beat_s < 1
    assert WRITING.hold_s + WRITING.beat_s < 1
    assert SEEING.beat_s < 30  # of proxies, 60 s are usual


@fault(
    "P07", sent="a stream that is closed, begun or not, and a whole that is given up", expected="the upstream is left"
)
@pytest.mark.parametrize("way", ["begun", "not begun", "whole"])
def test_whoever_leaves_gives_the_upstream_up(generator: Generator, model: Scripted, loop: EventLoop, way: str) -> None:
    before = len(model.asked)
    http = request("silent text" if way == "begun" else "silent")

    work = begin(generator, "/v1/generate" if way == "whole" else "/v1/generate/stream", http)
    if way == "begun":
        reply = work.result(PATIENCE_S)
        next(pieces_of(loop, reply))
        loop.run(reply.close()).result(PATIENCE_S)
    else:
        eventually(lambda: len(model.asked) > before, "the request")
        http.give_up()

    assert eventually(lambda: model.asked[before].left_at, "the upstream to be left") <= time.monotonic()
    eventually(lambda: generator.under_way == 0, "the answer to be given up")


def test_failure_before_the_text_is_an_error_and_after_it_an_event(generator: Generator, loop: EventLoop) -> None:
    with pytest.raises(UpstreamFailed):
        begin(generator, "/v1/generate/stream", request("status500")).result(PATIENCE_S)

    reply = begin(generator, "/v1/generate/stream", request("late-error")).result(PATIENCE_S)
    *_, last = pieces_of(loop, reply)

    assert last.startswith(b'event: error\ndata: {"type":"urn:tandem:problem:upstream-failed"')
    assert isinstance(reply.error, UpstreamFailed)


def test_key_for_other_models_sees_none_here(generator: Generator) -> None:
    narrow = Caller("narrow", frozenset({Scope.GENERATE}), frozenset({"other"}))
    right = Caller("right", frozenset({Scope.GENERATE}), frozenset({MODEL}))

    with pytest.raises(UnknownModel):
        begin(generator, "/v1/generate", request("well", caller=narrow))
    assert begin(generator, "/v1/generate", request("well", caller=right)).result(PATIENCE_S).status == 200


def test_bad_requests_reach_nobody(generator: Generator, model: Scripted) -> None:
    before = len(model.asked)
    form = request("well")
    form.headers = {"content-type": "text/plain"}

    with pytest.raises(InvalidField):
        begin(generator, "/v1/generate", request("well", max_tokens=0))
    with pytest.raises(UnsupportedMediaType):
        begin(generator, "/v1/generate", form)

    assert len(model.asked) == before


def test_nothing_is_asked_before_the_start_nor_after_the_end(model: Scripted, loop: EventLoop) -> None:
    rules = GenerationRules(UpstreamRules(parse_address(model.url)), RequestRules(model=MODEL))
    generator = Generator(rules, loop, Observed())

    with pytest.raises(Unavailable):
        begin(generator, "/v1/generate", request("well")).result(PATIENCE_S)
    assert (generator.under_way, generator.state) == (0, "closed")


def test_hundred_at_a_time_take_no_thread(model: Scripted, observed: Observed) -> None:
    """On one loop, as under FastAPI."""
    rules = GenerationRules(UpstreamRules(parse_address(model.url), connections=100), RequestRules(model=MODEL))

    async def all_of_them() -> int:
        loop = EventLoop()
        loop.adopt(asyncio.get_running_loop())
        generator = Generator(rules, loop, observed)
        generator.start()
        works = [begin(generator, "/v1/generate", request("well 0.05")) for _ in range(100)]
        replies = await asyncio.gather(*map(asyncio.wrap_future, works))
        await asyncio.to_thread(generator.stop)
        return sum(json.loads(reply.body)["text"] == "".join(TEXTS) for reply in replies)

    assert asyncio.run(all_of_them()) == 100
