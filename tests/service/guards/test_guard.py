from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from service.core.callers import ANYBODY, STRANGER, Rate, Scope
from service.core.errors import (
    NotAllowed,
    RateLimited,
    Unauthenticated,
    UnreadableRequest,
)
from service.guards.guard import AccessRules, CannotGuard, Guard, credentials_in, guard_of
from service.guards.keys import digest_of, new_key
from service.guards.peers import networks_of
from tests.faults.cases import fault

KEY: Final = new_key()
OTHER: Final = new_key()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes the file of keys, where KEY and OTHER are those of `shop` and `bank`."""

    def written(*names: str, **more: Any) -> Path:
        path, keys = tmp_path / "keys.json", {"shop": KEY, "bank": OTHER}
        entries = [{"name": name, "sha256": digest_of(keys[name]), "scopes": ["predict"], **more} for name in names]
        draft = tmp_path / "draft"
        draft.write_text(json.dumps({"keys": entries}))
        return draft.replace(path)

    return written


def bearer(key: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", **more}


def guard(clock: Clock, **rules: Any) -> Guard:
    return Guard(AccessRules(**rules), clock, lambda: 1.8e9)


def ask(of: Guard, headers: dict[str, str], scope: Scope | None = Scope.PREDICT, address: str = "192.0.2.1") -> Any:
    return of.admit(scope, headers, address, {})


def test_where_nothing_is_configured_there_is_no_guard() -> None:
    assert guard_of(AccessRules()) is None


def test_without_keys_everybody_is_let_in(clock: Clock) -> None:
    assert ask(guard(clock, hosts=("localhost",)), {}, Scope.ADMIN) is ANYBODY


@pytest.mark.parametrize(
    "headers", [bearer(KEY), {"x-api-key": KEY}, {"authorization": f"bearer {KEY}"}, bearer(KEY, **{"x-api-key": KEY})]
)
def test_key_is_read_from_either_header(headers: dict[str, str], clock: Clock, write: Callable[..., Path]) -> None:
    assert ask(guard(clock, keys_file=write("shop")), headers).name == "shop"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param({"authorization": ""}, id="empty"),
        pytest.param({"authorization": "Bearer"}, id="no key"),
        pytest.param({"authorization": "Bearer "}, id="an empty key"),
        pytest.param({"authorization": KEY}, id="no scheme"),
        pytest.param({"authorization": f"Basic {KEY}"}, id="another scheme"),
        pytest.param({"authorization": f"Bearer  {KEY}"}, id="two spaces"),
        pytest.param({"x-api-key": ""}, id="an empty header"),
        pytest.param(bearer(OTHER), id="wrong"),
        pytest.param(bearer(KEY[:-1]), id="cut"),
        pytest.param(bearer(KEY + "\0"), id="NUL"),
        pytest.param(bearer("ключ".encode().decode("latin-1")), id="not ASCII"),
        pytest.param(bearer("\ud800"), id="a surrogate"),
        pytest.param(bearer("a" * 1_000_000), id="a megabyte"),
        pytest.param(bearer("a.b.c"), id="a token where none are taken"),
    ],
)
@fault("A01", "A02", "A03", sent="no, empty, malformed, wrong, odd and huge keys", expected="not known: 401")
def test_nothing_else_is_known(headers: dict[str, str], clock: Clock, write: Callable[..., Path]) -> None:
    with pytest.raises(Unauthenticated):
        ask(guard(clock, keys_file=write("shop")), headers)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"authorization": f"Bearer {KEY},Bearer {OTHER}"}, id="two Authorization"),
        pytest.param({"x-api-key": f"{KEY},{OTHER}"}, id="two X-API-Key"),
        pytest.param(bearer(KEY, **{"x-api-key": OTHER}), id="two that differ"),
        pytest.param({"authorization": "Basic eA==", "x-api-key": KEY}, id="two schemes"),
    ],
)
def test_several_keys_are_unreadable(headers: dict[str, str]) -> None:
    with pytest.raises(UnreadableRequest, match="several keys"):
        credentials_in(headers)


def test_what_is_public_needs_no_key_and_counts_for_nothing(clock: Clock, write: Callable[..., Path]) -> None:
    of = guard(clock, keys_file=write("shop"), rate=Rate(1, 60))

    assert [ask(of, {}, Scope.PUBLIC) for _ in range(3)] == [STRANGER] * 3


def test_unknown_route_needs_a_key_but_no_scope(clock: Clock, write: Callable[..., Path]) -> None:
    of = guard(clock, keys_file=write("shop"))

    assert ask(of, bearer(KEY), None).name == "shop"
    with pytest.raises(Unauthenticated):
        ask(of, {}, None)


def test_key_without_the_scope_is_not_allowed(clock: Clock, write: Callable[..., Path]) -> None:
    of = guard(clock, keys_file=write("shop"))

    for scope in (Scope.ADMIN, Scope.METRICS):
        with pytest.raises(NotAllowed):
            ask(of, bearer(KEY), scope)


def test_revoked_key_is_refused_within_a_second(clock: Clock, write: Callable[..., Path]) -> None:
    of = guard(clock, keys_file=write("shop", "bank"))

    write("bank")
    clock.now += 1.0

    with pytest.raises(Unauthenticated):
        ask(of, bearer(KEY))
    assert ask(of, bearer(OTHER)).name == "bank"


def test_last_key_may_be_revoked_and_then_nobody_is_known(clock: Clock, write: Callable[..., Path]) -> None:
    of = guard(clock, keys_file=write("shop"))

    write()
    clock.now += 1.0

    with pytest.raises(Unauthenticated):
        ask(of, bearer(KEY))


def test_wrong_keys_from_one_address_are_refused_after_a_while(clock: Clock, write: Callable[..., Path]) -> None:
    of = guard(clock, keys_file=write("shop"), wrong_keys=Rate(3, 60))
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            ask(of, bearer("wrong"))

    with pytest.raises(RateLimited) as caught:
        ask(of, bearer("wrong"))

    assert 0 < caught.value.retry_after_s <= 60
    assert ask(of, bearer(KEY)).name == "shop"  # the right one is let in from there
    with pytest.raises(Unauthenticated):
        ask(of, bearer("wrong"), address="192.0.2.2")
    with pytest.raises(Unauthenticated):  # which costs nobody anything
        ask(of, {})


def test_caller_has_the_rate_of_its_key_or_that_of_the_service(clock: Clock, write: Callable[..., Path]) -> None:
    of = guard(clock, keys_file=write("shop", limit="2/minute"), rate=Rate(5, 60))
    told: dict[str, str] = {}
    for _ in range(2):
        of.admit(Scope.PREDICT, bearer(KEY), "192.0.2.1", told)
    assert told == {"ratelimit-policy": '"default";q=2;w=60', "ratelimit": '"default";r=0;t=60'}

    with pytest.raises(RateLimited, match="no more than 2 requests in 60 seconds"):
        of.admit(Scope.PREDICT, bearer(KEY), "192.0.2.9", told)

    assert told["ratelimit"].startswith('"default";r=0;t=')


@fault("H21", sent="X-Forwarded-For from an untrusted and a trusted peer", expected="ignored; counted for the limit")
def test_callers_without_keys_are_told_apart_by_address(clock: Clock) -> None:
    of = guard(clock, rate=Rate(1, 60), proxies=networks_of(["10.0.0.0/8"]))
    ask(of, {})

    with pytest.raises(RateLimited):
        ask(of, {"x-forwarded-for": "198.51.100.7", "x-real-ip": "198.51.100.7", "forwarded": "for=198.51.100.7"})

    assert ask(of, {"x-forwarded-for": "198.51.100.7"}, address="10.0.0.1") is ANYBODY


def test_processes_share_a_limit(clock: Clock) -> None:
    of = guard(clock, rate=Rate(8, 60), processes=4)

    for _ in range(2):
        ask(of, {})

    with pytest.raises(RateLimited):
        ask(of, {})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(None, "No such file", id="no file"),
        pytest.param('{"keys": []}', "there is no key in it", id="no key"),
        pytest.param("{}", "expected JSON of the form", id="another form"),
    ],
)
def test_keys_that_cannot_be_used_are_said_at_once(content: str | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(CannotGuard, match=says) as caught:
        Guard(AccessRules(keys_file=path))

    assert str(path) in str(caught.value)


def test_public_keys_that_cannot_be_used_are_said_at_once(tmp_path: Path) -> None:
    pytest.importorskip("jwt", reason="tokens are an extra")
    (tmp_path / "jwks.json").write_text("{}")

    with pytest.raises(CannotGuard, match=r"jwks.json cannot be used: expected a JSON Web Key Set"):
        Guard(AccessRules(jwks_file=tmp_path / "jwks.json"))


def test_child_that_is_forked_while_others_ask_does_not_wait_for_them(clock: Clock, write: Callable[..., Path]) -> None:
    of = guard(clock, keys_file=write("shop"), rate=Rate(5, 60))
    ask(of, {"authorization": f"Bearer {KEY}"})
    for held in (of._wrong, *of._windows.values()):
        held._lock.acquire()  # by a thread that the child does not have

    of.renew()

    assert ask(of, {"authorization": f"Bearer {KEY}"}).name == "shop"
    with pytest.raises(Unauthenticated):
        ask(of, {"authorization": "Bearer wrong"})
