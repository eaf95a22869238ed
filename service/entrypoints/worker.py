"""What a worker process owes to the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from multiprocessing import parent_process
from typing import Final

from service.assembly import Tandem
from service.entrypoints.drain import DRAIN

_PR_SET_PDEATHSIG: Final = 1

# How long a thread that computes in Python may keep the interpreter from the others (CPython's own: 5 ms). Whoever
# reads and writes loses it at every system call, and waits so long until it is given back: with 5 ms, at three times
# the load that a core can bear, a refusal took 2 to 10 ms; with half of one, 0.6 (`benchmarks/overload.py`).
SWITCH_S: Final = 0.0005


def drain_when_told(tandem: Tandem) -> None:
    """For a service in a process of its own: from now on it drains when the signal comes."""
    if threading.current_thread() is threading.main_thread():  # nobody else may set handlers
        signal.signal(DRAIN, lambda number, frame: tandem.drain())


def share_interpreter() -> None:
    """For a process of our own: threads that answer do not wait for those that compute."""
    sys.setswitchinterval(SWITCH_S)


def end_with_parent() -> None:
    """This process of `multiprocessing` gets SIGTERM when the one that started it dies, however that happens.

    On Linux; elsewhere nothing happens.

    Else the workers of a killed supervisor would hold the port, and answer for ever.
    """
    parent = parent_process()
    if sys.platform != "linux" or parent is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent.pid:  # it was faster
        os.kill(os.getpid(), signal.SIGTERM)
