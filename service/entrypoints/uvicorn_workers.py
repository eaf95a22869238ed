"""uvicorn, except that nobody is cut off: neither when a worker ends nor when another takes its place."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

import uvicorn
from uvicorn.supervisors import multiprocess

from service.entrypoints.drain import DRAIN
from service.entrypoints.worker import end_with_parent

# Kept-alive connections stay open for so long after the last was accepted: their next request is on its way
# already, or they have none.
LINGER_S: Final = 1.0
# A worker that does not answer its supervisor for so long hangs, and is replaced.
HUNG_S: Final = 10
# Its successor has so long to load its models before it is given up, and the old one kept.
LOAD_S: Final = 120.0
LOOK_AGAIN_S: Final = 0.05


class Server(uvicorn.Server):
    """Closes kept-alive connections with an answer, not between two requests."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        os.kill(os.getpid(), DRAIN)
        if signal.SIGINT not in self._captured_signals:
            await self._linger()
        await super().shutdown(sockets)

    async def _linger(self) -> None:
        for server in self.servers:  # of this process; those that share the socket go on
            server.close()
        until = time.monotonic() + LINGER_S
        while self.server_state.connections and not self.force_exit and time.monotonic() < until:
            await asyncio.sleep(LOOK_AGAIN_S)


class ServerInFront(Server):
    """In a process without a supervisor. `on_started` is called when callers can connect."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_started()

    def give_up(self) -> None:
        self.should_exit = self.force_exit = True


class Worker(multiprocess.Process):
    def target(self, sockets: list[socket.socket] | None = None) -> None:
        self._server = Server(self.config)
        end_with_parent()
        super().target(sockets)

    def start(self) -> None:
        super().start()
        os.environ["TANDEM_LOAD_FIRST"] = "true"  # of those that follow

    def wait_until_ready(self, timeout: float, should_exit: threading.Event | None = None) -> bool:
        return bool(super().wait_until_ready(LOAD_S, should_exit))


class Supervisor(multiprocess.Multiprocess):
    """Workers that follow the first one take connections only when their models are loaded.

    The first says meanwhile that the service lives, and is not ready.
    """

    def init_processes(self) -> None:
        multiprocess.Process = Worker  # type: ignore[misc]  # uvicorn offers no other way
        super().init_processes()

    def pids(self) -> list[int]:
        return [process.pid for process in self.processes if process.pid is not None]
