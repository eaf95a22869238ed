"""API keys: a JSON file of hashes, one entry per key.

    {"keys": [{"name": "shop", "sha256": "…", "scopes": ["predict"], "models": ["churn"], "limit": "100/minute",
               "expires": "2027-01-31T00:00:00Z"}]}

The file holds no key. A plain SHA-256 is the right hash here: a slow one protects passwords, which can be guessed;
a key is 256 random bits, of which nobody tries any part, and it is hashed anew for every request.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from service.core.callers import Caller, Rate, Scope
from service.core.errors import TandemError
from service.core.names import is_foreign_name, is_name
from service.guards.rates import parse_rate

# So that a key that leaked into a repository is found by those who scan for them.
PREFIX: Final = "tandem_"

_FIELDS: Final = {"name", "sha256", "scopes", "models", "limit", "expires"}
# What stands in examples, and in files that somebody meant to fill in later.
_SAMPLES: Final = frozenset(
    sha256(text.encode()).hexdigest()
    for text in ("", "KEY", "key", "test", "secret", "password", "changeme", "change-me", "example", f"{PREFIX}…")
)


class KeysInvalid(TandemError):
    """The file of keys cannot be used; the message names the entry."""

    title = "Keys unusable"


@dataclass(frozen=True, slots=True)
class Key:
    """One entry. `expires` is seconds since 1970."""

    name: str
    caller: Caller
    digest: str
    expires: float | None = None


Keys = Mapping[str, Key]  # by digest


def new_key() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    return sha256(key.encode("ascii")).hexdigest()


def caller_with(key: str, keys: Keys, wall: float) -> Caller | None:
    """Whose key that is, at `wall` seconds since 1970.

    How long a look-up by hash takes tells at most something of the hash of a guess, and nothing of a key. Digests
    are compared once more in a time that tells nothing at all.
    """
    digest = digest_of(key)
    found = keys.get(digest)
    if found is None or not hmac.compare_digest(found.digest.encode(), digest.encode()):
        return None
    return None if found.expires is not None and wall >= found.expires else found.caller


def parse_keys(content: bytes) -> Keys:
    """The keys of a file by their digests.

    Raises:
        KeysInvalid: it is not of the form above, a name or a key comes twice, or a key is empty or a sample.
    """
    try:
        entries = json.loads(content)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise KeysInvalid('expected JSON of the form {"keys": [{"name": …, "sha256": …, "scopes": […]}]}') from None
    if not isinstance(entries, list):
        raise KeysInvalid('"keys": expected a list')
    keys: dict[str, Key] = {}
    names: set[str] = set()
    for number, entry in enumerate(entries):
        key = _parsed(entry, f"key {number}")
        if key.name in names or key.digest in keys:
            raise KeysInvalid(f"key {key.name!r} comes twice, by its name or by its hash")
        names.add(key.name)
        keys[key.digest] = key
    return keys


def require_any(keys: Keys) -> Keys:
    """Raises KeysInvalid where there is none: a service that starts like that answers nobody."""
    if not keys:
        raise KeysInvalid("there is no key in it: tandem api-keys create NAME makes one")
    return keys


def entry_of(
    name: str, key: str, scopes: Iterable[str], models: Iterable[str], limit: str | None, expires: str | None
) -> dict[str, Any]:
    """What the file says of `key`. Raises KeysInvalid."""
    optional = {"models": list(models) or None, "limit": limit, "expires": expires}
    entry = {"name": name, "sha256": digest_of(key), "scopes": list(scopes)}
    entry |= {field: value for field, value in optional.items() if value is not None}
    _parsed(entry, "the key")
    return entry


def _parsed(entry: Any, where: str) -> Key:
    if not isinstance(entry, dict):
        raise KeysInvalid(f"{where}: expected an object")
    name = entry.get("name")
    if not isinstance(name, str) or not is_name(name):
        raise KeysInvalid(f"{where}: expected a name of letters, digits, dots, dashes and underscores")
    where = f"key {name!r}"
    if unknown := entry.keys() - _FIELDS:
        raise KeysInvalid(f"{where}: unknown field {min(unknown)!r}")
    caller = Caller(name, _scopes(entry, where), _models(entry, where), _rate(entry, where))
    return Key(name, caller, _digest(entry, where), _expires(entry, where))


def _digest(entry: dict[str, Any], where: str) -> str:
    digest = entry.get("sha256")
    if not isinstance(digest, str) or len(digest) != 64 or set(digest.lower()) - set("0123456789abcdef"):
        raise KeysInvalid(f"{where}: expected sha256 in 64 hexadecimal digits")
    if digest.lower() in _SAMPLES:
        raise KeysInvalid(f"{where} is empty or a sample: tandem api-keys create makes a real one")
    return digest.lower()


def _scopes(entry: dict[str, Any], where: str) -> frozenset[Scope]:
    scopes = entry.get("scopes")
    grantable = [scope.value for scope in Scope if scope is not Scope.PUBLIC]
    if not isinstance(scopes, list) or not scopes or any(scope not in grantable for scope in scopes):
        raise KeysInvalid(f"{where}: expected scopes, some of {', '.join(grantable)}")
    return frozenset(map(Scope, scopes))


def _models(entry: dict[str, Any], where: str) -> frozenset[str] | None:
    models = entry.get("models")
    if models is None:
        return None
    if not isinstance(models, list) or not all(isinstance(model, str) and is_foreign_name(model) for model in models):
        raise KeysInvalid(f"{where}: expected models as a list of names")
    return frozenset(models)


def _rate(entry: dict[str, Any], where: str) -> Rate | None:
    limit = entry.get("limit")
    try:
        return None if limit is None else parse_rate(limit)
    except ValueError as error:
        raise KeysInvalid(f"{where}: limit: {error}") from None


def _expires(entry: dict[str, Any], where: str) -> float | None:
    expires = entry.get("expires")
    if expires is None:
        return None
    try:
        at = datetime.fromisoformat(expires)
    except (TypeError, ValueError):
        raise KeysInvalid(f"{where}: expected expires as an ISO 8601 date, got {str(expires)[:40]!r}") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
