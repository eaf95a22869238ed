from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore
import pytest

from service.generation.network import CheckedNetwork, addresses_of
from tests.faults.cases import fault


class Net(httpcore.AsyncNetworkBackend):
    """Connects to what is in `up`, and remembers what was tried."""

    def __init__(self, up: Iterable[str]) -> None:
        self.up = set(up)
        self.tried: list[str] = []

    async def connect_tcp(self, host: str, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        self.tried.append(host)
        if host not in self.up:
            raise httpcore.ConnectError("refused")
        return httpcore.AsyncMockStream([])


def connect(host: str, *answers: Sequence[str] | OSError, up: Iterable[str] = ()) -> tuple[Net, list[Exception | None]]:
    """One connection after the other, each with the addresses that the name has then."""
    net, outcomes = Net(up), []
    left = list(answers)

    async def resolve(host: str, port: int) -> Sequence[str]:
        answer = left.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    async def all_of_them() -> None:
        checked = CheckedNetwork(host, net, resolve)
        for _ in answers:
            try:
                await checked.connect_tcp(host, 80, 5.0)
                outcomes.append(None)
            except httpcore.ConnectError as error:
                outcomes.append(error)

    asyncio.run(all_of_them())
    return net, outcomes


def test_the_very_address_that_was_looked_at_is_asked() -> None:
    net, outcomes = connect("example.com", ["93.184.216.34"], up=["93.184.216.34"])

    assert (net.tried, outcomes) == (["93.184.216.34"], [None])


def test_next_address_is_asked_where_one_does_not_answer() -> None:
    net, outcomes = connect("localhost", ["127.0.0.1", "::1"], up=["::1"])

    assert (net.tried, outcomes) == (["127.0.0.1", "::1"], [None])


def test_nobody_who_answers_is_an_error() -> None:
    _, (error,) = connect("example.com", ["93.184.216.34", "93.184.216.35"])

    assert "refused" in str(error)


@fault("P03", sent="a name that is at a metadata address", expected="refused at connect")
@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fe80::1%eth0", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1"]
)
def test_metadata_is_never_asked(address: str) -> None:
    net, (error,) = connect("metadata.example", [address], up=[address])

    assert net.tried == []
    assert "must not be asked" in str(error)


@fault(
    "P03", sent="a public name that becomes private, or of loopback; localhost elsewhere", expected="refused at connect"
)
@pytest.mark.parametrize(
    ("host", "first", "then"),
    [
        ("example.com", "93.184.216.34", "10.0.0.1"),
        ("example.com", "93.184.216.34", "127.0.0.1"),
        ("vllm", "10.0.0.7", "127.0.0.1"),
        ("vllm", "10.0.0.7", "93.184.216.34"),
        ("localhost", "127.0.0.1", "10.0.0.1"),
    ],
)
def test_name_stays_in_the_kind_of_network_that_it_was_in(host: str, first: str, then: str) -> None:
    net, outcomes = connect(host, [first], [then], [then, first], up=[first, then])

    assert net.tried == [first, first]
    assert outcomes[0] is None and outcomes[2] is None
    assert "must not be asked" in str(outcomes[1])


def test_unknown_name_is_an_error_of_connecting() -> None:
    _, (error,) = connect("nowhere.example", OSError(-2, "Name or service not known"))

    assert "cannot be resolved" in str(error)


def test_slow_resolver_is_given_up() -> None:
    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(httpcore.ConnectTimeout):
        asyncio.run(CheckedNetwork("example.com", Net([]), never).connect_tcp("example.com", 80, 0.01))


@fault(
    "W18",
    sent="a name server that does not answer, while many connections to the upstream begin",
    expected="they end in time; whatever else the event loop has threads for goes on",
)
def test_look_ups_that_hang_hold_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        answered.wait(60)
        raise OSError(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def ask() -> list[Any]:
        checked = CheckedNetwork("example.com", Net([]))
        many = [checked.connect_tcp("example.com", 80, 0.05) for _ in range(40)]
        outcomes = await asyncio.gather(*many, return_exceptions=True)
        async with asyncio.timeout(30):
            assert await asyncio.to_thread(lambda: "decoded") == "decoded"
        return outcomes

    try:
        outcomes = asyncio.run(ask())
    finally:
        answered.set()

    assert {type(outcome) for outcome in outcomes} == {httpcore.ConnectTimeout}


def test_names_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def entries(host: str, port: int, **_: Any) -> Any:
        if host == "nowhere.example":
            raise OSError(-2, "Name or service not known")
        return [(None, None, 0, "", (address, port)) for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1")]

    monkeypatch.setattr(socket, "getaddrinfo", entries)

    assert asyncio.run(addresses_of("example.com", 80)) == ["192.0.2.1", "192.0.2.2"]
    with pytest.raises(OSError, match="not known"):
        asyncio.run(addresses_of("nowhere.example", 80))


def test_addresses_and_localhost_are_not_looked_up() -> None:
    assert asyncio.run(addresses_of("10.0.0.1", 80)) == ("10.0.0.1",)
    assert asyncio.run(addresses_of("localhost", 80)) == ("127.0.0.1", "::1")
