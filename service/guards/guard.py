"""The one question before a request is read: who asks, and may they?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.core.callers import ANYBODY, STRANGER, Caller, Rate, Scope
from service.core.errors import (
    RateLimited,
    TandemError,
    Unauthenticated,
    UnreadableRequest,
)
from service.guards.keys import Keys, caller_with, parse_keys, require_any
from service.guards.peers import Network, group_of, peer_of
from service.guards.rates import Verdict, Windows, rate_fields, share_of
from service.guards.reread import Reread
from service.guards.store import SharedWindows, shared_windows
from service.guards.tokens import Tokens, parse_jwks

AUTHORIZATION: Final = "authorization"
API_KEY: Final = "x-api-key"

_WRONG_KEYS: Final = Rate(100, 60)

# What is longer is no key and no token.
_LONGEST: Final = 8192


class CannotGuard(TandemError):
    """What callers are to be known by cannot be read; the message names the file."""

    title = "Cannot guard"


@dataclass(frozen=True, slots=True)
class AccessRules:
    """The settings that say who may ask; see there.

    `hosts` and `origins` are for HTTP. `processes` count apart where there is no `limit_store`.
    """

    keys_file: Path | None = None
    jwks_file: Path | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    rate: Rate | None = None
    wrong_keys: Rate = _WRONG_KEYS
    limit_store: str | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    proxies: tuple[Network, ...] = ()
    processes: int = 1

    @property
    def know_callers(self) -> bool:
        """Whether somebody may be refused for what they cannot show."""
        return self.keys_file is not None or self.jwks_file is not None


class Guard:
    """Knows callers and counts what they ask. Safe to call from any thread.

    Raises:
        CannotGuard: keys cannot be read, or there are none.
        StoreUnusable: limits cannot be kept where they should.
    """

    def __init__(
        self,
        rules: AccessRules,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.hosts = rules.hosts
        self.origins = rules.origins
        self._rules = rules
        self._clock = clock
        self._wall = wall
        self._keys = _keys_of(rules.keys_file, clock())
        self._tokens = _tokens_of(rules, clock())
        self._is_open = not rules.know_callers
        self._windows: dict[Rate, Windows] = {}
        self._wrong = Windows(share_of(rules.wrong_keys, rules.processes))
        self._store: SharedWindows | None = None
        if rules.limit_store is not None:
            self._store = shared_windows(rules.limit_store, self._count)

    def renew(self) -> None:
        """For a forked child, which may have been forked while a thread of the parent's asked."""
        for part in (self._keys, self._tokens, self._wrong, *self._windows.values()):
            if part is not None:
                part.renew()

    @property
    def may_wait(self) -> bool:
        """Whether `admit` may ask another machine, for which an event loop should not wait."""
        return self._store is not None

    def admit(self, scope: Scope | None, headers: Mapping[str, str], address: str, told: dict[str, str]) -> Caller:
        """Who asks for what needs `scope`; None where nothing is known that answers, or how.

        Args:
            headers: names in small letters; of names that came twice, the values joined by commas.
            address: of the other end of the connection.
            told: takes the fields that the reply shows, also where this raises.

        Raises:
            UnreadableRequest: credentials that contradict each other.
            Unauthenticated: none that are known.
            NotAllowed: theirs lack the scope.
            RateLimited: this caller, or wrong keys from there, come too often.
        """
        if scope is Scope.PUBLIC:
            return ANYBODY if self._is_open else STRANGER
        caller = ANYBODY if self._is_open else self._known(headers, address)
        if scope is not None:
            caller.require(scope)
        rate = caller.rate or self._rules.rate
        if rate is not None:
            self._pass(rate, caller.name or f"@{self.address_of(headers, address)}", told)
        return caller

    def knows(self, headers: Mapping[str, str], address: str) -> bool:
        """Whether the caller of an open connection is still known. Counts nothing that was asked."""
        try:
            return self._is_open or Scope.PREDICT in self._known(headers, address).scopes
        except (Unauthenticated, RateLimited):
            return False

    def _known(self, headers: Mapping[str, str], address: str) -> Caller:
        credentials = credentials_in(headers)
        if credentials is None:
            raise Unauthenticated
        now = self._clock()
        found = None
        if len(credentials) <= _LONGEST and credentials.isascii():
            if self._keys is not None:
                found = caller_with(credentials, self._keys.value(now), self._wall())
            if found is None and self._tokens is not None and credentials.count(".") == 2:
                found = self._tokens.caller_with(credentials, now, self._wall())
        if found is not None:
            return found
        # The right key is let in from there all the same: it cannot be guessed, and the address may be a proxy's.
        verdict = self._wrong.ask(self.address_of(headers, address), now)
        if not verdict.allowed:
            raise RateLimited("too many wrong keys came from this address", math.ceil(verdict.wait_s))
        raise Unauthenticated

    def _pass(self, rate: Rate, name: str, told: dict[str, str]) -> None:
        count = self._store.ask if self._store is not None else self._count
        verdict = count(rate, name, self._clock())
        told |= rate_fields(rate, verdict)
        if not verdict.allowed:
            detail = f"no more than {rate.requests} requests in {rate.seconds} seconds"
            raise RateLimited(detail, math.ceil(verdict.wait_s))

    def _count(self, rate: Rate, name: str, now: float) -> Verdict:
        windows = self._windows.get(rate)
        if windows is None:
            windows = self._windows.setdefault(rate, Windows(share_of(rate, self._rules.processes)))
        return windows.ask(name, now)

    def address_of(self, headers: Mapping[str, str], address: str) -> str:
        """Whom limits count as one caller, where no key tells."""
        return group_of(peer_of(address, headers.get("x-forwarded-for"), self._rules.proxies))


def guard_of(rules: AccessRules) -> Guard | None:
    """None where nobody is asked for anything, and nothing is counted."""
    return Guard(rules) if rules.know_callers or rules.rate or rules.hosts or rules.origins else None


def credentials_in(headers: Mapping[str, str]) -> str | None:
    """The key or token of a request; the query has none.

    Raises:
        UnreadableRequest: several, of which one would have to be chosen.
    """
    authorization, key = headers.get(AUTHORIZATION), headers.get(API_KEY)
    if authorization is None:
        found = key
    else:
        scheme, _, found = authorization.partition(" ")
        if "," in authorization or (key is not None and key != found):
            raise UnreadableRequest("the request has several keys; send one")
        if scheme.lower() != "bearer":
            return None
    if found is not None and "," in found:
        raise UnreadableRequest("the request has several keys; send one")
    return found or None


def _keys_of(path: Path | None, now: float) -> Reread[Keys] | None:
    if path is None:
        return None
    try:
        keys = Reread(path, parse_keys, now)
        require_any(keys.value(now))
    except (OSError, TandemError) as error:
        raise CannotGuard(f"the keys in {path} cannot be used: {_reason(error)}") from error
    return keys


def _tokens_of(rules: AccessRules, now: float) -> Tokens | None:
    if rules.jwks_file is None:
        return None
    try:
        keys = Reread(rules.jwks_file, parse_jwks, now)
    except ImportError as error:
        raise CannotGuard("tokens need PyJWT: pip install 'tandem-serving[jwt]'") from error
    except (OSError, TandemError) as error:
        raise CannotGuard(f"the public keys in {rules.jwks_file} cannot be used: {_reason(error)}") from error
    return Tokens(keys, rules.jwt_issuer, rules.jwt_audience)


def _reason(error: Exception) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
