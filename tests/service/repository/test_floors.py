from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from service.core.artefact_errors import KeyUnusable
from service.repository.floors import Floors


def test_floor_is_the_highest_version_that_was_live() -> None:
    floors = Floors()

    for version in (2, 5, 3):
        floors.lift("iris", version)

    assert (floors.of("iris"), floors.of("wine")) == (5, 0)


def test_floor_outlives_the_process_in_its_file(tmp_path: Path) -> None:
    Floors(tmp_path / "versions").lift("iris", 3)

    assert Floors(tmp_path / "versions").of("iris") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["versions"]


def test_processes_that_share_a_file_never_lower_what_another_wrote(tmp_path: Path) -> None:
    first, second = Floors(tmp_path / "versions"), Floors(tmp_path / "versions")

    second.lift("iris", 7)
    first.lift("iris", 3)
    first.lift("wine", 1)

    assert json.loads((tmp_path / "versions").read_text()) == {"iris": 7, "wine": 1}
    assert first.of("iris") == 7


@pytest.mark.parametrize("content", ["", "[]", '{"iris": "3"}', '{"iris": true}'])
def test_damaged_file_lets_nobody_through(tmp_path: Path, content: str) -> None:
    (tmp_path / "versions").write_text(content)

    with pytest.raises(KeyUnusable, match="the file of highest versions cannot be read"):
        Floors(tmp_path / "versions")


def test_file_that_cannot_be_written_is_told_and_the_process_knows_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    floors = Floors(tmp_path / "nowhere" / "versions")

    with caplog.at_level(logging.ERROR):
        floors.lift("iris", 3)

    assert floors.of("iris") == 3
    assert "the highest version of iris cannot be written down" in caplog.text
