from __future__ import annotations

import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from benchmarks.restarts import Load, connections_of


class Echo(BaseHTTPRequestHandler):
    """Answers the number that it is asked; or the next, or nothing, as the class that inherits says."""

    protocol_version = "HTTP/1.1"
    more = 0
    hangs_up = False

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode().removeprefix('{"x": ').removesuffix("}")
        if self.hangs_up:
            self.close_connection = True
            return
        body = b'{"prediction": %d}' % (int(asked) + self.more)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Wrong(Echo):
    more = 1


class HangsUp(Echo):
    hangs_up = True


@pytest.mark.parametrize(("handler", "sees"), [(Echo, "answered"), (Wrong, "wrong"), (HangsUp, "lost")])
def test_what_comes_of_a_request_is_told_apart(handler: type[Echo], sees: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            with Load(server.server_address[1], 1) as load:
                while not getattr(load.seen, sees):
                    pass
        finally:
            server.shutdown()
            thread.join()

    found = {name for name in ("answered", "wrong", "lost") if getattr(load.seen, name)}
    assert found == {sees}


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="only Linux tells whose connection is whose")
def test_the_connections_of_a_process_are_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as caller:
            before = connections_of(os.getpid(), port)
            with listener.accept()[0]:
                during = connections_of(os.getpid(), port)

            assert (before, during) == (set(), {caller.getsockname()[1]})
