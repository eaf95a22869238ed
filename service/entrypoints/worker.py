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


def drain_when_told(tandem: Tandem) -> None:
    """For a service in a process of its own: from now on it drains when the signal comes."""
    if threading.current_thread() is threading.main_thread():  # nobody else may set handlers
        signal.signal(DRAIN, lambda number, frame: tandem.drain())


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
