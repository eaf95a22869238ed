"""The picture, from results as they are written."""

from __future__ import annotations

from pathlib import Path

from benchmarks.load import Load
from benchmarks.models import LOGISTIC
from benchmarks.plot import draw, times
from benchmarks.report import Run, content
from benchmarks.targets import ECHO_ASGI, NAIVE_FASTAPI, TANDEM_FASTAPI, Cell


def test_picture_is_drawn_from_whatever_was_measured(tmp_path: Path) -> None:
    by_name = {name: [Load(rps, 1, 2)] * 3 for name, rps in ((NAIVE_FASTAPI, 100), (ECHO_ASGI, 9000))}
    run = Run(rounds={Cell(LOGISTIC.name, 1, 64): by_name})

    draw(content(run, {}), tmp_path / "serving.png")

    assert (tmp_path / "serving.png").read_bytes().startswith(b"\x89PNG")


def test_mark_of_tandem_tells_how_many_times_the_naive_app() -> None:
    found = {
        ("logistic", 1, TANDEM_FASTAPI): {"runs": [{"rps": 720}, {"rps": 650}, {"rps": 10}]},
        ("logistic", 1, NAIVE_FASTAPI): {"runs": [{"rps": 100}, {"rps": 100}, {"rps": 100}]},
    }

    assert times(found, "logistic", 1, TANDEM_FASTAPI).strip() == "6.5 ×"
    assert times(found, "logistic", 1, NAIVE_FASTAPI) == ""
