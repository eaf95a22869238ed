"""Tandem as a Flask app, and as an extension with a Blueprint for an app that is already there.

gunicorn -w 4 service.entrypoints.flask_app:app      settings from TANDEM_* variables
TandemExtension(Settings(models="models")).init_app(app, url_prefix="/ml")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

from flask import Blueprint, Flask, Response, current_app, request
from flask.signals import request_finished, request_started, request_tearing_down
from werkzeug.exceptions import ClientDisconnected, HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.wsgi import get_input_stream

from service.assembly import Tandem
from service.core.errors import RequestError
from service.entrypoints.flask_socket import connection_of, converse
from service.entrypoints.flask_streams import Streamed, streamed
from service.entrypoints.flask_waiting import CallerLeft, wait_for
from service.entrypoints.limits import SocketLimits
from service.entrypoints.seats import Seats
from service.entrypoints.worker import drain_when_told, share_interpreter
from service.observability.logs import configure_logs
from service.observability.stray import catch_strays
from service.protocols.api import Api, request_id
from service.protocols.http import HttpReply, HttpRequest, parse_query
from service.protocols.route import Paths, Route, place, route_of
from service.protocols.socket import has_socket, is_handshake, open_session
from service.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Every method reaches the view, so that a wrong one is answered there as everywhere else.
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def create_app(settings: Settings | None = None) -> Flask:
    """A Flask app of its own; models begin to load at once."""
    app = Flask("tandem", static_folder=None)
    app.url_map.merge_slashes = False
    extension = TandemExtension(settings)
    extension.init_app(app)
    api = extension.tandem.api

    def not_found(error: HTTPException) -> Response:
        http = _request(request.environ, request.path)
        return _response(_misframed(api, http, request.environ) or api.not_found(http))

    def method_not_allowed(error: HTTPException) -> Response:
        methods, http = _methods_of_path(), _request(request.environ, request.path)
        place(http, methods)
        return _response(_misframed(api, http, request.environ) or api.wrong_method(methods, http))

    app.register_error_handler(NotFound, not_found)
    app.register_error_handler(MethodNotAllowed, method_not_allowed)
    app.wsgi_app = Direct(app, extension.tandem)  # type: ignore[method-assign]
    return app


class TandemExtension:
    """A Flask extension: one service, mounted on as many apps as `init_app` is called with."""

    def __init__(self, settings: Settings | None = None, *, tandem: Tandem | None = None) -> None:
        self.tandem = tandem or Tandem(settings or Settings())
        if self.tandem.settings.grpc_port is not None:
            from service.entrypoints.grpc_server import GrpcServer  # only then: it takes 20 MiB, and is an extra

            self.tandem.attach(GrpcServer(self.tandem))

    def init_app(self, app: Flask, url_prefix: str | None = None) -> None:
        """Mount every route under `url_prefix`, and start to load models."""
        app.register_blueprint(create_blueprint(self.tandem), url_prefix=url_prefix)
        app.extensions["tandem"] = self
        self.tandem.start()


def create_blueprint(tandem: Tandem) -> Blueprint:
    """Every route of Tandem. Whoever registers it calls `tandem.start()`; `TandemExtension` does both."""
    blueprint = Blueprint("tandem", __name__)
    seats = Seats(tandem.settings.max_waiting)
    for path, methods in tandem.paths.items():
        blueprint.add_url_rule(
            path.replace("{", "<").replace("}", ">"),
            endpoint=_endpoint(path),
            view_func=_View(tandem.api, methods, seats),
            methods=_METHODS,
            provide_automatic_options=False,
        )
        if any(route.upgrades for route in methods.values()):
            blueprint.add_url_rule(
                path.replace("{", "<").replace("}", ">"),
                endpoint=f"{_endpoint(path)}#socket",
                view_func=_SocketView(tandem, methods),
                websocket=True,
                methods=("GET",),
                provide_automatic_options=False,
            )
    return blueprint


class Direct:
    """Answers predictions before Flask's own dispatch, unless somebody has put a hook or a listener there.

    Contexts, routing and response objects, which nobody looks at then, take half the time of a short prediction.
    Paths that begin with two slashes, or with none, are refused here: Werkzeug would mend them before it looks for a
    route, or redirect. So are those that end with a newline, which to Starlette is no part of a name. Upgrades are
    ignored, as by the other servers; Werkzeug would refuse a WebSocket in its own words.
    """

    def __init__(self, app: Flask, tandem: Tandem) -> None:
        self.tandem = tandem
        self._app = app
        self._api = tandem.api
        self._others: WSGIApplication = app.wsgi_app
        self._views = Paths(
            {path: cast(_View, app.view_functions[f"tandem.{_endpoint(path)}"]) for path in tandem.paths}
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        reply = self._reply(environ)
        if reply is None:
            if "HTTP_UPGRADE" in environ and not _begins_socket(environ):
                del environ["HTTP_UPGRADE"]
            return self._others(environ, start_response)
        headers = [("Content-Type", reply.content_type), *reply.headers.items()]
        if isinstance(reply, HttpReply):
            headers.append(("Content-Length", str(len(reply.body))))
        start_response(f"{reply.status} {HTTP_STATUS_CODES[reply.status]}", headers)
        return (reply.body,) if isinstance(reply, HttpReply) else reply.body

    def _reply(self, environ: WSGIEnvironment) -> HttpReply | Streamed | None:
        path: str = environ["PATH_INFO"]
        if not path.startswith("/") or path.startswith("//") or path.endswith("\n"):
            http = _request(environ, path)
            return _misframed(self._api, http, environ) or self._api.not_found(http)
        # What is not ASCII is for Werkzeug to decode.
        if environ["REQUEST_METHOD"] == "POST" and path.isascii() and not self.is_watched():
            found = self._views.find(path)
            if found is not None and "POST" in found[0].methods_of_path:
                view, params = found
                return view.answer(environ, path, params)
        return None

    def is_watched(self) -> bool:
        """See `gunicorn_whole.App`."""
        app = self._app
        return bool(
            app.before_request_funcs
            or app.after_request_funcs
            or app.teardown_request_funcs
            or app.teardown_appcontext_funcs
            or app.url_value_preprocessors
            or request_started.receivers
            or request_finished.receivers
            or request_tearing_down.receivers
        )


class _View:
    """All methods of one path. Predictions take one of the `seats`; all else answers at once."""

    def __init__(self, api: Api, methods: Mapping[str, Route], seats: Seats) -> None:
        self._api = api
        self._seats = seats
        self.methods_of_path = methods
        self.__name__ = "tandem"

    def __call__(self, **path_params: str) -> Response:
        try:
            return _response(self.answer(request.environ, request.path, path_params))
        except CallerLeft:  # which Flask would take for a failure
            return _Nothing()

    def answer(self, environ: WSGIEnvironment, path: str, path_params: Mapping[str, str]) -> HttpReply | Streamed:
        """Raises CallerLeft."""
        http = _request(environ, path, path_params)
        place(http, self.methods_of_path)
        refused = _misframed(self._api, http, environ) or self._api.admit(self.methods_of_path, http)
        if refused is not None:
            return refused
        if http.method in ("GET", "HEAD", "OPTIONS") and not _has_body(environ):
            return self._answer(http, environ)
        route = route_of(self.methods_of_path, http.method)
        if route is not None and route.streams:  # it holds a place, for which there is a thread
            unread = None if route.reads_pieces else self._read(environ, http)
            return unread or self._answer(http, environ)
        taken_at = self._seats.take()
        if taken_at is None:
            return self._api.overloaded(http)
        try:
            return self._read(environ, http) or self._answer(http, environ)
        finally:
            self._seats.give(taken_at)

    def _read(self, environ: WSGIEnvironment, http: HttpRequest) -> HttpReply | None:
        """Takes the body; a reply where there is none."""
        try:
            http.body = _read_body(environ, self._api.max_body_bytes)
        except RequestEntityTooLarge:
            return self._api.too_large(http)
        except RequestError as error:  # raised by our own worker under gunicorn
            return self._api.not_received(http, error)
        except Exception:  # every WSGI server has its own for a broken connection or a malformed chunk
            return self._api.cut_off(http)
        return None

    def _answer(self, http: HttpRequest, environ: WSGIEnvironment) -> HttpReply | Streamed:
        reply = self._api.answer(self.methods_of_path, http)
        if isinstance(reply, Future):
            try:
                reply = wait_for(reply, http, environ)
            except TimeoutError:
                return self._api.too_late(http)
            except CallerLeft:
                self._api.gone(http)
                raise
        return reply if isinstance(reply, HttpReply) else streamed(self._api, http, reply, environ)


class _SocketView:
    """Where WebSockets begin. Returns when one is at its end."""

    def __init__(self, tandem: Tandem, methods: Mapping[str, Route]) -> None:
        self._api = tandem.api
        self._limits = SocketLimits.of(tandem.settings)
        self._methods = methods
        self.__name__ = "tandem_socket"

    def __call__(self, **path_params: str) -> Response:
        environ = request.environ
        http = _request(environ, request.path, path_params)
        place(http, self._methods)
        if (refused := _misframed(self._api, http, environ)) is not None:
            return _response(refused)
        connection = connection_of(environ)
        if connection is None or not is_handshake(http.method, http.headers):
            return _response(cast(HttpReply, self._api.answer(self._methods, http)))  # which says why not
        opened = open_session(self._api, self._methods, http)
        if isinstance(opened, HttpReply):
            return _response(opened)
        converse(opened, connection, http.headers["sec-websocket-key"], self._limits)
        return _Nothing()


class _Nothing(Response):
    """All was written, to the connection itself; or nobody is there to read it."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        raise StopIteration  # gunicorn's word for closing the connection


def _begins_socket(environ: WSGIEnvironment) -> bool:
    path: str = environ["PATH_INFO"]
    return has_socket(path) and is_handshake(environ["REQUEST_METHOD"], _request(environ, path).headers)


def _has_body(environ: WSGIEnvironment) -> bool:
    return environ.get("CONTENT_LENGTH", "") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ


def _misframed(api: Api, http: HttpRequest, environ: WSGIEnvironment) -> HttpReply | None:
    # Not every server says how the target was written; decoded, it is no longer than that.
    path: str = environ.get("RAW_URI") or environ["PATH_INFO"]
    query: str = "" if "RAW_URI" in environ else environ.get("QUERY_STRING", "")
    target_bytes = len(path) + len(query) + bool(query)
    version: str = environ.get("SERVER_PROTOCOL", "")
    return api.misframed(http, target_bytes, fields=len(http.headers), version=version.removeprefix("HTTP/"))


def _read_body(environ: WSGIEnvironment, limit: int) -> bytes:
    """The whole body. Raises RequestEntityTooLarge as soon as it is known to be larger than `limit`."""
    length = environ.get("CONTENT_LENGTH", "")
    if length.isdecimal() and "HTTP_TRANSFER_ENCODING" not in environ:
        if int(length) > limit:
            raise RequestEntityTooLarge
        # Werkzeug's stream copies a body several times.
        body: bytes = environ["wsgi.input"].read(int(length))
        if len(body) < int(length):
            raise ClientDisconnected
        return body
    # One byte more is read: Werkzeug cuts a chunked body off at its limit, and does not tell.
    body = get_input_stream(environ, max_content_length=limit + 1).read()
    if len(body) > limit:
        raise RequestEntityTooLarge
    return body


def _methods_of_path() -> Mapping[str, Route]:
    """The methods of a path that was asked with a method no view takes."""
    endpoint, _ = current_app.url_map.bind("").match(request.path, method="GET")
    view: Any = current_app.view_functions[endpoint]
    methods: Mapping[str, Route] = view.methods_of_path
    return methods


def _request(environ: WSGIEnvironment, path: str, path_params: Mapping[str, str] | None = None) -> HttpRequest:
    headers = {_header_name(key): value for key, value in environ.items() if key.startswith("HTTP_")}
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        # A header spelt with an underscore, which arrives under HTTP_, never counts as the real one.
        headers.pop(_header_name(key), None)
        if value := environ.get(key):
            headers[_header_name(key)] = value
    return HttpRequest(
        method=environ["REQUEST_METHOD"],
        path=path,
        path_params=path_params or {},
        query=parse_query(environ.get("QUERY_STRING", "")),
        headers=headers,
        body=b"",
        may_block=True,
        request_id=request_id(headers.get("x-request-id")),
        peer=environ.get("REMOTE_ADDR", ""),
    )


@lru_cache(maxsize=512)
def _header_name(key: str) -> str:
    return key.removeprefix("HTTP_").replace("_", "-").lower()


def _endpoint(path: str) -> str:
    """The name of a route in Flask's terms."""
    return path.replace(".", "_")


def _response(reply: HttpReply | Streamed) -> Response:
    return Response(reply.body, reply.status, reply.headers, content_type=reply.content_type)


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
    drain_when_told(globals()["app"].extensions["tandem"].tandem)
    return globals()["app"]
