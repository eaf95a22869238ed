"""Tandem as a Flask app, and as an extension with a Blueprint for an app that is already there.

gunicorn -w 4 service.entrypoints.flask_app:app      settings from TANDEM_* variables
TandemExtension(Settings(models="models")).init_app(app, url_prefix="/ml")
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Final

from flask import Blueprint, Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from service.assembly import Tandem
from service.observability.logs import configure_logs
from service.protocols.api import Api, request_id
from service.protocols.http import HttpReply, HttpRequest, Route, parse_query
from service.protocols.routes import by_path
from service.settings import Settings

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
        return _response(api.not_found(_request({})))

    def method_not_allowed(error: HTTPException) -> Response:
        return _response(api.wrong_method(_methods_of_path(), _request({})))

    def refuse_double_slash() -> None:
        # Werkzeug strips leading slashes before it looks for a route, and merge_slashes has no say in it.
        if request.environ["PATH_INFO"].startswith("//"):
            raise NotFound

    app.before_request(refuse_double_slash)
    app.register_error_handler(NotFound, not_found)
    app.register_error_handler(MethodNotAllowed, method_not_allowed)
    return app


class TandemExtension:
    """A Flask extension: one service, mounted on as many apps as `init_app` is called with."""

    def __init__(self, settings: Settings | None = None, *, tandem: Tandem | None = None) -> None:
        self.tandem = tandem or Tandem(settings or Settings())

    def init_app(self, app: Flask, url_prefix: str | None = None) -> None:
        """Mount every route under `url_prefix`, and start to load models."""
        app.register_blueprint(create_blueprint(self.tandem), url_prefix=url_prefix)
        app.extensions["tandem"] = self
        self.tandem.start()


def create_blueprint(tandem: Tandem) -> Blueprint:
    """Every route of Tandem. Whoever registers it calls `tandem.start()`; `TandemExtension` does both."""
    blueprint = Blueprint("tandem", __name__)
    for path, methods in by_path().items():
        blueprint.add_url_rule(
            path.replace("{", "<").replace("}", ">"),
            endpoint=path.strip("/").replace("/", "_").replace(".", "_").translate({123: None, 125: None}),
            view_func=_View(tandem.api, methods),
            methods=_METHODS,
            provide_automatic_options=False,
        )
    return blueprint


class _View:
    """All methods of one path."""

    def __init__(self, api: Api, methods: Mapping[str, Route]) -> None:
        self._api = api
        self.methods_of_path = methods
        self.__name__ = "tandem"

    def __call__(self, **path_params: str) -> Response:
        http = _request(path_params)
        try:
            http.body = _read_body(self._api.max_body_bytes)
        except RequestEntityTooLarge:
            return _response(self._api.too_large(http))
        except Exception:  # every WSGI server has its own for a broken connection or a malformed chunk
            return _response(self._api.cut_off(http))
        reply = self._api.answer(self.methods_of_path, http)
        if isinstance(reply, Future):
            try:
                reply = reply.result(self._api.timeout_s)
            except TimeoutError:
                reply = self._api.too_late(http)
        return _response(reply)


def _read_body(limit: int) -> bytes:
    """The whole body. Raises RequestEntityTooLarge as soon as it is known to be larger than `limit`."""
    # One byte more is read: Werkzeug cuts a chunked body off at its limit, and does not tell.
    request.max_content_length = limit + 1
    body = request.get_data(cache=False)
    if len(body) > limit:
        raise RequestEntityTooLarge
    return body


def _methods_of_path() -> Mapping[str, Route]:
    """The methods of a path that was asked with a method no view takes."""
    endpoint, _ = current_app.url_map.bind("").match(request.path, method="GET")
    view: Any = current_app.view_functions[endpoint]
    methods: Mapping[str, Route] = view.methods_of_path
    return methods


def _request(path_params: Mapping[str, str]) -> HttpRequest:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return HttpRequest(
        method=request.method,
        path=request.path,
        path_params=path_params,
        query=parse_query(request.query_string.decode("latin-1")),
        headers=headers,
        body=b"",
        request_id=request_id(headers.get("x-request-id")),
    )


def _response(reply: HttpReply) -> Response:
    return Response(reply.body, reply.status, reply.headers, content_type=reply.content_type)


def __getattr__(name: str) -> Any:
    """`app` is built when a web server asks for it, not when this module is imported for `create_app`."""
    if name != "app":
        raise AttributeError(name)
    settings = Settings()
    configure_logs(settings.log_format, settings.log_level)
    globals()["app"] = create_app(settings)
    return globals()["app"]
