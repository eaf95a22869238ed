"""How gunicorn's workers write what the app answers: its head together with the first piece of its body.

Each call of the system is a moment at which a thread may lose the interpreter to one that computes. A refusal written
in two took a thread half as long again as in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from gunicorn import util
from gunicorn.http.wsgi import Response

from service.entrypoints.limits import LIVES

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class Reply(Response):  # type: ignore[misc]
    """Its head waits for the first piece, or for the end."""

    sock: Any
    _head = b""

    def send_headers(self) -> None:
        if self.headers_sent:
            return
        sock, self.sock = self.sock, _Kept()
        try:
            super().send_headers()
        finally:
            self._head, self.sock = self.sock.data, sock

    def _emit_body(self, data: bytes) -> None:
        if not self._head:
            super()._emit_body(data)
            return
        sock, self.sock = self.sock, _Kept(self._head)
        self._head = b""
        try:
            super()._emit_body(data)
        finally:
            kept, self.sock = self.sock.data, sock
        util.write(sock, kept)

    def close(self) -> None:
        self.send_headers()
        if self._head:
            head, self._head = self._head, b""
            util.write(self.sock, head)
        super().close()


class _Kept:
    """Takes what is meant for a socket."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    def sendall(self, data: bytes) -> None:
        self.data += data


def whole(app: WSGIApplication) -> WSGIApplication:
    """The app, whose answers are written so."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # gunicorn makes it, and lets nobody say of which class.
        reply: Any = getattr(start_response, "__self__", None)
        if type(reply) is Response:
            reply.__class__ = Reply
        return app(environ, start_response)

    return answer


def telling(app: WSGIApplication, lives: Callable[[], object]) -> WSGIApplication:
    """The app, which calls `lives` with each piece of a long answer, and may do so while it waits for one."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ[LIVES] = lives
        body = app(environ, start_response)
        return body if isinstance(body, tuple) else _Telling(body, lives)  # a tuple is there as a whole

    return answer


class _Telling:
    def __init__(self, body: Iterable[bytes], lives: Callable[[], object]) -> None:
        self._body = body
        self._lives = lives

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._body:
            self._lives()
            yield piece

    def close(self) -> None:
        if hasattr(self._body, "close"):
            self._body.close()
