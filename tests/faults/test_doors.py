"""What is open without a key, by which names, and to which pages (section A, and H19)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from fastapi import FastAPI

from service.core.callers import Scope
from service.entrypoints import fastapi_app, flask_app
from service.settings import Settings
from tests.conformance.wire import request
from tests.faults.cases import Came, fault
from tests.faults.fronts import GOOD, PREDICT, Front
from tests.faults.guarded import ORIGIN, SHOP, Guarded, write_keys

# The one list of what strangers may ask: whether the service is well. A route that is to be public has to be added.
PUBLIC: Final = {
    "/", "/health", "/health/live", "/health/ready", "/ping", "/v2/health/live", "/v2/health/ready", "/vertex/health",
    "/v1/endpoints/x/deployedModels/x",  # Vertex AI asks for health there, where it chose no other path
}  # fmt: skip
PUBLIC_CALLS: Final = {
    "/inference.GRPCInferenceService/ServerLive", "/inference.GRPCInferenceService/ServerReady",
    "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch",
}  # fmt: skip
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
NOWHERE: Final = ("/nowhere", "/health//live", "/health/live/", "/health/live;x", "/static/x", "/metrics/x")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    keys = tmp_path / "keys.json"
    write_keys(keys, "shop")
    return Settings(
        models=tmp_path,
        keys_file=keys,
        model_control=True,
        vertex_health_route="/vertex/health",
        vertex_predict_route="/vertex/predict",
    )


def paths_of_fastapi(app: FastAPI) -> set[str]:
    """Everything that is mounted, routers within routers too."""

    def walk(routes: Any) -> Iterator[str]:
        for route in routes:
            if (router := getattr(route, "original_router", None)) is not None:
                yield from walk(router.routes)
            else:
                yield route.path

    return {re.sub(r"\{\w+\}", "x", path) for path in walk(app.routes)}


@fault("A07", sent="every route of FastAPI, by every method, without a key", expected="401 but for the public list")
def test_every_route_of_fastapi_is_closed(settings: Settings, came: Came) -> None:
    app = fastapi_app.create_app(settings)
    paths = paths_of_fastapi(app)

    async def ask_all() -> set[tuple[str, str]]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return {
                (method, path)
                for path in [*paths, *NOWHERE]
                for method in METHODS
                if (await client.request(method, path)).status_code != 401
            }

    opened = asyncio.run(ask_all())

    came(f"{len(paths)} paths, {len(opened)} open")
    assert len(paths) > 40
    assert opened == {(method, path) for path in PUBLIC for method in ("GET", "HEAD")}


@fault("A07", sent="every route of Flask, by every method, without a key", expected="401 but for the public list")
def test_every_route_of_flask_is_closed(settings: Settings, came: Came) -> None:
    app = flask_app.create_app(settings)
    try:
        paths = {re.sub(r"<\w+>", "x", rule.rule) for rule in app.url_map.iter_rules()}
        client = app.test_client()

        opened = {
            (method, path)
            for path in [*paths, *NOWHERE]
            for method in METHODS
            if client.open(path, method=method).status_code != 401
        }
    finally:
        app.extensions["tandem"].tandem.stop()

    came(f"{len(paths)} paths, {len(opened)} open")
    assert opened == {(method, path) for path in PUBLIC for method in ("GET", "HEAD")}


@fault("A08", "R10", sent="every method of gRPC", expected="a scope but for the public list")
@pytest.mark.front("grpc")
def test_every_call_of_grpc_is_closed(came: Came) -> None:
    pytest.importorskip("google.protobuf", reason="gRPC is an extra")
    from service.protocols.rpcs import table

    rpcs = table(Settings().dialects)

    came(f"{len(rpcs)} calls, {len(PUBLIC_CALLS)} open")
    assert {rpc.path for rpc in rpcs if rpc.scope is Scope.PUBLIC} == PUBLIC_CALLS


@fault(
    "A08",
    "R10",
    sent="no key, a wrong one, two, one without the scope, the right one, over gRPC",
    expected="UNAUTHENTICATED, INVALID_ARGUMENT, PERMISSION_DENIED, OK",
)
@pytest.mark.front("grpc")
def test_credentials_of_grpc(spoken_grpc: Any, came: Came) -> None:
    def ask(path: str, *metadata: tuple[str, str]) -> str:
        import grpc

        try:
            spoken_grpc.unary_unary(path)(b"", metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    about, load = (
        "/inference.GRPCInferenceService/ServerMetadata",
        "/inference.GRPCInferenceService/RepositoryModelLoad",
    )
    bearer = ("authorization", f"Bearer {SHOP}")

    codes = [
        ask(about), ask(about, ("x-api-key", "wrong")), ask(about, bearer, bearer), ask(load, bearer),
        ask(about, bearer), ask(about, ("x-api-key", SHOP)), ask("/grpc.health.v1.Health/Check"),
    ]  # fmt: skip

    came(*codes)
    assert codes == [
        "UNAUTHENTICATED", "UNAUTHENTICATED", "INVALID_ARGUMENT", "PERMISSION_DENIED", "OK", "OK", "OK",
    ]  # fmt: skip


@fault(
    "A08", "O09", sent="the health of a model by its name, over gRPC without a key", expected="NOT_FOUND, as any name"
)
@pytest.mark.front("grpc")
def test_health_of_grpc_names_no_model_to_strangers(spoken_grpc: Any, came: Came) -> None:
    import grpc

    codes = []
    for name in (b"numbers", b"unheard-of"):
        with pytest.raises(grpc.RpcError) as caught:
            spoken_grpc.unary_unary("/grpc.health.v1.Health/Check")(b"\x0a" + bytes([len(name)]) + name, timeout=20)
        codes.append(caught.value.code().name)

    came(*codes)
    assert codes == ["NOT_FOUND", "NOT_FOUND"]


@fault("A07", sent="an upgrade to a websocket without a key", expected="401, no upgrade")
def test_upgrade_without_a_key(guarded: Guarded, came: Came) -> None:
    upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
               ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]  # fmt: skip

    reply = guarded.raw(request("GET", "/models", headers=upgrade))

    came(reply)
    assert 101 not in reply.statuses
    assert not reply.statuses or reply.statuses[0] in (400, 401, 403, 426)


@fault("A18", sent="Origin of a stranger, null, and their preflight", expected="no Access-Control-Allow-Origin")
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "*"])
def test_strangers_pages_read_nothing(front: Front, guarded: Guarded, origin: str, came: Came) -> None:
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for asked in (front, guarded):
        replies = [asked.ask(json=GOOD, headers={"Origin": origin}), asked.ask("OPTIONS", headers=preflight)]

        came(*[reply.status_code for reply in replies])
        assert [reply.status_code for reply in replies] == [200, 405]
        assert not any(name.startswith("access-control") for reply in replies for name in reply.headers)


@fault(
    "A18",
    sent="the configured Origin: preflight without a key, and the request",
    expected="that origin, no credentials",
)
def test_page_that_is_named_may_ask(guarded: Guarded, came: Came) -> None:
    preflight = guarded.ask("OPTIONS", key=None, headers={"Origin": ORIGIN, "Access-Control-Request-Method": "POST"})
    replies = [guarded.ask(json=GOOD, headers={"Origin": ORIGIN}), guarded.ask(key=None, headers={"Origin": ORIGIN})]

    came(preflight.status_code, *[reply.status_code for reply in replies])
    assert (preflight.status_code, preflight.headers["access-control-allow-methods"]) == (200, "POST")
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert [reply.status_code for reply in replies] == [200, 401]
    for reply in (preflight, *replies):
        assert reply.headers["access-control-allow-origin"] == ORIGIN
        assert "Origin" in reply.headers["vary"]
        assert "access-control-allow-credentials" not in reply.headers


@fault("A19", sent="the Host of an attacker's domain at a server on loopback, by every method", expected="421")
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_name_that_was_pointed_at_loopback(front: Front, method: str, came: Came) -> None:
    statuses = []
    for path in (PREDICT, "/models", "/health/live", "/nowhere"):
        reply = front.ask(method, path, headers={"Host": "rebound.evil.example:80"}, json=GOOD)
        statuses.append(reply.status_code)
        assert "numbers" not in reply.text

    came(*statuses)
    assert set(statuses) == {421}


HOSTS: Final = (
    "good/?",
    "good/#",
    "a@localhost",
    "local host",
    "localhost:x",
    "",
    "evil.example",
    "localhost, localhost",
)


@fault("H19", sent="no Host, two, odd ones, another name", expected="400 or 421")
@pytest.mark.parametrize("host", [*HOSTS, None, "two"])
def test_odd_host(front: Front, host: str | None, came: Came) -> None:
    lines = {None: b"", "two": b"Host: localhost\r\nHost: localhost\r\n"}.get(host, f"Host: {host}\r\n".encode())

    reply = front.raw(b"GET /models HTTP/1.1\r\n" + lines + b"\r\n")

    came(reply)
    assert reply.statuses[0] in (400, 421)
    assert b"numbers" not in reply.received


@fault("H19", sent="odd paths and hosts that might change what is protected, without a key", expected="401, 400 or 421")
@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("/models", "localhost/health/live?"),
        ("/models", "localhost/?"),
        ("http://localhost/health/live/../../models", "localhost"),
        ("http://health/live@localhost/models", "localhost"),
        ("/health/live/../../models", "localhost"),
        ("/%6dodels", "localhost"),
        ("/models?/health/live", "localhost"),
        ("/models;/health/live", "localhost"),
    ],
)  # fmt: skip
def test_protected_path_stays_protected(guarded: Guarded, target: str, host: str, came: Came) -> None:
    reply = guarded.raw(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    came(reply)
    assert reply.statuses[0] in (400, 401, 421)
    assert b"numbers" not in reply.received
