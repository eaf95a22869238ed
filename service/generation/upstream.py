"""Asks the upstream: one pool of connections for each process, on the service's event loop.

httpcore is httpx's own pool, and all of httpx that is wanted: nothing follows a redirect, takes a proxy from the
environment, keeps a cookie or unpacks an answer, and who connects can be said (`network.py`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Final, TypeVar

import httpcore

from service.core.errors import Overloaded, TandemError, Unavailable, UpstreamFailed, UpstreamSilent
from service.generation.events import MEDIA_TYPE
from service.generation.network import CheckedNetwork
from service.generation.replies import ERROR_BYTES, refusal_of, require_kind
from service.generation.requests import UpstreamCall
from service.generation.rules import UpstreamRules, key_of
from service.protocols.http import JSON
from service.runtimes.breaker import Breaker, State

T = TypeVar("T")

# Whatever the service logs: at debug, httpcore quotes headers, and what came that is no HTTP.
logging.getLogger("httpcore").setLevel(logging.INFO)

# A connection that waits for its next request longer than that is closed, before the upstream does it.
IDLE_S: Final = 5.0
# Of connecting alone, when nothing was sent yet.
RETRIES: Final = 1


class Upstream:
    """`under_way` counts the answers that are read now. All of it belongs to one event loop.

    Raises:
        UpstreamUnusable: the key cannot be read.
    """

    def __init__(self, rules: UpstreamRules, clock: Callable[[], float] = time.monotonic) -> None:
        self.under_way = 0
        self.breaker = Breaker(failures=3, first_pause_s=1.0)
        self._rules = rules
        self._clock = clock
        address = rules.address
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context() if address.scheme == "https" else None,
            max_connections=rules.connections,
            keepalive_expiry=IDLE_S,
            retries=RETRIES,
            network_backend=CheckedNetwork(address.host),
        )
        # All that goes with a request: nothing of the caller's headers does.
        self._headers = [("Host", address.authority), ("Content-Type", JSON), ("Accept-Encoding", "identity")]
        if (key := key_of(rules)) is not None:
            self._headers.append(("Authorization", f"Bearer {key}"))

    async def close(self) -> None:
        await self._pool.aclose()

    async def answer(self, call: UpstreamCall) -> AsyncGenerator[bytes, None]:
        """The body of the answer as it comes. To close it gives the answer up.

        Raises:
            Unavailable: the upstream failed lately, and is left alone.
            Overloaded: as many connections are in use as there may be.
            UpstreamSilent: the first byte, the next or the last was not there in time.
            UpstreamFailed, RateLimited, InvalidRequest: what came is no answer (`replies.py`).
        """
        rules = self._rules
        times = _Times(rules, self._clock)
        with self._watched() as came:
            response = await times.within(self._pool.handle_async_request(self._request(call)))
            try:
                if response.status != 200:
                    came()
                    raise await self._refusal(response, times)
                require_kind(_fields(response), call)
                size = 0
                async with aclosing(_chunks(response)) as chunks:
                    while chunk := await times.within(anext(chunks, b"")):
                        came()
                        times.has_come()
                        size += len(chunk)
                        if size > rules.max_bytes:
                            raise UpstreamFailed(f"the language model sent more than {rules.max_bytes} bytes")
                        yield chunk
            finally:
                await response.aclose()

    @contextmanager
    def _watched(self) -> Iterator[Callable[[], None]]:
        """Around one answer. The breaker hears once whether the upstream answers: whoever reads it calls what this
        yields when something came.
        """
        self._require_closed()
        is_probe = self.breaker.state is State.HALF_OPEN
        is_told = False

        def tell(verdict: Callable[[float], None]) -> None:
            nonlocal is_told
            if not is_told:
                is_told = True
                verdict(self._clock())

        self.under_way += 1
        try:
            yield lambda: tell(self.breaker.succeeded)
        except UpstreamSilent:
            tell(self.breaker.failed)
            raise
        except httpcore.PoolTimeout:
            raise Overloaded("as many texts are being made as there may be") from None
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            tell(self.breaker.failed)
            raise _failure(error) from error
        finally:
            self.under_way -= 1
            if is_probe:  # of which nothing was heard: who waited for it has left
                tell(self.breaker.failed)

    def _require_closed(self) -> None:
        now = self._clock()
        if self.breaker.state is State.CLOSED or self.breaker.may_probe(now):
            return
        wait_s = max(1, math.ceil(self.breaker.pause_left_s(now)))
        raise Unavailable("the language model did not answer lately, and is left alone for a while", wait_s)

    def _request(self, call: UpstreamCall) -> httpcore.Request:
        address, rules = self._rules.address, self._rules
        return httpcore.Request(
            "POST",
            httpcore.URL(scheme=address.scheme, host=address.host, port=address.port, target=address.path + call.path),
            headers=[
                *self._headers,
                ("Accept", MEDIA_TYPE if call.streams else JSON),
                ("Content-Length", str(len(call.body))),
            ],
            content=call.body,
            extensions={"timeout": {"connect": rules.connect_s, "pool": rules.connect_s, "write": rules.gap_s}},
        )

    async def _refusal(self, response: httpcore.Response, times: _Times) -> TandemError:
        body = b""
        async with aclosing(_chunks(response)) as chunks:
            while len(body) < ERROR_BYTES and (chunk := await times.within(anext(chunks, b""))):
                body += chunk
        return refusal_of(response.status, _fields(response), body)


class _Times:
    """How long the upstream may be silent: all in all until its first byte, and then whenever it is waited for. While a
    caller is slow to take what came, nobody waits for the upstream."""

    def __init__(self, rules: UpstreamRules, clock: Callable[[], float]) -> None:
        self._rules = rules
        self._clock = clock
        self._began_at = clock()
        self._has_come = False

    def has_come(self) -> None:
        """The first byte, or a later one."""
        self._has_come = True

    async def within(self, step: Awaitable[T]) -> T:
        """The result of `step`. Raises UpstreamSilent."""
        rules, passed_s = self._rules, self._clock() - self._began_at
        left_s = rules.gap_s if self._has_come else rules.first_s - passed_s
        total_s = rules.total_s - passed_s
        try:
            async with asyncio.timeout(min(left_s, total_s)):
                return await step
        except TimeoutError:
            if total_s < left_s:
                raise UpstreamSilent(rules.total_s, "did not end its answer") from None
            if self._has_come:
                raise UpstreamSilent(rules.gap_s, "did not go on with its answer") from None
            raise UpstreamSilent(rules.first_s, "did not begin to answer") from None


async def _chunks(response: httpcore.Response) -> AsyncGenerator[bytes, None]:
    async for chunk in response.aiter_stream():
        if chunk:
            yield chunk


def _fields(response: httpcore.Response) -> dict[str, str]:
    """Names in small letters; of one that comes twice, the last."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}


def _failure(error: Exception) -> UpstreamFailed:
    """What is told of a broken connection. A parser's own words may quote what came, and are left out."""
    if isinstance(error, httpcore.ConnectError | httpcore.ConnectTimeout):
        return UpstreamFailed("the language model cannot be reached", str(error) or type(error).__name__)
    if isinstance(error, httpcore.ProtocolError):
        return UpstreamFailed("the language model did not answer, or broke off", type(error).__name__)
    return UpstreamFailed("the connection to the language model broke", type(error).__name__)
