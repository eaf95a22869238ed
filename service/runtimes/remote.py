"""Engines that live in another process: a connection to it, and `RemoteEngine` for each of them.

Many threads ask at once over one connection; a thread of its own reads the answers and hands them out by number.
A process that dies takes nothing along: whoever waits gets DeviceUnavailable at once, and the engine leaves itself
alone until a probe in the background has opened it again and checked its answers.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np

from service.core.contracts import Engine
from service.core.errors import CannotAnswer, TandemError
from service.core.table import Table, Values
from service.runtimes.breaker import Breaker, State
from service.runtimes.channel import INLINE_BYTES, Channel, ChannelClosed, Garbage, Message
from service.runtimes.device_errors import DeviceUnavailable, unpack_error
from service.runtimes.shared_memory import Block
from service.runtimes.wire import Packing, WireError, pack_table, unpack_answers

_log = logging.getLogger(__name__)

# A process that just started has Python and perhaps CUDA to load before it says hello.
_HELLO_S: Final = 60.0


class _Lost(DeviceUnavailable):
    """The connection is gone, and with it every engine that was opened over it."""


class _Asked:
    """A question on its way. `block` is the one it travelled in, which its answer may use too."""

    __slots__ = ("answer", "block")

    def __init__(self, block: Block | None) -> None:
        self.block = block
        self.answer: Future[tuple[Message, memoryview]] = Future()


class Connection:
    """One socket to the process. Safe to call from any thread."""

    def __init__(self, path: Path) -> None:
        """Raises DeviceUnavailable where nobody answers there."""
        self._lock = threading.Lock()
        self._asked: dict[int, _Asked] = {}
        self._numbers = count(1)
        self.is_lost = False
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_HELLO_S)
            connection.connect(str(path))
            self._channel = Channel(connection)
            self._channel.receive()
            connection.settimeout(None)
        except (OSError, ChannelClosed, Garbage) as error:
            connection.close()
            raise _Lost("the process of the device is not there") from error
        threading.Thread(target=self._read, name="device answers", daemon=True).start()

    def ask(self, message: Message, packing: Packing | None, timeout_s: float) -> tuple[Message, memoryview]:
        """The answer to `message`, and its block, which is the caller's.

        Raises:
            DeviceUnavailable: none came.
            WireError: the rows have too many columns to travel.
        """
        block = self._channel.pool.take(packing.size) if packing is not None and packing.size > INLINE_BYTES else None
        asked = _Asked(block)
        number = next(self._numbers)
        with self._lock:
            if self.is_lost:
                raise _Lost("the process of the device is gone")
            self._asked[number] = asked
        try:
            self._channel.send({**message, "id": number}, packing, block)
            return asked.answer.result(timeout_s)
        except ChannelClosed as error:
            raise _Lost("the process of the device takes no requests") from error
        except TimeoutError:
            # The question stays, and its block with it: the other side may still read that.
            raise DeviceUnavailable(f"the device did not answer within {timeout_s:g} seconds") from None
        except WireError:
            with self._lock:
                self._asked.pop(number, None)
            raise

    def tell(self, message: Message) -> None:
        """Send what needs no answer; one that does not arrive is forgotten."""
        with contextlib.suppress(ChannelClosed):
            self._channel.send(message)

    def hang_up(self) -> None:
        self._channel.hang_up()

    def _read(self) -> None:
        try:
            while True:
                message, block = self._channel.receive()
                self._hand_out(message, block)
        except ChannelClosed as error:
            _log.info("the connection to the device's process ended: %s", error)
        except Garbage as error:
            _log.error("the device's process sent what cannot be read: %s", error)
        finally:
            with self._lock:
                self.is_lost = True
                left, self._asked = self._asked, {}
            for asked in left.values():
                asked.answer.set_exception(_Lost("the process of the device ended before it answered"))
            self._channel.close()

    def _hand_out(self, message: Message, block: memoryview) -> None:
        with self._lock:
            asked = self._asked.pop(message["id"], None) if isinstance(message.get("id"), int) else None
        if asked is None:
            return
        if asked.block is not None:
            if "yours" in message:
                block = memoryview(bytearray(asked.block.memory[: message["yours"]]))
            self._channel.pool.give(asked.block)
        asked.answer.set_result((message, block))


class DeviceClient:
    """A process's way to the device's process: one connection, made anew when it is wanted again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._is_closed = False

    def connection(self) -> Connection:
        """Raises DeviceUnavailable. May wait for a process that is just starting: not for request threads."""
        with self._lock:
            if self._connection is None or self._connection.is_lost:
                self._connection = Connection(self._path)
            if self._is_closed:
                self._connection.hang_up()
                raise DeviceUnavailable("the service is stopping")
            return self._connection

    def close(self) -> None:
        """Without the lock, which may be held by somebody who waits for a process that never comes."""
        self._is_closed = True
        if self._connection is not None:
            self._connection.hang_up()


class RemoteEngine:
    """An engine in the device's process. Reentrant: the batcher sits on the other side.

    `check` replays the golden rows on the engine it is given and raises where they disagree; it runs whenever the
    engine was opened, before any request is let through.
    """

    is_reentrant = True

    def __init__(
        self,
        client: DeviceClient,
        spec: dict[str, Any],
        check: Callable[[Engine], object] = lambda engine: None,
        *,
        answer_timeout_s: float = 30.0,
        open_timeout_s: float = 300.0,
        breaker: Breaker | None = None,
    ) -> None:
        """`spec` is what the other side's opener takes: JSON. Nothing is opened yet."""
        self._client = client
        self._spec = spec
        self._check = check
        self._answer_timeout_s = answer_timeout_s
        self._open_timeout_s = open_timeout_s
        self._lock = threading.Lock()
        self._breaker = breaker or Breaker()
        self._opened: _Opened | None = None
        self._is_closed = False

    def check_with(self, check: Callable[[Engine], object]) -> None:
        """From now on, `check` decides whether it comes back: what it must repeat may be known only once it is open."""
        self._check = check

    @property
    def is_available(self) -> bool:
        """Whether a call would be sent at all; asking costs nothing."""
        opened = self._opened
        return opened is not None and not opened.connection.is_lost and self._breaker.state is State.CLOSED

    def open(self) -> None:
        """Have it loaded, warmed up and checked over there.

        Raises:
            DeviceUnavailable: the process is not there. Requests will bring the engine back when it is.
            ArtefactError, and whatever `check` raises: the engine is not to be used.
        """
        connection = self._client.connection()
        message, block = connection.ask({"ask": "open", "spec": self._spec}, None, self._open_timeout_s)
        if "error" in message:
            raise unpack_error(message["error"], block)
        opened = _Opened(connection, message["engine"], self._answer_timeout_s)
        try:
            self._check(opened)
        except BaseException:
            opened.close()
            raise
        with self._lock:
            former, self._opened = self._opened, opened
            is_late = self._is_closed
        if is_late:
            opened.close()
        if former is not None and not former.connection.is_lost:
            former.close()  # it was opened again without having been lost: it is held once

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        """See `core.contracts.Engine`.

        Raises:
            DeviceUnavailable: no answer came, or none is expected at present; another engine must answer.
        """
        opened = self._usable()
        try:
            answers = opened.run(rows, outputs)
        except _Lost:
            self._now(self._breaker.tripped)
            raise
        except DeviceUnavailable:
            self._now(self._breaker.failed)
            raise
        except TandemError:
            self._now(self._breaker.succeeded)  # it refused these rows, but it answered
            raise
        self._now(self._breaker.succeeded)
        return answers

    def close(self) -> None:
        """The other side may let go of it."""
        with self._lock:
            self._is_closed = True
            opened = self._opened
        if opened is not None:
            opened.close()

    def _usable(self) -> _Opened:
        opened = self._opened
        if opened is not None and not opened.connection.is_lost and self._breaker.state is State.CLOSED:
            return opened
        now = time.monotonic()
        with self._lock:
            if self._breaker.state is State.CLOSED:
                self._breaker.tripped(now)
            probes = not self._is_closed and self._breaker.may_probe(now)
            pause_s = self._breaker.pause_left_s(now)
        if probes:
            threading.Thread(target=self._probe, name="device probe", daemon=True).start()
        raise DeviceUnavailable("the device is being brought back", retry_after_s=max(1, round(pause_s)))

    def _probe(self) -> None:
        """No request waits for this one, and none fails with it."""
        try:
            self.open()
        except Exception as error:
            _log.warning("an engine does not come back to the device yet: %s", error)
            self._now(self._breaker.failed)
        else:
            _log.info("an engine is back on the device")
            self._now(self._breaker.succeeded)

    def _now(self, event: Callable[[float], None]) -> None:
        with self._lock:
            event(time.monotonic())


class _Opened:
    """An engine as it was opened over one connection, and lost with it."""

    is_reentrant = True

    def __init__(self, connection: Connection, key: str, timeout_s: float) -> None:
        self.connection = connection
        self._key = key
        self._timeout_s = timeout_s

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        packing = Packing()
        try:
            question = {"ask": "run", "engine": self._key, "outputs": list(outputs), "within_s": self._timeout_s}
            question["rows"] = pack_table(packing, rows)
            message, block = self.connection.ask(question, packing, self._timeout_s)
        except WireError as error:
            raise CannotAnswer(str(error), np.ones(rows.n_rows, dtype=bool)) from error
        try:
            if "error" in message:
                raise unpack_error(message["error"], block)
            return unpack_answers(message["answers"], block)
        except (WireError, LookupError) as error:
            raise DeviceUnavailable("the device's process gave an answer that cannot be read") from error

    def close(self) -> None:
        self.connection.tell({"ask": "close", "engine": self._key})
