"""The web servers with keys, as the cases of identity ask them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from service.guards.keys import entry_of, new_key
from tests.conformance.servers import SERVERS, Running, free_port, side_by_side, tandem_serve
from tests.faults.fronts import PATIENCE_S, PREDICT, Front

ORIGIN: Final = "https://app.example"
# From there a proxy asks that the servers trust; other addresses of loopback are callers of their own.
PROXY: Final = "127.0.0.9"
WRONG_KEYS: Final = 20

NAMES: Final = ("shop", "bank", "root", "slow", "leaving")
KEYS: Final = {name: new_key() for name in NAMES}
SHOP: Final = KEYS["shop"]  # for all models
BANK: Final = KEYS["bank"]  # for `amounts` alone
ROOT: Final = KEYS["root"]
SLOW: Final = KEYS["slow"]  # may ask SLOW_REQUESTS times
SLOW_REQUESTS: Final = 5


def write_keys(path: Path, *names: str) -> None:
    """The file of keys, with those of `names`: another file in its place, as `tandem api-keys` does it."""
    scopes = {"root": ["predict", "metrics", "admin"]}
    models = {"bank": ["amounts"]}
    limits = {"slow": f"{SLOW_REQUESTS}/day"}
    entries = [
        entry_of(name, KEYS[name], scopes.get(name, ["predict"]), models.get(name, ()), limits.get(name), None)
        for name in names
    ]
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"keys": entries}))
    draft.replace(path)


@dataclass(frozen=True, slots=True)
class Guarded(Front):
    """A front that knows keys. What is asked without saying who asks is asked by `shop`."""

    keys: Path
    grpc_port: int | None

    def ask(
        self,
        method: str = "POST",
        path: str = PREDICT,
        *,
        key: str | None = SHOP,
        address: str = "127.0.0.1",
        **arguments: Any,
    ) -> httpx.Response:
        """`key` None sends none; `address` is where from."""
        headers = dict(arguments.pop("headers", {}))
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        # Without reading the certificates of the machine, which takes longer than the answer.
        transport = httpx.HTTPTransport(verify=False, local_address=address)
        with httpx.Client(transport=transport, timeout=PATIENCE_S, trust_env=False) as client:
            return client.request(method, f"{self.running.url}{path}", headers=headers, **arguments)


@pytest.fixture(scope="session")
def guarded_fronts(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, tuple[Running, Path, int | None]]]:
    """One server of each kind with keys, and two of the models; the first answers gRPC, too."""
    folder = tmp_path_factory.mktemp("guarded")
    models = folder / "models"
    for name in ("numbers", "amounts"):
        shutil.copytree(repository / name, models / name)
    grpc_ports = {name: free_port() if name == "uvicorn" else None for name in SERVERS}
    starts = {}
    for name, arguments in SERVERS.items():
        write_keys(folder / f"{name}.json", *NAMES)
        starts[name] = tandem_serve(
            *arguments,
            *("--models", str(models), "--default-model", "numbers", "--model-control"),
            *("--keys", str(folder / f"{name}.json"), "--cors-origin", ORIGIN, "--trusted-proxy", PROXY),
            *(() if (port := grpc_ports[name]) is None else ("--grpc-port", str(port))),
            log=folder / name,
            environment={"TANDEM_WRONG_KEYS_LIMIT": f"{WRONG_KEYS}/day"},
        )
    with side_by_side(starts) as started:
        yield {name: (running, folder / f"{name}.json", grpc_ports[name]) for name, running in started.items()}


@pytest.fixture(params=SERVERS)
def guarded(
    request: pytest.FixtureRequest, guarded_fronts: Mapping[str, tuple[Running, Path, int | None]]
) -> Iterator[Guarded]:
    """Each of them in turn; after the test it must be as well as before."""
    guarded = Guarded(request.param, *guarded_fronts[request.param])
    since = guarded.running.log.stat().st_size
    yield guarded
    guarded.is_well(since)


@pytest.fixture
def spoken_grpc(guarded_fronts: Mapping[str, tuple[Running, Path, int | None]]) -> Iterator[Any]:
    """A channel to the server that answers gRPC."""
    grpc = pytest.importorskip("grpc", reason="gRPC is an extra")
    _, _, port = guarded_fronts["uvicorn"]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
