"""A worker of gunicorn's whose loop turns when a test says so, and those who ask it."""

from __future__ import annotations

import os
import re
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from flask import Flask
from gunicorn import config
from gunicorn.glogging import Logger

from service.entrypoints.gunicorn_workers import worker_of
from tests.service.entrypoints.test_gunicorn_workers import LIMITS


class Server:
    """A worker of gunicorn's whose loop turns when the test says so."""

    def __init__(self, app: Flask, resources: ExitStack, **limits: Any) -> None:
        self.listener = resources.enter_context(socket.create_server(("127.0.0.1", 0)))
        known = replace(LIMITS, max_connections=40, max_url_bytes=4096, max_headers_bytes=16_384, write_timeout_s=1)
        settings = config.Config()
        for name, value in {"threads": 4, "keepalive": 5, "worker_connections": 41}.items():
            settings.set(name, value)
        kind = worker_of("gthread", replace(known, **limits))
        source = SimpleNamespace(wsgi=lambda: app)
        self.worker: Any = kind(1, os.getppid(), [self.listener], source, 30, settings, Logger(settings))
        resources.callback(self.worker.tmp.close)
        self.worker.tpool = self.worker.get_thread_pool()
        resources.callback(self.worker.tpool.shutdown)
        self.worker.poller = resources.enter_context(selectors.DefaultSelector())
        queue = self.worker.method_queue
        queue.init()
        resources.callback(queue.close)
        self.worker.poller.register(queue.fileno(), selectors.EVENT_READ, queue.run_callbacks)
        self.worker.load_wsgi()
        self.worker.set_accept_enabled(True)
        self.on_threads = 0  # requests that got one
        hand_over = self.worker.enqueue_req

        def counted(conn: Any) -> None:
            self.on_threads += 1
            hand_over(conn)

        self.worker.enqueue_req = counted
        self._callers: list[Caller] = []
        resources.callback(self._end)

    def _end(self) -> None:
        for caller in self._callers:
            caller.connection.close()
        self.until(lambda: not (self.worker.nr_conns or self.worker._leaving))

    def connect(self) -> Caller:
        self._callers.append(Caller(self, socket.create_connection(self.listener.getsockname())))
        return self._callers[-1]

    def in_order(self, key: Callable[[selectors.SelectorKey], bool]) -> None:
        """From now on, what comes in one turn is read in this order."""
        select = self.worker.poller.select
        self.worker.poller.select = lambda timeout: sorted(select(timeout), key=lambda event: key(event[0]))

    def turn(self, seconds: float = 0.0) -> None:
        self.worker.wait_for_and_dispatch_events(seconds)

    def ask(self, *packets: bytes) -> tuple[bytes, bool]:
        """What comes on a connection of its own, and whether it was ended.

        But for what may differ: the order of the fields, how the status is spelt, the date and ids of ours.
        """
        caller = self.connect()
        for packet in packets:
            caller.send(packet)
            self.turn(0.05)
        self.until(lambda: caller.has_answer())
        for _ in range(5):
            self.turn(0.01)
        caller.look()
        head, _, body = re.sub(rb"Date: [^\r]+|[0-9a-f]{32}", b"-", caller.received).partition(b"\r\n\r\n")
        status, *fields = head.split(b"\r\n")
        return b"\r\n".join([status.upper(), *sorted(fields), body]), caller.is_ended

    def until(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < until, "nothing came"
            self.turn(0.01)


class Caller:
    def __init__(self, server: Server, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""
        self.is_ended = False
        self._server = server
        connection.setblocking(False)

    def send(self, data: bytes) -> None:
        while data:
            try:
                data = data[self.connection.send(data) :]
            except BlockingIOError:
                self._server.turn(0.01)

    def look(self) -> None:
        while True:
            try:
                data = self.connection.recv(65_536)
            except BlockingIOError:
                return
            if not data:
                self.is_ended = True
                return
            self.received += data

    def has_answer(self, count: int = 1) -> bool:
        """All of so many answers."""
        self.look()
        left = self.received
        for _ in range(count):
            head, end, left = left.partition(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 100"):
                head, end, left = left.partition(b"\r\n\r\n")
            length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
            size = int(length[1]) if length else 0
            if not end or len(left) < size:
                return self.is_ended
            left = left[size:]
        return True
