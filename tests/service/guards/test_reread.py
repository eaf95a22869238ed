from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from service.core.errors import TandemError
from service.guards.reread import LOOK_EVERY_S, Reread


def parse(content: bytes) -> str:
    if content == b"broken":
        raise TandemError("it is broken")
    return content.decode()


def write(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)


def test_change_is_seen_within_the_time_that_is_promised(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, "one")
    file = Reread(path, parse, now=100.0)

    write(path, "two")

    assert file.value(100.0 + LOOK_EVERY_S / 2) == "one"
    assert file.value(100.0 + LOOK_EVERY_S) == "two"


def test_file_that_is_written_in_place_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    file = Reread(path, parse, now=0.0)

    path.write_text("two")
    os.utime(path, ns=(0, 0))

    assert file.value(10.0) == "two"


@pytest.mark.parametrize("how", ["broken", "gone", "a folder"])
def test_what_cannot_be_read_leaves_the_old_and_is_logged_once(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    write(path, "one")
    file = Reread(path, parse, now=0.0)

    if how == "broken":
        write(path, "broken")
    else:
        path.unlink()
    if how == "a folder":
        path.mkdir()
    with caplog.at_level(logging.ERROR):
        values = [file.value(float(second)) for second in range(1, 6)]

    assert values == ["one"] * 5
    assert len(caplog.records) == 1
    assert "what was read before still holds" in caplog.text


def test_what_is_mended_counts(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, "one")
    file = Reread(path, parse, now=0.0)
    path.unlink()
    file.value(1.0)

    write(path, "two")

    assert file.value(2.0) == "two"


def test_at_first_the_file_must_be_good(tmp_path: Path) -> None:
    path = tmp_path / "file"

    with pytest.raises(FileNotFoundError):
        Reread(path, parse, now=0.0)
    write(path, "broken")
    with pytest.raises(TandemError, match="it is broken"):
        Reread(path, parse, now=0.0)
