from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request_finished
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder

from service.entrypoints import flask_app
from service.entrypoints.flask_app import TandemExtension, create_app, create_blueprint
from service.settings import Settings
from tests.conformance.servers import eventually
from tests.service.entrypoints.slow import SlowTandem

ROW = {"x0": 1.0, "x1": 2.0}


@contextmanager
def client_of(app: Flask, prefix: str = "") -> Iterator[FlaskClient]:
    """A client of an app whose models are loaded; its threads end with it."""
    try:
        with app.test_client() as client:
            eventually(lambda: client.get(f"{prefix}/health/ready").status_code == 200, "the models")
            yield client
    finally:
        app.extensions["tandem"].tandem.stop()


def test_an_app_of_its_own_serves_the_folder(models: Path) -> None:
    with client_of(create_app(Settings(models=models))) as client:
        response = client.post("/models/sums/predict", json=ROW)

    assert response.json == {"prediction": 3.0, "model": "sums", "version": 1}


def test_the_extension_joins_an_app_that_has_routes_of_its_own(models: Path) -> None:
    app = Flask("shop")
    app.add_url_rule("/orders", view_func=lambda: ["one"])
    TandemExtension(Settings(models=models)).init_app(app, url_prefix="/ml")

    with client_of(app, "/ml") as client:
        answer = client.post("/ml/models/sums/predict", json=ROW)
        own = client.get("/orders")
        ours = [client.get(path) for path in ("/ml/docs", "/ml/docs/start.js", "/ml/openapi.json")]
        wrong = [client.get("/nowhere"), client.get("/ml/nowhere"), client.get("/ml/predict"), client.put("/orders")]

    assert answer.json is not None and answer.json["prediction"] == 3.0
    assert own.json == ["one"]
    assert [response.status_code for response in ours] == [200] * 3
    # What no route matches is answered by the app that was there before; a wrong method on our path, by us.
    assert [response.status_code for response in wrong] == [404, 404, 405, 405]
    assert wrong[0].mimetype == wrong[1].mimetype == wrong[3].mimetype == "text/html"
    assert wrong[2].mimetype == "application/problem+json"


def test_one_extension_is_mounted_on_two_apps(models: Path) -> None:
    extension = TandemExtension(Settings(models=models))
    apps = [Flask("one"), Flask("two")]
    for app in apps:
        extension.init_app(app)

    with client_of(apps[0]), client_of(apps[1]) as client:
        response = client.post("/models/sums/predict", json=ROW)

    assert response.status_code == 200


def test_a_request_past_its_deadline_gets_504_and_the_others_are_answered() -> None:
    tandem: Any = SlowTandem(timeout_s=0.05)
    app = Flask("slow")
    app.register_blueprint(create_blueprint(tandem))

    with app.test_client() as client:
        late = client.post("/models/slow/predict", json={}, headers={"x-request-id": "late"})
        alive = client.get("/health/live")
        tandem.answer_at_last()

    assert (late.status_code, alive.status_code) == (504, 200)
    assert late.json is not None and late.json["detail"] == "no answer within 0.05 seconds"
    assert [status for name, status in tandem.recorded if name == "late"] == [504]


def test_threads_that_may_wait_for_models_are_counted() -> None:
    tandem: Any = SlowTandem(timeout_s=60)
    tandem.settings = Settings(max_waiting=1)
    app = Flask("busy")
    app.register_blueprint(create_blueprint(tandem))
    waiting = threading.Thread(target=lambda: app.test_client().post("/predict", json={}))
    waiting.start()
    tandem.server.asked.wait(60)

    refused = app.test_client().post("/predict", json={})
    alive = app.test_client().get("/health/live")
    tandem.answer_at_last()
    waiting.join(60)
    again = app.test_client().post("/predict", json={}, headers={"x-request-timeout-ms": "1"})

    assert (refused.status_code, refused.headers["retry-after"], alive.status_code) == (503, "1", 200)
    assert refused.get_json()["detail"] == "every thread that may wait for predictions does"
    assert again.status_code == 504  # there is a seat again


@pytest.mark.parametrize(("has_hook", "error"), [(False, ConnectionResetError), (True, StopIteration)])
def test_who_left_before_the_answer_ends_the_connection(has_hook: bool, error: type[Exception], models: Path) -> None:
    """By words of gunicorn's: it closes the connection, and logs neither."""
    ours, theirs = socket.socketpair()
    theirs.close()
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        app = create_app(Settings(models=models, upstream=f"http://127.0.0.1:{silent.getsockname()[1]}/v1"))
        if has_hook:
            _hook(app, [])
        body = json.dumps({"prompt": "hi", "model": "m"}).encode()
        environ = EnvironBuilder(
            path="/v1/generate", method="POST", data=body, content_type="application/json"
        ).get_environ()

        with client_of(app), ours, pytest.raises(error):
            app({**environ, "gunicorn.socket": ours}, lambda status, headers: pytest.fail("it was answered"))


@pytest.mark.parametrize(("size", "status"), [(1024, 415), (1025, 413)])
def test_the_limit_holds_without_a_declared_length(size: int, status: int) -> None:
    tandem: Any = SlowTandem(timeout_s=5)
    app = Flask("limited")
    app.register_blueprint(create_blueprint(tandem))
    body = Counted(b" " * size)

    with app.test_client() as client:
        response = client.post("/models/slow/predict", environ_overrides=chunked(body))

    assert response.status_code == status
    assert body.taken == size


def test_a_body_that_breaks_off_is_the_callers_fault() -> None:
    tandem: Any = SlowTandem(timeout_s=5)
    app = Flask("broken")
    app.register_blueprint(create_blueprint(tandem))

    with app.test_client() as client:
        response = client.post("/models/slow/predict", environ_overrides=chunked(Broken()))

    assert response.status_code == 400
    assert response.json is not None and response.json["detail"] == "the body broke off before its end"


@pytest.mark.parametrize("path", ["//models", "///health/live", "/models/sums\n", "/health/live\n"])
def test_a_path_with_two_slashes_or_a_newline_is_another_path(path: str, models: Path) -> None:
    with client_of(create_app(Settings(models=models))) as client:
        response = client.get("/", environ_overrides={"PATH_INFO": path})

    assert (response.status_code, response.mimetype) == (404, "application/problem+json")
    assert response.json is not None and response.json["type"] == "urn:tandem:problem:unknown-route"


def test_importing_the_module_builds_no_app() -> None:
    code = "import service.entrypoints.flask_app as m; assert 'app' not in vars(m)"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_the_module_has_nothing_but_app_to_build() -> None:
    with pytest.raises(AttributeError, match="application"):
        flask_app.application  # noqa: B018


def test_app_is_built_once_from_the_environment(models: Path) -> None:
    code = (
        "import service.entrypoints.flask_app as m; a = m.app; assert m.app is a; "
        "tandem = a.extensions['tandem'].tandem; print(tandem.settings.models); tandem.stop()"
    )

    told = subprocess.run(
        [sys.executable, "-c", code],
        env={"TANDEM_MODELS": str(models), "TANDEM_LOG_FORMAT": "console"},  # JSON catches what is printed
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip

    assert told.stdout.strip() == str(models)


def chunked(stream: object) -> dict[str, Any]:
    """How a WSGI server hands over a body whose length nobody declared."""
    return {"wsgi.input": stream, "wsgi.input_terminated": True}


class Counted:
    """A stream that knows how much of it was read."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.taken = 0

    def read(self, size: int) -> bytes:
        part = self._content[self.taken : self.taken + size]
        self.taken += len(part)
        return part


class Broken:
    """What a WSGI server hands over where a chunk is malformed: reading raises an error of its own."""

    def read(self, size: int) -> bytes:
        raise RuntimeError("invalid chunk size")


def _hook(app: Flask, seen: list[str]) -> None:
    app.before_request(lambda: seen.append("before"))


def _after(app: Flask, seen: list[str]) -> None:
    @app.after_request
    def see(response: Any) -> Any:
        seen.append("after")
        return response


def _teardown(app: Flask, seen: list[str]) -> None:
    app.teardown_request(lambda error: seen.append("teardown"))


def _signal(app: Flask, seen: list[str]) -> None:
    request_finished.connect(lambda sender, **_: seen.append("signal"), app, weak=False)


@pytest.mark.parametrize("watch", [_hook, _after, _teardown, _signal])
def test_whoever_listens_hears_of_predictions(watch: Any, models: Path) -> None:
    app = create_app(Settings(models=models))
    seen: list[str] = []
    watch(app, seen)
    try:
        with client_of(app) as client:
            response = client.post("/models/sums/predict", json=ROW)
    finally:
        request_finished.receivers.clear()

    assert response.get_json()["prediction"] == 3.0
    assert seen


def test_prediction_is_the_same_with_a_listener_and_without(models: Path) -> None:
    plain, watched = create_app(Settings(models=models)), create_app(Settings(models=models))
    _hook(watched, [])

    replies = []
    for app in (plain, watched):
        with client_of(app) as client:
            path = "/models/sums/predict?outputs=predict"
            replies.append(client.post(path, json=ROW, headers={"x-request-id": "same"}))

    one, other = ((reply.status_code, reply.data, dict(reply.headers)) for reply in replies)
    assert one == other
