"""gRPC beside a web framework: one server in each process, on a thread and an event loop of its own.

Processes share the port (SO_REUSEPORT), and the kernel deals connections out to them.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
from concurrent.futures import Future
from typing import Final
from weakref import WeakSet

# Read when grpc is first imported: its own lines, of what strangers send, are no lines of our log.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from service.assembly import Tandem
from service.core.errors import TandemError
from service.entrypoints.grpc_calls import Calls
from service.protocols.rpc import Rpc
from service.protocols.rpcs import table
from service.settings import Settings

# As long as web servers give to what is under way at SIGTERM; orchestrators kill after 30 seconds by default.
GRACE_S: Final = 25.0

# Calls that came and are not begun, of a process. Past so many grpc cancels what comes, and of 1000 some, unless told
# otherwise; what is begun and waits for the model is bounded by the queues, which say that trying again helps.
PENDING: Final = 10_000

# Calls of one connection at a time; clients keep further ones back until one has ended. Each may hold a message.
STREAMS: Final = 128

# Headers of one call together, as for HTTP.
METADATA_BYTES: Final = 16 * 1024

# A peer that is gone without a word is noticed after so long.
KEEPALIVE_MS: Final = 60_000
KEEPALIVE_TIMEOUT_MS: Final = 20_000

# A client may ask this often whether the service is there, with or without calls; the third time that it is too soon
# the connection ends.
PING_MS: Final = 10_000

# The largest number that grpc takes for a size.
_LARGEST: Final = 2**31 - 1


class CannotListen(TandemError):
    """gRPC cannot be answered in this process; the message says what to change."""

    title = "Cannot listen"


class GrpcServer:
    """Starts and stops with the service that it is beside (`Tandem.attach`).

    grpc does not survive a fork: a child of a process that answers has none.
    """

    def __init__(self, tandem: Tandem) -> None:
        self._tandem = tandem
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
        if self._thread is not None:
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
        calls = Calls(
            self._server,
            timeout_s=settings.timeout_s,
            model_control=settings.model_control,
            record=self._tandem.figures.call,
            under_way=self._tandem.api.under_way,
            guard=self._tandem.guard,
        )
        server = grpc.aio.server(options=_options(settings))
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


def _options(settings: Settings) -> list[tuple[str, int]]:
    """What grpc bounds for us: messages, by what compressed ones hold; headers; calls and time of a connection."""
    return [
        ("grpc.max_receive_message_length", min(settings.max_body_bytes, _LARGEST)),
        ("grpc.max_send_message_length", _LARGEST),
        # Below the first limit all pass, above the second none does.
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        ("grpc.max_concurrent_streams", STREAMS),
        ("grpc.server.max_pending_requests", PENDING),
        ("grpc.server.max_pending_requests_hard_limit", PENDING),
        ("grpc.max_connection_idle_ms", _ms(settings.grpc_idle_s)),
        ("grpc.max_connection_age_ms", _ms(settings.grpc_age_s)),
        # What was accepted is answered by its deadline.
        ("grpc.max_connection_age_grace_ms", _ms(settings.timeout_s)),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_MS),
        ("grpc.http2.max_ping_strikes", 2),
    ]


def _ms(seconds: float) -> int:
    return math.ceil(seconds * 1000)


def _by_service(rpcs: tuple[Rpc, ...]) -> dict[str, list[Rpc]]:
    services: dict[str, list[Rpc]] = {}
    for rpc in rpcs:
        services.setdefault(rpc.service, []).append(rpc)
    return services


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
