"""Granian, except that its workers share one socket, and are replaced without cutting anybody off."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from typing import Any, Final

from granian import net
from granian.server.mp import MPServer

from service.entrypoints.drain import DRAIN
from service.entrypoints.listener import BACKLOG
from service.entrypoints.worker import end_with_parent

# A new worker has so long to start before the old one is told to go; connections wait in the shared queue.
START_S: Final = 3.5
# Kept-alive connections are closed with their next answer, for so long.
LINGER_S: Final = 1.0
# One that ends sooner than this after its start is started again only after a pause.
SHORT_LIFE_S: Final = 5.0
PAUSE_S: Final = 1.0


class Supervisor(MPServer):
    def __init__(self, target: str, listener: socket.socket, **options: Any) -> None:
        host, port = listener.getsockname()[:2]
        super().__init__(target, address=host, port=port, **options)
        self._listener = listener

    def pids(self) -> list[int]:
        return [worker.inner.pid for worker in self.wrks if worker.inner.pid is not None]

    def _init_shared_socket(self) -> None:
        # Granian would let each worker listen on its own (SO_REUSEPORT), and who waits for one that dies is lost.
        held: Any = net
        shared: Any = self
        shared._ssp = None
        shared._shd = held.SocketHolder(self._listener.fileno(), False, BACKLOG)
        shared._sfd = self._listener.fileno()
        shared._sso = self._listener

    def _spawn_worker(self, *arguments: Any, **options: Any) -> Any:
        if self.wrks:  # those that follow the first take connections when they can answer
            os.environ["TANDEM_LOAD_FIRST"] = "true"
        return super()._spawn_worker(*arguments, **options)

    def _respawn_workers(self, workers: Sequence[int], spawn_target: Any, target_loader: Any, delay: float = 0) -> None:
        """As Granian's own, which neither lets the old one's connections end, nor survives two deaths in a row."""
        for index in workers:
            old: Any = self.wrks[index]
            if not old.is_alive() and time.monotonic() - old.birth < SHORT_LIFE_S:
                time.sleep(PAUSE_S)
            new: Any = self._spawn_worker(index, spawn_target, target_loader)
            new.start()
            self.wrks[index] = new
            if old.is_alive():
                time.sleep(START_S)
                self._retire(old)
        self._metrics.incr_spawn(len(workers))

    def _retire(self, worker: Any) -> None:
        os.kill(worker.inner.pid, DRAIN)
        time.sleep(LINGER_S)
        worker.terminate()
        worker.join(self.workers_kill_timeout)
        if worker.is_alive():
            worker.kill()
            worker.join()


def serve_wsgi(*arguments: Any) -> None:
    """A worker's whole life."""
    end_with_parent()
    MPServer._spawn_wsgi_worker(*arguments)
