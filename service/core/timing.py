"""What one request took on its way, written down where it happens and read when it was answered."""

from __future__ import annotations

from time import perf_counter
from typing import Final

# The model of a request that asked for one that is not there: callers choose names, and there is no end of them.
UNKNOWN: Final = "unknown"

STAGES: Final = ("decode", "queue", "compute", "encode")


class Timing:
    """Travels with the request's deadline. Times are those of `perf_counter`, in seconds; 0 where it did not happen.

    `model` is None where no prediction was asked for. Each field is written by the one thread that has the request
    then, and read by whoever answers it: what comes after a deadline may be missing.
    """

    __slots__ = ("begun_at", "decode_s", "done_at", "model", "rows", "submitted_at", "version")

    def __init__(self) -> None:
        self.model: str | None = None
        self.version = 0
        self.rows = 0
        self.decode_s = 0.0
        self.submitted_at = 0.0  # its rows are there, and may have to wait
        self.begun_at = 0.0  # they are computed
        self.done_at = 0.0

    def decoded(self, started_at: float, rows: int) -> None:
        """`rows` were read out of the request, since `started_at`, and are handed on now."""
        self.submitted_at = perf_counter()
        self.decode_s = self.submitted_at - started_at
        self.rows = rows

    def stages(self, ended_at: float) -> tuple[float, ...]:
        """The seconds of those STAGES that were over when it was answered at `ended_at`, from the first one on."""
        if 0 < self.done_at <= ended_at:
            begun_at = self.begun_at
            return self.decode_s, begun_at - self.submitted_at, self.done_at - begun_at, ended_at - self.done_at
        if 0 < self.begun_at <= ended_at:
            return self.decode_s, self.begun_at - self.submitted_at
        return (self.decode_s,) if self.submitted_at else ()
