"""Tandem as a FastAPI app, and as a router for an app that is already there.

uvicorn service.entrypoints.fastapi_app:app          settings from TANDEM_* variables
app.include_router(create_router(Settings(models="models")), prefix="/ml")
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any, cast

from fastapi import APIRouter, FastAPI
from starlette.requests import ClientDisconnect
from starlette.routing import Route as StarletteRoute
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from service import __version__
from service.assembly import Tandem
from service.core.errors import RequestError
from service.entrypoints.fastapi_socket import answer_handshake, refuse_handshake
from service.entrypoints.fastapi_streams import write_duplex, write_stream
from service.entrypoints.fastapi_waiting import wait_for
from service.entrypoints.limits import LARGE_BYTES
from service.entrypoints.turns import LONG_BYTES, Turns
from service.entrypoints.whole import Whole
from service.entrypoints.worker import drain_when_told, share_interpreter
from service.observability.logs import configure_logs, write_by_turns
from service.observability.stray import catch_strays
from service.protocols.api import Api, request_id
from service.protocols.http import DuplexReply, HttpReply, HttpRequest, StreamReply, parse_query
from service.protocols.route import Paths, Route, place, route_of
from service.settings import Settings


def create_app(settings: Settings | None = None) -> FastAPI:
    """A FastAPI app of its own; models load when it starts."""
    tandem = Tandem(settings or Settings())
    # The document and its page come from the route table, the same on both frameworks.
    app = _App(
        title="Tandem",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_telemetry(),
    )
    app.turns = Turns(asyncio.get_running_loop)
    router = _router(tandem, app.turns)
    app.include_router(router)
    app.direct = [route for route in router.routes if isinstance(route, StarletteRoute)]
    app.router.default = _NotFound(tandem.api, app.router.default)
    app.state.tandem = tandem
    return app


def create_router(settings: Settings | None = None, *, tandem: Tandem | None = None) -> APIRouter:
    """Every route of Tandem, for `include_router`; models load with the lifespan of the app it joins."""
    return _router(tandem or Tandem(settings or Settings()), Turns(asyncio.get_running_loop))


def _router(service: Tandem, turns: Turns) -> APIRouter:
    if service.settings.grpc_port is not None:
        from service.entrypoints.grpc_server import GrpcServer  # only then: it takes 20 MiB, and is an extra

        service.attach(GrpcServer(service))

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        service.loop.adopt(asyncio.get_running_loop())
        write_by_turns(service.loop.here)
        service.start()
        yield
        # Waits for what is under way, so it must not hold the event loop.
        await asyncio.to_thread(service.stop)

    router = APIRouter(lifespan=lifespan, redirect_slashes=False)
    for path, methods in service.paths.items():
        # An ASGI callable rather than a function: twice the requests per second, because nothing
        # is parsed that the core parses itself. Without methods, every method arrives here.
        endpoint = _Endpoint(service.api, methods, turns)
        router.routes.append(StarletteRoute(path, endpoint, methods=[], include_in_schema=False))
        if any(route.upgrades for route in methods.values()):
            router.routes.append(WebSocketRoute(path, _Socket(service.api, methods)))
    return router


def _telemetry() -> Any:
    """FastAPI's own traces and metrics, where something is installed that could take them.

    FastAPI looks for it at every request otherwise, which costs a tenth of a short prediction.
    """
    try:
        has_sdk = find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:
        has_sdk = False
    return {} if has_sdk else {"tracing": False, "metrics": False, "logs": False}


class _App(FastAPI):
    """A FastAPI app whose `direct` routes are found before its middleware, unless somebody has added some.

    FastAPI's own middleware turns exceptions into replies, and these routes raise none; its routers match a
    path several times over. Together they take a third of the time of a short prediction.
    """

    direct: Sequence[StarletteRoute] = ()
    turns: Turns

    def build_middleware_stack(self) -> ASGIApp:
        stack = super().build_middleware_stack()
        if self.user_middleware:
            return stack
        return _Direct(self.state.tandem, self.direct, self.turns, stack, self.router.default)

    @property
    def whole(self) -> Whole | None:
        """What answers requests that came whole; None where anything stands before the routes."""
        stack = self.middleware_stack
        return stack.whole if isinstance(stack, _Direct) else None


class _Direct:
    """Looks for the path among `routes`, and leaves every other to the app."""

    def __init__(
        self, tandem: Tandem, routes: Sequence[StarletteRoute], turns: Turns, others: ASGIApp, nobody: ASGIApp
    ) -> None:
        self._endpoints = Paths({route.path: cast(ASGIApp, route.endpoint) for route in routes})
        self._others = others
        self._nobody = nobody
        self.whole = Whole(tandem.api, tandem.paths, turns)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return self._endpoint(scope)(scope, receive, send)

    def _endpoint(self, scope: Scope) -> ASGIApp:
        # Under a root path, Starlette knows which part of the path is the app's.
        if scope["type"] != "http" or scope.get("root_path"):
            return self._others
        path = scope["path"]
        if path.endswith("\n"):  # which `$`, the end of Starlette's patterns, would not see
            return self._nobody
        if (found := self._endpoints.find(path)) is None:
            return self._others
        endpoint, scope["path_params"] = found
        return endpoint


class _Endpoint:
    """All methods of one path."""

    def __init__(self, api: Api, methods: Mapping[str, Route], turns: Turns) -> None:
        self._api = api
        self.methods = methods
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = _request(scope)
        place(http, self.methods)
        if (refused := _misframed(self._api, http, scope)) is not None:
            return await _write(send, refused)
        if (refused := await _admission(self._api, self.methods, http)) is not None:
            return await _write(send, refused, closes=_holds_back(http))
        if not self._reads_pieces(http) and (unread := await self._read(http, receive)) is not None:
            return await _write(send, unread)
        # Nor does a body say how large it will be once it is decompressed.
        if len(http.body) > LARGE_BYTES or "content-encoding" in http.headers:
            answer = await asyncio.to_thread(self._api.answer, self.methods, http)
        elif len(http.body) > LONG_BYTES:
            answer = await self._turns.result(lambda: self._api.answer(self.methods, http))
        else:
            answer = self._api.answer(self.methods, http)
        reply = await wait_for(self._api, http, answer, receive) if isinstance(answer, Future) else answer
        match reply:
            case HttpReply():
                return await _write(send, reply)
            case StreamReply():
                return await write_stream(self._api, http, reply, receive, send)
            case DuplexReply():
                return await write_duplex(self._api, http, reply, scope, receive, send)

    def _reads_pieces(self, http: HttpRequest) -> bool:
        route = route_of(self.methods, http.method)
        return route is not None and route.reads_pieces

    async def _read(self, http: HttpRequest, receive: Receive) -> HttpReply | None:
        """Takes the body; a reply where there is none."""
        try:
            http.body = await _read_body(receive, self._api.max_body_bytes, http.headers.get("content-length"))
        except _TooLarge:
            return self._api.too_large(http)
        except RequestError as error:  # raised by our own protocol under uvicorn
            return self._api.not_received(http, error)
        except ClientDisconnect:
            return self._api.cut_off(http)
        return None


class _Socket:
    """Where WebSockets begin."""

    def __init__(self, api: Api, methods: Mapping[str, Route]) -> None:
        self._api = api
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = _request({**scope, "method": "GET"})
        place(http, self._methods)
        if (refused := _misframed(self._api, http, scope)) is not None:
            return await refuse_handshake(refused, send)
        return await answer_handshake(self._api, self._methods, http, receive, send)


def _misframed(api: Api, http: HttpRequest, scope: Scope) -> HttpReply | None:
    query = scope["query_string"]
    target_bytes = len(scope.get("raw_path") or scope["path"].encode()) + len(query) + bool(query)
    return api.misframed(http, target_bytes, fields=len(scope["headers"]), version=scope.get("http_version", "1.1"))


async def _admission(api: Api, methods: Mapping[str, Route], http: HttpRequest) -> HttpReply | None:
    if api.admission_may_wait:
        return await asyncio.to_thread(api.admit, methods, http)
    return api.admit(methods, http)


def _holds_back(http: HttpRequest) -> bool:
    """Whether the caller waits to be told to send the body: nobody knows if it follows a reply that refuses it.

    So the connection ends with that reply. Any other body is on its way: the server skips it, and finds the next
    request behind it. Closing instead, with bytes of the caller's unread, could lose the reply.
    """
    return "expect" in http.headers


class _NotFound:
    """Answers what no route matches."""

    def __init__(self, api: Api, others: ASGIApp) -> None:
        self._api = api
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._others(scope, receive, send)
        http = _request(scope)
        if (refused := _misframed(self._api, http, scope)) is not None:
            return await _write(send, refused)
        if self._api.admission_may_wait:
            reply = await asyncio.to_thread(self._api.not_found, http)
        else:
            reply = self._api.not_found(http)
        return await _write(send, reply, closes=_holds_back(http))


def _request(scope: Scope) -> HttpRequest:
    headers = _headers(scope["headers"])
    return HttpRequest(
        method=scope["method"],
        path=scope["path"],
        path_params=scope.get("path_params", {}),
        query=parse_query(scope["query_string"].decode("latin-1")),
        headers=headers,
        body=b"",
        request_id=request_id(headers.get("x-request-id")),
        peer=(scope.get("client") or ("",))[0],
    )


def _headers(fields: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """By lower-case name. Repeated ones are one list (RFC 9110, 5.3), as WSGI servers hand them over."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in fields}
    if len(headers) != len(fields):
        for name in headers:
            headers[name] = ",".join(v.decode("latin-1") for n, v in fields if n.decode("latin-1") == name)
    return headers


class _TooLarge(Exception):
    """Raised as soon as it is known."""


async def _read_body(receive: Receive, limit: int, declared: str | None) -> bytes:
    """The whole body. Raises _TooLarge beyond `limit` bytes, and ClientDisconnect where it breaks off."""
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise _TooLarge
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _TooLarge
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


async def _write(send: Send, reply: HttpReply, *, closes: bool = False) -> None:
    headers = [
        (b"content-type", reply.content_type.encode("latin-1")),
        (b"content-length", b"%d" % len(reply.body)),
        *[(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()],
    ]
    if closes:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def __getattr__(name: str) -> Any:
    """`app` is built when a web server asks for it, not when this module is imported for `create_app`."""
    if name != "app":
        raise AttributeError(name)
    settings = Settings()
    configure_logs(settings.log_format, settings.log_level)
    if settings.log_format == "json":
        catch_strays()
    globals()["app"] = create_app(settings)
    share_interpreter()
    drain_when_told(globals()["app"].state.tandem)
    return globals()["app"]
