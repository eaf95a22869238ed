"""The order of things; with real servers it is shown in `tests/faults/test_processes_signals.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

# A server whose own handler says that it is asked to end, and ends after so many seconds. It stands in a process of its
# own, because what is given up takes its process along.
SERVER = """
import os, signal, sys, time
from service.entrypoints.drain import DRAIN, Drain
from service.entrypoints.listener import listen
from service.settings import Settings

def say(text):
    print(text, flush=True)

def end(number, frame):
    say(f"server's own {signal.Signals(number).name}")
    globals()["until"] = time.monotonic() + float(sys.argv[3])

until = float("inf")
signal.signal(DRAIN, lambda number, frame: say("drain"))
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
settings = Settings(drain_s=float(sys.argv[1]), grace_s=float(sys.argv[2]))
Drain(settings, listen("127.0.0.1", 0), lambda: [os.getpid()], lambda: say("given up")).install()
say("ready")
while time.monotonic() < until:
    time.sleep(0.01)
say("end")
"""
FOREVER = "1000"


def said(signals: list[signal.Signals], drain_s: str, grace_s: str, ends_after_s: str = "0") -> tuple[list[str], int]:
    """What the server said from its start on, and its exit code. The second signal is sent after the first word."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TANDEM_")}
    command = [sys.executable, "-c", SERVER, drain_s, grace_s, ends_after_s]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        lines = [server.stdout.readline()]
        for number in signals:
            server.send_signal(number)
            lines.append(server.stdout.readline())
        lines += server.stdout.readlines()
        code = server.wait(60)
    return [line.strip() for line in lines if line], code


def test_workers_are_told_before_the_server_ends() -> None:
    assert said([signal.SIGTERM], "0.1", "60") == (["ready", "drain", "server's own SIGTERM", "end"], 0)


def test_without_a_drain_the_server_ends_at_once() -> None:
    assert said([signal.SIGTERM], "0", "60") == (["ready", "server's own SIGTERM", "end"], 0)


def test_an_interrupt_drains_nobody() -> None:
    assert said([signal.SIGINT], FOREVER, FOREVER) == (["ready", "server's own SIGINT", "end"], 0)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_gives_up(second: signal.Signals) -> None:
    lines, code = said([signal.SIGTERM, second], FOREVER, "2000", FOREVER)

    assert lines == ["ready", "drain", "server's own SIGTERM", "given up"]
    assert code == 1


def test_what_outlives_the_grace_is_given_up() -> None:
    assert said([signal.SIGTERM], "0", "0.1", FOREVER) == (["ready", "server's own SIGTERM", "given up"], 1)
