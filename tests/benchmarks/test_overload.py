from __future__ import annotations

from typing import Any

import pytest

from benchmarks import overload
from benchmarks.overload import Tally, undisturbed, verdicts


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
    under_load = figures(accepted_ms, refused_ms)
    found = {
        "capacity": figures([100.0], []),
        "overload": under_load,
        "undisturbed": under_load,
        "well_after": True,
    }

    assert all(verdicts(found).values()) is shown


def test_a_second_is_ours_where_nothing_was_stolen_in_it_nor_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload.os, "cpu_count", lambda: 1)
    tally = Tally(came=[(second + 0.5, second % 2 == 0, 10.0 * second) for second in range(6)])
    stolen_s = [(0.0, 0.0), (1.0, 0.0), (2.0, 0.0), (3.0, 0.5), (4.0, 0.5), (5.0, 0.505), (6.0, 0.505)]

    found = undisturbed(tally, stolen_s)

    # What came in the seconds from 1, 4 and 5; before the first one nobody looked.
    assert found == {"seconds": 3, "accepted_p99_ms": 40.0, "refused_p99_ms": 50.0}


def test_where_every_second_was_disturbed_nothing_is_said() -> None:
    found = undisturbed(Tally(came=[(1.5, True, 1.0)]), [(0.0, 0.0), (1.0, 9.0), (2.0, 18.0)])

    assert found == {"seconds": 0, "accepted_p99_ms": None, "refused_p99_ms": None}
