"""How often callers may ask (section A, and H21)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from service.guards.keys import entry_of, new_key
from tests.conformance.servers import tandem_serve
from tests.faults.cases import Came, fault
from tests.faults.fronts import GOOD, Front, is_problem
from tests.faults.guarded import PROXY, SHOP, SLOW, SLOW_REQUESTS, WRONG_KEYS, Guarded


@fault("A05", sent="wrong keys from one address", expected="401, then 429 with Retry-After; others unaffected")
def test_wrong_keys_from_one_address(guarded: Guarded, came: Came) -> None:
    replies = [guarded.ask(json=GOOD, key=f"wrong-{n}", address="127.0.0.5") for n in range(WRONG_KEYS + 5)]

    came(dict(Counter(reply.status_code for reply in replies)))
    assert [reply.status_code for reply in replies] == [401] * WRONG_KEYS + [429] * 5
    is_problem(replies[-1], 429)
    assert int(replies[-1].headers["retry-after"]) >= 1
    assert guarded.ask(json=GOOD, key="wrong", address="127.0.0.6").status_code == 401
    assert guarded.ask(json=GOOD, key=SHOP, address="127.0.0.5").status_code == 200


@fault(
    "A05",
    "H21",
    sent="wrong keys with another X-Forwarded-For each time",
    expected="429: what strangers write is not heard",
)
def test_address_that_the_caller_made_up(guarded: Guarded, came: Came) -> None:
    def ask(number: int, address: str) -> int:
        headers = {
            "X-Forwarded-For": f"198.51.100.{number}", "X-Real-IP": f"198.51.100.{number}",
            "Forwarded": f"for=198.51.100.{number}",
        }  # fmt: skip
        return guarded.ask(json=GOOD, key="wrong", address=address, headers=headers).status_code

    stranger = Counter(ask(number, "127.0.0.7") for number in range(WRONG_KEYS + 5))
    proxy = Counter(ask(number, PROXY) for number in range(WRONG_KEYS + 5))

    came(f"from a stranger {dict(stranger)}", f"from a trusted proxy {dict(proxy)}")
    assert stranger == {401: WRONG_KEYS, 429: 5}
    assert proxy == {401: WRONG_KEYS + 5}


@fault("H21", sent="X-Forwarded-Proto, -Host, -Prefix from a stranger and a trusted proxy", expected="ignored")
@pytest.mark.parametrize("address", ["127.0.0.1", PROXY])
def test_other_forwarded_fields_mean_nothing(guarded: Guarded, address: str, came: Came) -> None:
    headers = {
        "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/evil",
        "X-Script-Name": "/models",
    }  # fmt: skip

    reply = guarded.ask("GET", "/models", address=address, headers=headers)

    came(reply.status_code)
    assert reply.status_code == 200
    assert "evil" not in reply.text + str(reply.headers)


@fault(
    "A14",
    sent="more than a key may ask, over connections of their own, with made-up addresses",
    expected="429 with Retry-After and RateLimit fields, and not one too many",
)
def test_key_that_asks_too_often(guarded: Guarded, came: Came) -> None:
    replies = [
        guarded.ask(json=GOOD, key=SLOW, address=f"127.0.0.{20 + n}", headers={"X-Forwarded-For": f"192.0.2.{n}"})
        for n in range(SLOW_REQUESTS + 3)
    ]

    came(dict(Counter(reply.status_code for reply in replies)), replies[-1].headers["ratelimit"])
    assert [reply.status_code for reply in replies] == [200] * SLOW_REQUESTS + [429] * 3
    assert [reply.headers["ratelimit"].split(";")[1] for reply in replies[:3]] == ["r=4", "r=3", "r=2"]
    is_problem(replies[-1], 429)
    assert replies[-1].headers["ratelimit-policy"] == f'"default";q={SLOW_REQUESTS};w=86400'
    assert 1 <= int(replies[-1].headers["retry-after"]) <= 86400
    assert guarded.ask(json=GOOD).status_code == 200


REQUESTS: Final = 20


@fault("A14", sent="more than a key may ask, spread over two workers", expected="in all no more than the limit")
def test_workers_share_a_limit(repository: Path, tmp_path: Path, came: Came) -> None:
    key = new_key()
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [entry_of("shop", key, ["predict"], [], f"{REQUESTS}/day", None)]}))
    models = tmp_path / "models"
    models.mkdir()
    (models / "numbers").symlink_to(repository / "numbers")

    with tandem_serve("--models", str(models), "--keys", str(keys), "--workers", "2", log=tmp_path / "log") as running:
        front = Front("uvicorn", running)
        statuses = Counter(
            front.ask("GET", "/models", headers={"Authorization": f"Bearer {key}"}).status_code
            for _ in range(3 * REQUESTS)
        )

    came(dict(statuses))
    assert REQUESTS // 2 <= statuses[200] <= REQUESTS
    assert statuses[200] + statuses[429] == 3 * REQUESTS
