"""Waiting for an answer that takes long, under WSGI: its caller may leave meanwhile.

Where the server hands over the connection, as gunicorn does, the thread that waits looks at it now and then. Nobody
else reads it meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from service.entrypoints.limits import LIVES
from service.protocols.http import HttpRequest, Reply

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# Whoever leaves ends the work for it within a second; a look takes some microseconds.
LOOK_EVERY_S: Final = 0.3


class CallerLeft(ConnectionResetError):
    """Nobody is there to be answered. Raised into gunicorn, it ends the connection, and no log tells of it."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the caller has left")


def wait_for(reply: Future[Reply], http: HttpRequest, environ: WSGIEnvironment) -> Reply:
    """The result of `reply`. Where its work can be given up, that is seen to while it is waited for.

    Raises:
        TimeoutError: it was not there by the deadline of `http`.
        CallerLeft: the caller has closed the connection, or its side of it, which uvicorn takes for the same.
    """
    connection, lives = watched_connection(environ), environ.get(LIVES)
    while http.work is not None and http.deadline.at - time.monotonic() > LOOK_EVERY_S:
        with contextlib.suppress(TimeoutError):
            return reply.result(LOOK_EVERY_S)
        if lives is not None:
            lives()
        if connection is not None and has_left(connection) and not reply.done():
            raise CallerLeft
    return reply.result(http.deadline.at - time.monotonic())


def has_left(connection: socket.socket) -> bool:
    """Whether the other side sends no more. Waits for nothing and takes nothing: what has come is the next request."""
    timeout_s = connection.gettimeout()
    connection.settimeout(0)
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:  # reset
        return True
    finally:
        connection.settimeout(timeout_s)


def watched_connection(environ: WSGIEnvironment) -> socket.socket | None:
    """That of a request, where it can be looked at. Behind TLS only reading would tell."""
    connection = environ.get("gunicorn.socket")
    return None if isinstance(connection, ssl.SSLSocket) else connection
