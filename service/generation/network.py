"""Connects to the upstream, and to no address that its name only pretends to have."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future

import httpcore

from service.generation.address import allowed, as_address, kind_of, kinds_of_name

# Addresses of a host's name at this moment. Raises OSError.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Resolves a name once for each connection, and connects to the very addresses that it has looked at.

    What kind of network a name was in when it was first asked, it stays in: one that was public, and is private all of
    a sudden, is somebody's attempt to reach what only this machine can.
    """

    def __init__(
        self, host: str, network: httpcore.AsyncNetworkBackend | None = None, resolve: Resolve | None = None
    ) -> None:
        self._kinds = kinds_of_name(host)
        self._network = network or httpcore.AnyIOBackend()
        self._resolve = resolve or addresses_of

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """
        Raises:
            ConnectError: the name is unknown, none of its addresses may be asked, or nobody answers there.
            ConnectTimeout: it took longer than `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                found = allowed(await self._resolve(host, port), self._kinds)
        except TimeoutError:
            raise httpcore.ConnectTimeout("its name was not resolved in time") from None
        except OSError as error:
            raise httpcore.ConnectError(f"its name cannot be resolved: {error.strerror}") from error
        if not found:
            raise httpcore.ConnectError("its name has an address that must not be asked")
        self._kinds = self._kinds or frozenset(kind for address in found if (kind := kind_of(address)) is not None)
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in found:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = failure or error
        assert failure is not None
        raise failure

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def addresses_of(host: str, port: int) -> Sequence[str]:
    """Without asking anybody where it can be told from the name. Raises OSError.

    Nobody can end a look-up that hangs. Each has a thread of its own, which is left behind then: in the event loop's
    few, all else that they do would wait, large bodies of predictions among it, and the end of the service, too.
    """
    if (known := as_address(host)) is not None:
        return known
    found: Future[Sequence[str]] = Future()
    threading.Thread(target=_look_up, args=(found, host, port), name="tandem-resolver", daemon=True).start()
    return await asyncio.wrap_future(found)


def _look_up(found: Future[Sequence[str]], host: str, port: int) -> None:
    if not found.set_running_or_notify_cancel():
        return
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        found.set_exception(error)
    else:
        found.set_result(list(dict.fromkeys(str(address[0]) for *_, address in entries)))
