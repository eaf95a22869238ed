from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.assembly import Tandem
from service.entrypoints.drain import DRAIN
from service.entrypoints.worker import drain_when_told
from service.settings import Settings

# A process that starts another by `multiprocessing`, tells who it is, and is killed.
PARENT = """
import multiprocessing, os, signal, time
from service.entrypoints.worker import end_with_parent

def child():
    end_with_parent()
    print(os.getpid(), flush=True)
    time.sleep(1000)

multiprocessing.get_context("fork").Process(target=child).start()
time.sleep(1000)
"""


def test_a_service_that_is_told_drains(tmp_path: Path) -> None:
    before = signal.getsignal(DRAIN)
    try:
        tandem = Tandem(Settings(models=tmp_path))
        drain_when_told(tandem)

        os.kill(os.getpid(), DRAIN)

        assert tandem.api.is_closing
        assert not tandem.server.is_ready()
    finally:
        signal.signal(DRAIN, before)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_a_worker_ends_with_the_process_that_started_it() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())

        parent.kill()
        rest = parent.stdout.read()  # until the worker, which has it open as well, has ended

    assert worker and not rest
