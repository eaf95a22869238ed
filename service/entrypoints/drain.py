"""From the first signal to the end of the process, in the one that `tandem serve` runs in.

    SIGTERM ── workers are told: not ready, every answer closes its connection; all else goes on
      │ drain_s
      ├─ the gate closes: nobody new is accepted, and whoever was is taken by a worker
      ├─ the web server's own end: what is under way finishes, and whoever comes is refused
      │ grace_s after the signal
      └─ what is still under way is given up, and the process ends

SIGINT, which a person sends, begins at the web server's own end. A second signal, of either kind, gives up at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, Final

from service.entrypoints.listener import close_gate, is_empty, refuse
from service.settings import Settings

_log = logging.getLogger("tandem.drain")

# Tells a worker to drain. Nobody else sends it, and one that is still starting is not killed by it.
DRAIN: Final = signal.SIGURG
# After the gate has closed: a connection that was accepted last has so long until its request is there. Then workers
# that were told to end have so long until they accept nobody.
SETTLE_S: Final = 0.5
# Servers that were told to give up have so long to clean up after themselves.
PARTING_S: Final = 2.0
LOOK_AGAIN_S: Final = 0.02


class Drain:
    """Stands before the web server's own handlers of SIGTERM and SIGINT.

    Args:
        workers: process ids of those that answer.
        give_up: ends what is under way; by default the workers are killed.
    """

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        workers: Callable[[], Iterable[int]],
        give_up: Callable[[], None] | None = None,
    ) -> None:
        self._drain_s = settings.drain_s
        self._grace_s = settings.grace_s
        self._listener = listener.dup()  # web servers close theirs
        self._workers = workers
        self._give_up = give_up or (lambda: _send(workers(), signal.SIGKILL))
        self._servers_own: dict[int, Any] = {}
        self._owner = os.getpid()
        self._has_begun = False
        self._hurry = threading.Event()

    def install(self) -> None:
        """To be called on the main thread, when the web server has set its handlers."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._servers_own[number] = signal.signal(number, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a fork that is not yet a worker
            sys.exit(0)
        if self._has_begun:
            self._hurry.set()
            return
        self._has_begun = True
        threading.Thread(target=self._see_out, args=(number, time.monotonic()), name="drain", daemon=True).start()

    def _see_out(self, number: int, began: float) -> None:
        if number == signal.SIGTERM and self._drain_s:
            _log.info("draining for %g s", self._drain_s)
            _send(self._workers(), DRAIN)
            self._hurry.wait(self._drain_s)
            self._close(began + self._grace_s)
        close_gate(self._listener)
        self._servers_own[number](number, None)
        self._hurry.wait(SETTLE_S)  # until no worker accepts, for whom the closed socket would be an error
        refuse(self._listener)
        if self._hurry.wait(max(0.0, began + self._grace_s - time.monotonic())):
            _log.warning("a second signal: what is under way is given up")
        else:
            _log.error("what is still under way after %g s is given up", self._grace_s)
        self._give_up()
        time.sleep(PARTING_S)
        os._exit(1)

    def _close(self, until: float) -> None:
        close_gate(self._listener)
        self._hurry.wait(SETTLE_S)
        while not is_empty(self._listener) and time.monotonic() < until and not self._hurry.wait(LOOK_AGAIN_S):
            pass


def _send(workers: Iterable[int], number: signal.Signals) -> None:
    for pid in list(workers):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
