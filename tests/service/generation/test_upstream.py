from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing, suppress
from typing import Any

import httpcore
import pytest

from service.core.errors import Overloaded, RateLimited, TandemError, Unavailable, UpstreamFailed, UpstreamSilent
from service.generation.address import parse_address
from service.generation.requests import Form, upstream_call
from service.generation.rules import RequestRules, UpstreamRules
from service.generation.upstream import Upstream
from service.runtimes.breaker import State
from tests.conformance.servers import free_port
from tests.faults.cases import fault
from tests.faults.upstream import TEXTS, scripted
from tests.faults.upstream import Upstream as Scripted


@pytest.fixture(scope="module")
def model() -> Iterator[Scripted]:
    with scripted() as model:
        yield model


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def asked(upstream: Upstream, script: str, *, streams: bool = False) -> Coroutine[Any, Any, bytes]:
    call = upstream_call(json.dumps({"prompt": f"do: {script};", "stream": streams}).encode(), Form.COMPLETIONS, RULES)

    async def ask() -> bytes:
        async with aclosing(upstream.answer(call)) as chunks:
            return b"".join([chunk async for chunk in chunks])

    return ask()


RULES = RequestRules(model="m")


def run(
    url: str, steps: Callable[[Upstream], Coroutine[Any, Any, Any]], clock: Clock | None = None, **rules: Any
) -> Any:
    async def within() -> Any:
        address = parse_address(url)
        arguments = () if clock is None else (clock,)
        upstream = Upstream(UpstreamRules(address, **rules), *arguments)
        try:
            return await steps(upstream)
        finally:
            await upstream.close()

    return asyncio.run(within())


async def error_of(work: Coroutine[Any, Any, Any]) -> TandemError:
    with pytest.raises(TandemError) as caught:
        await work
    return caught.value


def test_answer_comes_and_the_connection_is_free_again(model: Scripted) -> None:
    async def steps(upstream: Upstream) -> bytes:
        body = await asked(upstream, "well", streams=True)
        assert upstream.under_way == 0
        return body

    body = run(model.url, steps)

    assert body.count(b"data: ") == len(TEXTS) + 2


@fault("P04", sent="a key", expected="shown to the upstream, in no word of a failure")
def test_key_is_shown_to_the_upstream_and_to_nobody_else(model: Scripted) -> None:
    async def steps(upstream: Upstream) -> TandemError:
        return await error_of(asked(upstream, "status500"))

    error = run(model.url, steps, key="sk-canary")

    assert "Authorization: Bearer sk-canary" in model.asked[-1].head
    assert "canary" not in error.for_log


@fault(
    "P05", "P18", sent="an upstream that refuses connections", expected="one retry; breaker opens, and tries by a probe"
)
def test_breaker_opens_and_closes() -> None:
    clock, port = Clock(), free_port()

    async def steps(upstream: Upstream) -> None:
        for _ in range(3):
            assert isinstance(await error_of(asked(upstream, "well")), UpstreamFailed)
        open_ = await error_of(asked(upstream, "well"))
        assert isinstance(open_, Unavailable) and open_.retry_after_s == 1

        clock.now += 1.1
        assert isinstance(await error_of(asked(upstream, "well")), UpstreamFailed)  # the probe
        longer = await error_of(asked(upstream, "well"))
        assert isinstance(longer, Unavailable) and longer.retry_after_s == 2

        clock.now += 2.1
        with scripted(port):
            await asked(upstream, "well")
        assert upstream.breaker.state is State.CLOSED

    run(f"http://127.0.0.1:{port}/v1", steps, clock)


@pytest.mark.parametrize("script", ["status500", "status429", "html"])
def test_upstream_that_answers_anything_is_not_left_alone(model: Scripted, script: str) -> None:
    async def steps(upstream: Upstream) -> None:
        for _ in range(4):
            with suppress(UpstreamFailed, RateLimited):
                await asked(upstream, script)
        assert upstream.breaker.state is State.CLOSED

    run(model.url, steps)


def test_caller_who_leaves_during_the_probe_leaves_the_breaker_open(model: Scripted) -> None:
    clock = Clock()

    async def steps(upstream: Upstream) -> None:
        upstream.breaker.tripped(clock.now)
        clock.now += 10
        probe = asyncio.ensure_future(asked(upstream, "silent"))
        while upstream.under_way == 0:
            await asyncio.sleep(0.01)
        assert isinstance(await error_of(asked(upstream, "well")), Unavailable)  # one probe at a time
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        assert upstream.breaker.state is State.OPEN
        assert upstream.under_way == 0

    run(model.url, steps, clock)


@fault("P18", sent="a connection that breaks once the request was sent", expected="no retry")
@pytest.mark.parametrize("script", ["hangs-up", "garbage", "status500", "broken"])
def test_what_was_sent_is_not_sent_again(model: Scripted, script: str) -> None:
    before = len(model.asked)

    async def steps(upstream: Upstream) -> None:
        with suppress(TandemError):
            await asked(upstream, script, streams=True)

    run(model.url, steps)

    assert len(model.asked) == before + 1


@fault("P18", sent="an upstream that refuses the first connection", expected="the second is tried, and answers")
def test_connecting_is_tried_once_more(model: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    connect, tries = httpcore.AnyIOBackend.connect_tcp, []

    async def flaky(self: Any, *arguments: Any, **others: Any) -> Any:
        tries.append(arguments)
        if len(tries) == 1:
            raise httpcore.ConnectError("refused")
        return await connect(self, *arguments, **others)

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", flaky)

    assert run(model.url, lambda upstream: asked(upstream, "well"))
    assert len(tries) == 2


@fault(
    "P06", sent="silence before the first byte, after it, and an answer without end", expected="504, each with its time"
)
@pytest.mark.parametrize(
    ("script", "rules", "words"),
    [
        ("silent", {"first_s": 0.2}, "begin to answer within 0.2 seconds"),
        ("silent head", {"first_s": 0.2}, "begin to answer within 0.2 seconds"),
        ("silent text", {"gap_s": 0.2}, "go on with its answer within 0.2 seconds"),
        ("drip", {"total_s": 0.5}, "end its answer within 0.5 seconds"),
    ],
)
def test_silence_has_an_end(model: Scripted, script: str, rules: dict[str, float], words: str) -> None:
    error = run(model.url, lambda upstream: error_of(asked(upstream, script, streams=True)), **rules)

    assert isinstance(error, UpstreamSilent)
    assert words in str(error)


def test_caller_who_is_slow_is_no_silence_of_the_upstream(model: Scripted) -> None:
    call = upstream_call(b'{"prompt": "do: well 0.01;", "stream": true}', Form.COMPLETIONS, RULES)

    async def steps(upstream: Upstream) -> bytes:
        body = b""
        async with aclosing(upstream.answer(call)) as chunks:
            async for chunk in chunks:
                await asyncio.sleep(0 if body else 0.7)
                body += chunk
        return body

    assert run(model.url, steps, gap_s=0.5).endswith(b"data: [DONE]\n\n")


@fault("P08", sent="more bytes than an answer may have", expected="502")
@pytest.mark.parametrize("streams", [True, False])
def test_answer_has_a_bound(model: Scripted, streams: bool) -> None:
    error = run(model.url, lambda upstream: error_of(asked(upstream, "endless", streams=streams)), max_bytes=100_000)

    assert str(error) == "the language model sent more than 100000 bytes"


def test_connections_have_a_bound(model: Scripted) -> None:
    async def steps(upstream: Upstream) -> None:
        first = asyncio.ensure_future(asked(upstream, "silent"))
        while upstream.under_way == 0:
            await asyncio.sleep(0.01)
        assert isinstance(await error_of(asked(upstream, "well")), Overloaded)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert await asked(upstream, "well")

    run(model.url, steps, connections=1, connect_s=0.3)


@fault("P05", sent="TLS to a server that speaks none", expected="502")
def test_bad_tls(model: Scripted) -> None:
    error = run(model.url.replace("http:", "https:"), lambda upstream: error_of(asked(upstream, "well")), connect_s=0.2)

    assert str(error) == "the language model cannot be reached"
