"""The socket that callers connect to: made once by `tandem serve`, shared by all its workers.

What the kernel has accepted waits in the socket's one queue, so a worker that dies or is replaced takes none of it
along. Closing the socket does: whoever is in the queue then is reset. So the gate is closed first, the queue is
emptied, and only then the socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import select
import socket
import struct
import sys
from typing import Final

# Connections that the kernel may accept before a worker takes them; it has a limit of its own (somaxconn).
BACKLOG: Final = 2048

_SO_ATTACH_FILTER: Final = 26
_ALL: Final = 0xFFFF
# A classic BPF program over the TCP header: (operation, jump if true, jump if false, operand).
# It drops segments with SYN and without ACK, which open connections, and lets every other pass.
_NO_MORE: Final = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # then drop
    (0x06, 0, 0, _ALL),  # else pass
)


def listen(host: str, port: int) -> socket.socket:
    """Raises OSError where somebody else listens, or nobody can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # What is accepted inherits it. Without it an answer waits for the caller's delayed acknowledgement, 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def close_gate(listener: socket.socket) -> None:
    """From now on nobody new gets into the queue, where the kernel can do that (Linux); who is there stays.

    A client that tries gets no answer, tries again within a second, as TCP does, and is then refused by the closed
    socket, or accepted by who listens next.
    """
    if sys.platform != "linux":
        return
    program = b"".join(struct.pack("HBBI", *step) for step in _NO_MORE)
    memory = ctypes.create_string_buffer(program)  # must live until the kernel has read it
    option = struct.pack("HP", len(_NO_MORE), ctypes.addressof(memory))
    with contextlib.suppress(OSError):  # a kernel without it: as elsewhere, the last instant is a race
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)


def refuse(listener: socket.socket) -> None:
    """From now on callers are refused at once, whatever other processes still have this socket open."""
    with contextlib.suppress(OSError):  # closed already, or a system that does not do this to a listening socket
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def is_empty(listener: socket.socket) -> bool:
    """Whether nobody waits to be taken by a worker."""
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    return not poller.poll(0)
