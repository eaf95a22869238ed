"""Signed tokens (JWT), checked with the public keys of a file; nothing is fetched.

The key decides the algorithm, never the token: `none`, and a public key used as the secret of an HMAC, verify nothing.
Source: RFC 7515, 7517, 7519, and RFC 8725 on how not to be fooled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from service.core.callers import Caller, Scope
from service.core.errors import TandemError
from service.guards.reread import Reread

# Tokens remembered with their callers: a signature takes a hundred microseconds to verify, a prediction often less.
_REMEMBERED: Final = 1024
_GRANTABLE: Final = {scope.value: scope for scope in Scope if scope is not Scope.PUBLIC}

PublicKeys = Mapping[str | None, Any]  # by key id; jwt.PyJWK


class JwksInvalid(TandemError):
    """The file of public keys cannot be used; the message says why."""

    title = "Key set unusable"


def parse_jwks(content: bytes) -> PublicKeys:
    """The keys of a JSON Web Key Set by their ids. One that is alone needs no id.

    Raises:
        JwksInvalid: not such a set, no key in it, an id twice, or a key that is not public.
    """
    from jwt import PyJWK  # only then: it takes 0.1 s, and is an extra
    from jwt.exceptions import PyJWTError

    try:
        entries = json.loads(content)["keys"]
        keys: dict[str | None, Any] = {}
        for entry in entries:
            if entry.get("kty") == "oct" or "d" in entry:
                raise JwksInvalid("expected public keys only: whoever can read a secret could sign with it")
            key = PyJWK(entry)
            if key.key_id in keys:
                raise JwksInvalid(f"key id {key.key_id!r} comes twice")
            keys[key.key_id] = key
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, PyJWTError) as error:
        raise JwksInvalid(f"expected a JSON Web Key Set of public keys: {type(error).__name__}") from error
    if not keys:
        raise JwksInvalid("there is no key in it")
    return keys


class Tokens:
    """Whose token that is. Safe to call from any thread.

    Args:
        issuer: what `iss` must be, if anything.
        audience: what `aud` must be or hold; without one, a token that has an audience is for somebody else.
    """

    def __init__(self, keys: Reread[PublicKeys], issuer: str | None, audience: str | None) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._of: PublicKeys = {}
        self._known: dict[bytes, tuple[Caller, float]] = {}

    def renew(self) -> None:
        """For a forked child."""
        self._keys.renew()

    def caller_with(self, token: str, now: float, wall: float) -> Caller | None:
        """`now` is seconds of a clock that never steps back, `wall` those since 1970."""
        keys = self._keys.value(now)
        if keys is not self._of:
            self._of, self._known = keys, {}
        digest = sha256(token.encode("ascii")).digest()
        caller, expires = self._known.get(digest) or self._verified(token, keys)
        if caller is None or wall >= expires:
            return None
        if len(self._known) >= _REMEMBERED:
            self._known = {}
        self._known[digest] = caller, expires
        return caller

    def _verified(self, token: str, keys: PublicKeys) -> tuple[Caller | None, float]:
        import jwt

        try:
            header = jwt.get_unverified_header(token)
            key = keys.get(header.get("kid")) if "kid" in header or len(keys) > 1 else next(iter(keys.values()))
            if key is None or "crit" in header:  # no extension is understood here
                return None, 0.0
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                options={"require": ["exp", *(["iss"] if self._issuer else []), *(["aud"] if self._audience else [])]},
            )
            return _caller_of(claims), float(claims["exp"])
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            return None, 0.0


def _caller_of(claims: Mapping[str, Any]) -> Caller:
    """The subject, with those of its scopes that mean something here."""
    granted = claims.get("scope")
    scopes = granted.split() if isinstance(granted, str) else []
    subject = str(claims.get("sub", ""))[:100]
    # No key is named like that, so that nobody counts as another.
    return Caller(f"jwt:{subject}", frozenset(_GRANTABLE[scope] for scope in scopes if scope in _GRANTABLE))
