"""The states of a version, and the moves between them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    LOADING = "loading"
    LIVE = "live"
    DRAINING = "draining"
    GONE = "gone"
    FAILED = "failed"


MOVES: Final = {
    State.LOADING: {State.LIVE, State.FAILED},  # digests and golden rows must agree first
    State.LIVE: {State.DRAINING},
    State.DRAINING: {State.GONE},  # only when the last lease is returned
    State.FAILED: set[State](),  # until its files change, which makes it another version
    State.GONE: set[State](),
}
