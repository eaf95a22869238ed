"""Messages between a process and the one that owns the device: JSON, a block of memory, sometimes a descriptor.

    "TDM1" | length of the header | length of the inline block | header: JSON, padded | inline block

Lengths are 32-bit little-endian. A block of up to 64 KiB follows inline. A larger one lies in shared memory, and
the header's "at" says where: in a block that both sides keep ({"block": 3, "size": …}, with "capacity" and
a descriptor when it is new) or in a file of its own ({"file": size}, with its descriptor). An answer may lie in
the block of its question ({"yours": size}). Descriptors come with the first byte of their message. Nothing is ever
made of a size that was only claimed: lengths are bounded, files are measured.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import struct
import threading
from typing import Any, Final

import numpy as np
import orjson

from service.runtimes.shared_memory import Block, Pool, UnusableFile, file_of, fill, private_view, shared_view
from service.runtimes.wire import ALIGNMENT, Packing, WireError

_MAGIC: Final = b"TDM1"
_PREFIX: Final = struct.Struct("<4sII")
INLINE_BYTES: Final = 64 * 1024
_HEADER_BYTES: Final = 4 * 1024 * 1024  # some 50,000 columns
_MOST_BLOCKS: Final = 4096
_FD_SPACE: Final = socket.CMSG_SPACE(array.array("i").itemsize)
_CLOEXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

Message = dict[str, Any]


class ChannelClosed(Exception):
    """The other side is gone, or takes nothing any more."""


class Garbage(Exception):
    """What came is no message of ours. The channel is out of step and must be closed."""


class Channel:
    """One end of a connection. Any thread may send; one thread receives."""

    def __init__(self, connection: socket.socket, send_timeout_s: float = 5.0) -> None:
        """A message that the other side does not take within `send_timeout_s` closes the channel."""
        self.pool = Pool()
        self._socket = connection
        self._sending = threading.Lock()
        self._theirs: dict[int, memoryview] = {}
        seconds = int(send_timeout_s)
        timeval = struct.pack("ll", seconds, int((send_timeout_s - seconds) * 1e6))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)

    def send(self, message: Message, packing: Packing | None = None, block: Block | None = None) -> None:
        """Send `message` with what was packed, in `block` if one was taken from the pool for it.

        Raises:
            ChannelClosed: it did not arrive.
            WireError: its header is too long; nothing was sent.
        """
        if packing is None or packing.size == 0:
            self._write(message, b"")
        elif block is not None:
            block.fill(packing.parts)
            place = {"block": block.number, "size": packing.size}
            fd = block.introduce()
            if fd is None:
                self._write({**message, "at": place}, b"")
            else:
                self._write_with(fd, {**message, "at": {**place, "capacity": block.capacity}})
        elif packing.size <= INLINE_BYTES:
            self._write(message, b"".join(packing.parts))
        else:
            self._write_with(file_of(packing.parts), {**message, "at": {"file": packing.size}})

    def answer_in(self, number: int | None, message: Message, packing: Packing) -> None:
        """Send an answer, in the block that the question came in where it fits. Raises as `send`."""
        room = self._theirs.get(number) if number is not None else None
        if room is None or not INLINE_BYTES < packing.size <= len(room):
            return self.send(message, packing)
        fill(room, [memoryview(bytes(part)) if _overlap(part, room) else part for part in packing.parts])
        return self._write({**message, "at": {"yours": packing.size}}, b"")

    def receive(self) -> tuple[Message, memoryview]:
        """The next message and its block, which is writable.

        Raises:
            ChannelClosed, Garbage.
        """
        fd = None
        try:
            prefix, fd = self._read_prefix()
            magic, header_length, inline = _PREFIX.unpack(prefix)
            if magic != _MAGIC or header_length > _HEADER_BYTES or inline > INLINE_BYTES:
                raise Garbage("no message of ours")
            body = memoryview(bytearray(header_length + inline))
            self._read_into(body)
            message = orjson.loads(body[:header_length])
            if not isinstance(message, dict):
                raise Garbage("a message that is no object")
            if (at := message.pop("at", None)) is not None:
                return message, self._block_at(message, at, fd)
            if fd is not None:
                raise Garbage("a descriptor that belongs to nothing")
            return message, body[header_length:]
        except (UnusableFile, ValueError, LookupError, TypeError) as error:
            raise Garbage(str(error)) from error
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        finally:
            if fd is not None:
                os.close(fd)

    def has_more(self) -> bool:
        """Whether another message, or the end, can be read without waiting."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def hang_up(self) -> None:
        """End it from any thread: whoever receives gets ChannelClosed, and closes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """By the thread that receives: a descriptor closed under a waiting thread may be somebody else's by then."""
        self.hang_up()
        self._socket.close()

    def _write_with(self, fd: int, message: Message) -> None:
        try:
            self._write(message, b"", fd)
        finally:
            os.close(fd)

    def _write(self, message: Message, inline: bytes, fd: int | None = None) -> None:
        header = orjson.dumps(message)
        header += b" " * (-len(header) % ALIGNMENT)  # so that the arrays behind it are aligned
        if len(header) > _HEADER_BYTES:
            raise WireError("more columns than a message has room for")
        data = _PREFIX.pack(_MAGIC, len(header), len(inline)) + header + inline
        rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        try:
            with self._sending:
                sent = self._socket.sendmsg([data], rights)
                if sent < len(data):
                    self._socket.sendall(memoryview(data)[sent:])
        except OSError as error:
            # A message that was cut in the middle leaves nothing to go on with.
            self.hang_up()
            raise ChannelClosed(str(error)) from error

    def _read_prefix(self) -> tuple[bytes, int | None]:
        """Twelve bytes, and the descriptor that came with them, which is the caller's to close."""
        prefix, fds = b"", array.array("i")
        try:
            while len(prefix) < _PREFIX.size:
                data, ancillary, flags, _ = self._socket.recvmsg(_PREFIX.size - len(prefix), _FD_SPACE, _CLOEXEC)
                for level, kind, content in ancillary:
                    if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                        fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                if not data:
                    raise ChannelClosed("the other side hung up")
                if flags & socket.MSG_CTRUNC or len(fds) > 1:
                    raise Garbage("more descriptors than one")
                prefix += data
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return prefix, fds[0] if fds else None

    def _read_into(self, body: memoryview) -> None:
        while body:
            count = self._socket.recv_into(body)
            if count == 0:
                raise ChannelClosed("the other side hung up")
            body = body[count:]

    def _block_at(self, message: Message, at: dict[str, Any], fd: int | None) -> memoryview:
        if "file" in at and fd is not None:
            return private_view(fd, _size(at["file"]))
        if "yours" in at:
            message["yours"] = _size(at["yours"])
            return memoryview(b"")
        number = message["block"] = _size(at["block"])
        if "capacity" in at:
            if fd is None or number in self._theirs or len(self._theirs) >= _MOST_BLOCKS:
                raise Garbage("a new block without its descriptor, or one too many")
            self._theirs[number] = shared_view(fd, _size(at["capacity"]))
        room, size = self._theirs[number], _size(at["size"])
        if size > len(room):
            raise Garbage("a block that is smaller than what it holds")
        return room[:size]


def _overlap(part: memoryview, room: memoryview) -> bool:
    """An answer can be a view of the very rows that it is about to overwrite."""
    return np.may_share_memory(np.frombuffer(part, np.uint8), np.frombuffer(room, np.uint8))


def _size(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise Garbage("a size that is none")
    return value
