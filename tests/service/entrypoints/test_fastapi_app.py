from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.entrypoints import fastapi_app
from service.entrypoints.fastapi_app import LARGE_BYTES, create_app, create_router
from service.settings import Settings
from tests.faults.cases import fault
from tests.service.entrypoints.slow import SlowTandem

ROW = {"x0": 1.0, "x1": 2.0}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app that has started, and that stops afterwards."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://tandem.test") as client,
    ):
        yield client


async def wait_until_ready(client: httpx.AsyncClient, prefix: str = "") -> None:
    async with asyncio.timeout(60):
        while (await client.get(f"{prefix}/health/ready")).status_code != 200:
            await asyncio.sleep(0.01)


@pytest.mark.anyio
async def test_an_app_of_its_own_serves_the_folder(models: Path) -> None:
    async with client_of(create_app(Settings(models=models))) as client:
        await wait_until_ready(client)

        response = await client.post("/models/sums/predict", json=ROW)

    assert response.json() == {"prediction": 3.0, "model": "sums", "version": 1}


@pytest.mark.anyio
async def test_models_are_loaded_between_start_and_stop(models: Path) -> None:
    app = create_app(Settings(models=models))

    before = app.state.tandem.server.is_ready()
    async with client_of(app) as client:
        await wait_until_ready(client)
    after = app.state.tandem.server.is_ready()

    assert (before, after) == (False, False)


@pytest.mark.anyio
async def test_the_router_joins_an_app_that_has_routes_and_a_lifespan_of_its_own(models: Path) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        events.append("start")
        yield
        events.append("stop")

    app = FastAPI(title="Shop", lifespan=lifespan)
    app.get("/orders")(lambda: ["one"])
    app.include_router(create_router(Settings(models=models)), prefix="/ml")

    async with client_of(app) as client:
        await wait_until_ready(client, "/ml")
        answer = await client.post("/ml/models/sums/predict", json=ROW)
        own = [await client.get(path) for path in ("/orders", "/docs", "/openapi.json")]
        ours = [await client.get(path) for path in ("/ml/docs", "/ml/docs/start.js", "/ml/openapi.json")]
        wrong = [await client.get(path) for path in ("/nowhere", "/ml/nowhere", "/ml/predict")]

    assert events == ["start", "stop"]
    assert answer.json()["prediction"] == 3.0
    assert [response.status_code for response in [*own, *ours]] == [200] * 6
    assert list(own[2].json()["paths"]) == ["/orders"]
    assert "/models/sums/predict" in ours[2].json()["paths"]
    # What no route matches is answered by the app that was there before; a wrong method on our path, by us.
    assert [response.status_code for response in wrong] == [404, 404, 405]
    assert wrong[0].json() == wrong[1].json() == {"detail": "Not Found"}
    assert wrong[2].headers["content-type"] == "application/problem+json"


@pytest.mark.anyio
async def test_a_large_body_is_decoded_beside_the_event_loop(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(Settings(models=models))
    api, threads = app.state.tandem.api, list[str]()
    answer = api.answer

    def told(methods: Any, http: Any) -> Any:
        threads.append("loop" if threading.current_thread() is loop_thread else "other")
        return answer(methods, http)

    monkeypatch.setattr(api, "answer", told)
    loop_thread = threading.current_thread()
    body = {"instances": [[1.0, 2.0]] * (LARGE_BYTES // 10)}

    async with client_of(app) as client:
        await wait_until_ready(client)
        threads.clear()
        small = await client.post("/models/sums/predict", json=ROW)
        large = await client.post("/models/sums/predict", json=body)

    assert threads == ["loop", "other"]
    assert small.json()["prediction"] == 3.0
    assert large.json()["predictions"] == [3.0] * (LARGE_BYTES // 10)


@pytest.mark.anyio
async def test_a_request_past_its_deadline_gets_504_and_the_others_are_answered() -> None:
    tandem: Any = SlowTandem(timeout_s=0.05)
    app = FastAPI()
    app.include_router(create_router(tandem=tandem))

    async with client_of(app) as client:
        late = await client.post("/models/slow/predict", json={}, headers={"x-request-id": "late"})
        alive = await client.get("/health/live")
        tandem.answer_at_last()

    assert (late.status_code, alive.status_code) == (504, 200)
    assert late.json()["detail"] == "no answer within 0.05 seconds"
    assert [status for name, status in tandem.recorded if name == "late"] == [504]
    assert tandem.server.deadlines[0].is_cancelled


@pytest.mark.front("uvicorn")
@fault("H28", sent="the caller hangs up while its prediction waits", expected="dropped; 499 in the log")
@pytest.mark.anyio
async def test_caller_that_hangs_up_takes_its_work_along() -> None:
    tandem: Any = SlowTandem(timeout_s=60)
    app = FastAPI()
    app.include_router(create_router(tandem=tandem))
    messages = [{"type": "http.request", "body": b"{}", "more_body": False}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"x-request-id", b"gone")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    tandem.answer_at_last()

    assert sent == []
    assert tandem.server.deadlines[0].is_cancelled
    assert tandem.recorded == [("gone", 499)]


@pytest.mark.anyio
@pytest.mark.parametrize(("chunks", "status"), [(1, 415), (2, 413), (100, 413)])
async def test_the_limit_holds_without_a_declared_length(chunks: int, status: int) -> None:
    tandem: Any = SlowTandem(timeout_s=5)
    app = FastAPI()
    app.include_router(create_router(tandem=tandem))
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(chunks):
            sent += 1
            yield b" " * 1024

    async with client_of(app) as client:
        response = await client.post("/models/slow/predict", content=body())

    assert response.status_code == status
    assert sent <= 2, "no more is read than is needed to know"


@pytest.mark.anyio
async def test_what_is_no_http_request_is_left_to_the_app(models: Path) -> None:
    app = create_app(Settings(models=models))
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "websocket", "path": "/models", "headers": [], "query_string": b""}, receive, send)

    assert [message["type"] for message in sent] == ["websocket.close"]


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/models", "/nowhere"])
@pytest.mark.parametrize(("headers", "closing"), [({}, None), ({"Expect": "100-continue"}, "close")])
async def test_a_refusal_ends_the_connection_only_if_the_body_is_held_back(
    models: Path, path: str, headers: dict[str, str], closing: str | None
) -> None:
    async with client_of(create_app(Settings(models=models))) as client:
        response = await client.request("DELETE", path, json=ROW, headers=headers)

    assert response.status_code in (404, 405)
    assert response.headers.get("connection") == closing


def test_repeated_headers_are_one_list() -> None:
    scope = {
        "method": "GET", "path": "/", "query_string": b"a=1&a=2",
        "headers": [(b"accept", b"a"), (b"accept", b"b"), (b"x-request-id", b"one")],
    }  # fmt: skip

    read = fastapi_app._request(scope)

    assert read.headers == {"accept": "a,b", "x-request-id": "one"}
    assert (read.query, read.request_id) == ({"a": "2"}, "one")


def test_importing_the_module_builds_no_app() -> None:
    code = "import service.entrypoints.fastapi_app as m; assert 'app' not in vars(m)"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_the_module_has_nothing_but_app_to_build() -> None:
    with pytest.raises(AttributeError, match="application"):
        fastapi_app.application  # noqa: B018


def test_app_is_built_once_from_the_environment(models: Path) -> None:
    code = (
        "import service.entrypoints.fastapi_app as m; a = m.app; assert m.app is a; "
        "print(a.state.tandem.settings.models)"
    )

    told = subprocess.run(
        [sys.executable, "-c", code],
        env={"TANDEM_MODELS": str(models), "TANDEM_LOG_FORMAT": "console"},  # JSON catches what is printed
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip

    assert told.stdout.strip() == str(models)


@pytest.mark.anyio
async def test_a_body_that_breaks_off_never_reaches_a_model(models: Path) -> None:
    app = create_app(Settings(models=models))
    sent: list[Any] = []
    messages = iter(
        [{"type": "http.request", "body": b'{"x0": 1.0, "x1": 2.0}', "more_body": True}, {"type": "http.disconnect"}]
    )
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/models/sums/predict",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)

    assert sent[0]["status"] == 400
    assert b"broke off" in sent[1]["body"]


@pytest.mark.anyio
async def test_middleware_sees_predictions_and_changes_nothing(models: Path) -> None:
    seen: list[str] = []
    plain, watched = create_app(Settings(models=models)), create_app(Settings(models=models))

    @watched.middleware("http")
    async def see(request: Any, proceed: Any) -> Any:
        seen.append(request.url.path)
        return await proceed(request)

    replies = []
    for app in (plain, watched):
        async with client_of(app) as client:
            await wait_until_ready(client)
            replies.append(await client.post("/models/sums/predict", json=ROW, headers={"x-request-id": "same"}))

    one, other = ((reply.status_code, reply.content, dict(reply.headers)) for reply in replies)
    assert one == other
    assert "/models/sums/predict" in seen


@pytest.mark.anyio
async def test_app_that_is_mounted_under_a_prefix_finds_its_routes(models: Path) -> None:
    outer, inner = FastAPI(), create_app(Settings(models=models))
    outer.mount("/ml", inner)

    async with inner.router.lifespan_context(inner), client_of(outer) as client:
        await wait_until_ready(client, "/ml")
        response = await client.post("/ml/models/sums/predict", json=ROW)

    assert response.json()["prediction"] == 3.0
