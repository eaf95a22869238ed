"""gRPC beside a web framework: one server in each process, on a thread and an event loop of its own.

Processes share the port (SO_REUSEPORT), and the kernel deals connections out to them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from concurrent.futures import Future
from types import FrameType
from typing import Final
from weakref import WeakSet

import grpc

from service.assembly import Tandem
from service.core.errors import TandemError
from service.entrypoints.grpc_calls import Calls
from service.protocols.rpc import Rpc
from service.protocols.rpcs import table

# As long as web servers give to what is under way at SIGTERM; orchestrators kill after 30 seconds by default.
GRACE_S: Final = 25.0

# Calls that came and are not begun, of a process. Past so many grpc cancels what comes, and of 1000 some, unless told
# otherwise; what is begun and waits for the model is bounded by the queues, which say that trying again helps.
PENDING: Final = 10_000

# The largest number that grpc takes for a size.
_LARGEST: Final = 2**31 - 1


class CannotListen(TandemError):
    """gRPC cannot be answered in this process; the message says what to change."""

    title = "Cannot listen"


class GrpcServer:
    """Starts and stops with the service that it is beside (`Tandem.attach`).

    grpc does not survive a fork: it starts in the processes that answer, not in one that forks them first, and a
    child of a process that answers has none.
    """

    def __init__(self, tandem: Tandem) -> None:
        self._server = tandem.server
        self._settings = tandem.settings
        host = f"[{tandem.settings.grpc_host}]" if ":" in tandem.settings.grpc_host else tandem.settings.grpc_host
        self._address = f"{host}:{tandem.settings.grpc_port}"
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Returns when callers can connect.

        Raises:
            CannotListen: the address is not ours to listen on, or there are no threads.
        """
        if self._thread is not None or _forks_first():
            return
        if _has_no_threads():
            raise CannotListen("gRPC needs threads, which gevent replaces: use --worker-class gthread")
        started: Future[None] = Future()
        thread = threading.Thread(target=self._run, args=(started,), name="tandem-grpc", daemon=True)
        thread.start()
        started.result()
        self._thread, self._process = thread, os.getpid()
        _running.add(self)

    def stop(self) -> None:
        """What was accepted is answered, for up to GRACE_S."""
        if self._thread is None or self._process != os.getpid():
            return
        self._server.drain()  # health says so while the last calls are answered
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = None
        _running.discard(self)

    def _run(self, started: Future[None]) -> None:
        try:
            asyncio.run(self._serve(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(self, started: Future[None]) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        settings = self._settings
        calls = Calls(self._server, timeout_s=settings.timeout_s, model_control=settings.model_control)
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", min(settings.max_body_bytes, _LARGEST)),
                ("grpc.max_send_message_length", _LARGEST),
                ("grpc.server.max_pending_requests", PENDING),
                ("grpc.server.max_pending_requests_hard_limit", PENDING),
            ]
        )
        for service, rpcs in _by_service(table(settings.dialects)).items():
            handlers = {rpc.method: calls.handler(rpc) for rpc in rpcs}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        try:
            server.add_insecure_port(self._address)
            await server.start()
        except RuntimeError:
            raise CannotListen(f"cannot listen on {self._address} for gRPC") from None
        started.set_result(None)
        await self._stopping.wait()
        calls.end()
        await server.stop(GRACE_S)


def _by_service(rpcs: tuple[Rpc, ...]) -> dict[str, list[Rpc]]:
    services: dict[str, list[Rpc]] = {}
    for rpc in rpcs:
        services.setdefault(rpc.service, []).append(rpc)
    return services


def _forks_first() -> bool:
    """Whether this is gunicorn's arbiter, which loads the app before it forks its workers (--preload)."""
    names: set[str] = set()
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == "gunicorn.arbiter":
            names.add(frame.f_code.co_name)
        frame = frame.f_back
    return bool(names) and "spawn_worker" not in names


def _has_no_threads() -> bool:
    """Whether what is called a thread is one of gevent's greenlets, of which grpc would block all at once."""
    gevent = sys.modules.get("gevent.monkey")
    return gevent is not None and bool(gevent.is_module_patched("threading"))


# Flask has no event for its end, so what is running is stopped at that of the process: before the pools of threads
# are, which compute the last answers. They register with the same hook, earlier; processes of `multiprocessing`,
# as Granian's workers are, call it as well, but none of `atexit`.
_running: Final[WeakSet[GrpcServer]] = WeakSet()


def _stop_all() -> None:
    for server in list(_running):
        server.stop()


threading._register_atexit(_stop_all)  # type: ignore[attr-defined]
