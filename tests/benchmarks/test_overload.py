from __future__ import annotations

from typing import Any

import pytest

from benchmarks.overload import Tally, verdicts


def figures(accepted_ms: list[float], refused_ms: list[float]) -> dict[str, Any]:
    tally = Tally(sent=len(accepted_ms) + len(refused_ms), accepted=accepted_ms, refused=refused_ms, seconds=1.0)
    return tally.figures()


def test_every_reply_is_counted_once_and_compared_with_its_own_answer() -> None:
    tally = Tally(sent=5, seconds=1.0)

    tally.take(200, b'{"predictions": [7.0]}', 7, 1.0)
    tally.take(200, b'{"predictions": [8.0]}', 7, 2.0)
    tally.take(503, b"", 7, 3.0)
    tally.take(500, b"", 7, 4.0)

    found = tally.figures()
    assert (found["accepted"], found["refused"], found["others"], found["wrong"]) == (2, 1, {"500": 1}, 1)
    assert found["lost"] == 1


@pytest.mark.parametrize(
    ("accepted_ms", "refused_ms", "shown"),
    [
        pytest.param([199.0], [9.0], True, id="within the bounds"),
        pytest.param([201.0], [9.0], False, id="accepted too late"),
        pytest.param([199.0], [11.0], False, id="refused too late"),
    ],
)
def test_what_is_to_be_shown(accepted_ms: list[float], refused_ms: list[float], shown: bool) -> None:
    found = {"capacity": figures([100.0], []), "overload": figures(accepted_ms, refused_ms), "well_after": True}

    assert all(verdicts(found).values()) is shown
