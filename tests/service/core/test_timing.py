from __future__ import annotations

import pytest

from service.core.timing import STAGES, Timing


def timing_of(
    *, decode_s: float = 0.0, submitted_at: float = 0.0, begun_at: float = 0.0, done_at: float = 0.0
) -> Timing:
    timing = Timing()
    timing.decode_s, timing.submitted_at, timing.begun_at, timing.done_at = decode_s, submitted_at, begun_at, done_at
    return timing


@pytest.mark.parametrize(
    ("timing", "stages"),
    [
        pytest.param(Timing(), {}, id="nothing was asked of a model"),
        pytest.param(timing_of(decode_s=0.25, submitted_at=1.0), {"decode": 0.25}, id="refused at the queue"),
        pytest.param(
            timing_of(decode_s=0.25, submitted_at=1.0, begun_at=3.0), {"decode": 0.25, "queue": 2.0}, id="engine failed"
        ),
        pytest.param(
            timing_of(decode_s=0.25, submitted_at=1.0, begun_at=3.0, done_at=7.0),
            {"decode": 0.25, "queue": 2.0, "compute": 4.0, "encode": 1.0},
            id="answered",
        ),
        pytest.param(
            timing_of(decode_s=0.25, submitted_at=1.0, begun_at=3.0, done_at=9.0),
            {"decode": 0.25, "queue": 2.0},
            id="answered before it was computed",
        ),
    ],
)
def test_stages_are_those_that_were_over_at_the_answer(timing: Timing, stages: dict[str, float]) -> None:
    assert dict(zip(STAGES, timing.stages(ended_at=8.0), strict=False)) == stages


def test_rows_wait_from_when_they_were_decoded() -> None:
    timing = Timing()

    timing.decoded(started_at=0.0, rows=3)

    assert timing.rows == 3
    assert timing.decode_s == timing.submitted_at > 0
