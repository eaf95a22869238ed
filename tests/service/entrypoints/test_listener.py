from __future__ import annotations

import socket
import sys

import pytest

from service.entrypoints.listener import close_gate, is_empty, listen, refuse


@pytest.fixture
def listener() -> socket.socket:
    return listen("127.0.0.1", 0)


def call(listener: socket.socket, timeout_s: float = 30) -> socket.socket:
    return socket.create_connection(listener.getsockname(), timeout=timeout_s)


def test_somebody_who_waits_is_seen(listener: socket.socket) -> None:
    with listener:
        before = is_empty(listener)
        with call(listener):
            during = is_empty(listener)
            listener.accept()[0].close()
            after = is_empty(listener)

    assert (before, during, after) == (True, False, True)


def test_a_port_is_not_taken_twice(listener: socket.socket) -> None:
    with listener, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", listener.getsockname()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a socket listens as long as one process has it open")
def test_callers_are_refused_though_others_hold_the_socket(listener: socket.socket) -> None:
    with listener:
        refuse(listener.dup())

        with pytest.raises(ConnectionRefusedError):
            call(listener)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can close the gate of a socket that listens")
def test_behind_the_gate_everybody_is_answered_and_nobody_gets_in(listener: socket.socket) -> None:
    with listener, call(listener) as inside:
        close_gate(listener)

        with pytest.raises(TimeoutError):
            call(listener, timeout_s=0.2)
        inside.sendall(b"question")
        accepted = listener.accept()[0]
        with accepted:
            asked = accepted.recv(100)
            accepted.sendall(b"answer")
        answered = inside.recv(100)

        assert (asked, answered) == (b"question", b"answer")
        assert is_empty(listener)
