"""What travels: a request for a prediction, and its answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from service.core.signature import Signature
from service.core.table import Table, Values


@dataclass(frozen=True, slots=True)
class Target:
    """Which model is asked: None means the default model; version and label exclude each other."""

    model: str | None = None
    version: int | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """`outputs` are names from the signature, without repeats, in the order wanted."""

    rows: Table
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class InferReply:
    model: str
    version: int
    signature: Signature
    outputs: dict[str, Values]


# The state of a model that somebody unloaded, and the reason why each of its versions is not served.
UNLOADED: Final = "unloaded"


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A line of `GET /models`. `state` is that of the version a plain request gets, or UNLOADED.

    `versions` answer; each of `reasons` says why a version does not, and each of `codes` in a word for alerts.
    """

    name: str
    versions: tuple[int, ...]
    labels: dict[str, int]
    state: str
    served: int | None
    reasons: dict[int, str]
    codes: dict[int, str] = field(default_factory=dict)
