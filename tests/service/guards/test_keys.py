from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from service.core.callers import Caller, Rate, Scope
from service.guards.keys import KeysInvalid, caller_with, digest_of, entry_of, new_key, parse_keys, require_any
from tests.faults.cases import fault

KEY = new_key()
NOW = 1_800_000_000.0


def file_of(**changes: Any) -> bytes:
    entry = {"name": "shop", "sha256": digest_of(KEY), "scopes": ["predict"], **changes}
    return json.dumps({"keys": [{name: value for name, value in entry.items() if value is not ...}]}).encode()


def test_key_is_long_random_and_found_by_scanners() -> None:
    assert KEY.startswith("tandem_") and len(KEY) >= 50
    assert new_key() != KEY


def test_key_stands_for_its_caller() -> None:
    keys = parse_keys(file_of(scopes=["predict", "metrics"], models=["churn"], limit="5/second"))

    found = caller_with(KEY, keys, NOW)

    assert found == Caller("shop", frozenset({Scope.PREDICT, Scope.METRICS}), frozenset({"churn"}), Rate(5, 1))


@pytest.mark.parametrize(
    "wrong",
    [KEY[:-1], KEY + "a", "a" + KEY, KEY.swapcase(), "x", digest_of(KEY)],
    ids=["shorter", "longer", "begins otherwise", "case", "x", "its hash"],
)
def test_no_other_key_does(wrong: str) -> None:
    assert caller_with(wrong, parse_keys(file_of()), NOW) is None


@pytest.mark.parametrize(
    ("expires", "known"),
    [
        pytest.param("2027-01-15T08:00:01Z", True, id="a second before"),
        pytest.param("2027-01-15T08:00:00+00:00", False, id="then"),
        pytest.param("2027-01-15", False, id="at the midnight before"),
    ],
)
def test_key_expires(expires: str, known: bool) -> None:
    assert (caller_with(KEY, parse_keys(file_of(expires=expires)), NOW) is not None) is known


def test_only_the_hash_is_kept() -> None:
    entry = entry_of("shop", KEY, ["predict"], [], None, None)

    assert entry == {"name": "shop", "sha256": sha256(KEY.encode()).hexdigest(), "scopes": ["predict"]}


@fault("A12", sent="a file without a key, with an empty or a sample key", expected="refused at start")
@pytest.mark.parametrize("sample", ["", "changeme", "secret", "KEY"])
def test_sample_key_is_refused(sample: str) -> None:
    with pytest.raises(KeysInvalid, match="'shop' is empty or a sample"):
        parse_keys(file_of(sha256=sha256(sample.encode()).hexdigest()))


@fault("A12", sent="a file without a key, with an empty or a sample key", expected="refused at start")
def test_no_key_at_all_is_refused() -> None:
    with pytest.raises(KeysInvalid, match="there is no key in it"):
        require_any(parse_keys(b'{"keys": []}'))


def test_models_of_others_are_spelt_as_they_spell_them() -> None:
    (key,) = parse_keys(file_of(models=["org/Name-7B:q4@main"])).values()

    assert key.caller.models == {"org/Name-7B:q4@main"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"name": "a b"}, "expected a name", id="name"),
        pytest.param({"name": ...}, "expected a name", id="no name"),
        pytest.param({"sha256": ""}, "sha256 in 64", id="empty hash"),
        pytest.param({"sha256": ...}, "sha256 in 64", id="no hash"),
        pytest.param({"sha256": KEY}, "sha256 in 64", id="the key itself"),
        pytest.param({"scopes": []}, "expected scopes, some of predict, generate, metrics, admin", id="no scope"),
        pytest.param({"scopes": ["root"]}, "expected scopes", id="another scope"),
        pytest.param({"scopes": ["public"]}, "expected scopes", id="what needs no key"),
        pytest.param({"scopes": "predict"}, "expected scopes", id="scopes as text"),
        pytest.param({"models": "churn"}, "models as a list of names", id="models as text"),
        pytest.param({"models": ["../churn"]}, "models as a list of names", id="no model name"),
        pytest.param({"limit": "many"}, "limit: expected a rate", id="limit"),
        pytest.param({"expires": "soon"}, "expires as an ISO 8601 date", id="expires"),
        pytest.param({"expires": 5}, "expires as an ISO 8601 date", id="expires as a number"),
        pytest.param({"key": KEY}, "unknown field 'key'", id="unknown field"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said_with_its_name(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(KeysInvalid, match=says) as caught:
        parse_keys(file_of(**changes))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"null", b'{"keys": {}}', b'{"keys": [5]}', b"\xff", b"[" * 9999]
)
def test_file_of_another_form_is_refused(content: bytes) -> None:
    with pytest.raises(KeysInvalid, match="expected"):
        parse_keys(content)


@pytest.mark.parametrize("second", [{"name": "bank"}, {"sha256": digest_of(new_key())}], ids=["key", "name"])
def test_name_or_key_that_comes_twice_is_refused(second: dict[str, str]) -> None:
    entry = json.loads(file_of())["keys"][0]

    with pytest.raises(KeysInvalid, match="comes twice"):
        parse_keys(json.dumps({"keys": [entry, entry | second]}).encode())
