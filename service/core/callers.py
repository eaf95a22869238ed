"""Who asks, and what they may: nothing here knows how callers prove who they are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from service.core.errors import NotAllowed


class Scope(StrEnum):
    """What a caller must be allowed to do. Every route names one, so that none is left open by accident."""

    PUBLIC = "public"
    PREDICT = "predict"  # and look at what can be asked
    GENERATE = "generate"  # text, by the language model behind this service
    METRICS = "metrics"
    ADMIN = "admin"  # changes what is served


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in any `seconds`."""

    requests: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Caller:
    """`name` is for logs and limits, and None for one of whom nothing is known. `models` None means all of them."""

    name: str | None
    scopes: frozenset[Scope]
    models: frozenset[str] | None = None
    rate: Rate | None = None

    def require(self, scope: Scope) -> None:
        """Raises NotAllowed where this caller lacks `scope`."""
        if scope is not Scope.PUBLIC and scope not in self.scopes:
            raise NotAllowed(f"this key is not for that: it lacks the scope {scope.value!r}")


# Where no keys are configured: everybody who reaches the service.
ANYBODY: Final = Caller(None, frozenset(Scope))
# Where there are keys: who shows none may ask whether the service is well, and learns of no model.
STRANGER: Final = Caller(None, frozenset(), frozenset())
