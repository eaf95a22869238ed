from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.artefact_errors import ManifestInvalid, NameInvalid
from service.repository.labels import promote, read_labels
from service.repository.manifest import LABELS, MANIFEST


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model with the versions 1, 2 and 10, and a folder 3 that no exporter finished."""
    for number in (1, 2, 10):
        (tmp_path / "iris" / str(number)).mkdir(parents=True)
        (tmp_path / "iris" / str(number) / MANIFEST).write_text("{}")
    (tmp_path / "iris" / "3").mkdir()
    return tmp_path


def test_model_without_the_file_has_no_labels(repository: Path) -> None:
    assert read_labels(repository / "iris") == {}


def test_promoted_version_is_what_the_label_points_at(repository: Path) -> None:
    before = promote(repository, "iris", 2)

    assert before is None
    assert read_labels(repository / "iris") == {"stable": 2}


def test_rolling_back_is_the_same_call(repository: Path) -> None:
    promote(repository, "iris", 2)

    assert promote(repository, "iris", 1) == 2
    assert promote(repository, "iris", 2) == 1


@given(moves=st.lists(st.tuples(st.sampled_from(["stable", "canary", "old"]), st.sampled_from([1, 2, 10]))))
def test_labels_are_the_last_that_each_was_pointed_at(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, int]]
) -> None:
    root = tmp_path_factory.mktemp("models")
    for number in (1, 2, 10):
        (root / "iris" / str(number)).mkdir(parents=True)
        (root / "iris" / str(number) / MANIFEST).write_text("{}")

    for label, number in moves:
        promote(root, "iris", number, label)

    assert read_labels(root / "iris") == dict(moves)


@pytest.mark.parametrize(
    ("name", "version", "label", "told"),
    [
        pytest.param("iris", 9, "stable", "model 'iris' has no version 9; it has 1, 2, 10", id="no such version"),
        pytest.param("iris", 3, "stable", "it has 1, 2, 10", id="unfinished version"),
        pytest.param("wine", 1, "stable", "model 'wine' has no version 1; it has none", id="no such model"),
        pytest.param("../iris", 1, "stable", "model name", id="name"),
        pytest.param("iris", 1, "a/b", "label 'a/b'", id="label"),
        pytest.param("iris", 1, "", "label ''", id="empty label"),
    ],
)
def test_what_is_not_there_cannot_be_promoted(repository: Path, name: str, version: int, label: str, told: str) -> None:
    with pytest.raises(NameInvalid) as caught:
        promote(repository, name, version, label)

    assert told in str(caught.value)
    assert not (repository / "iris" / LABELS).exists()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param("[1]", id="a list"),
        pytest.param('{"stable": "1"}', id="text for a version"),
        pytest.param('{"stable": true}', id="true for a version"),
        pytest.param('{"stable": 1.0}', id="float for a version"),
    ],
)
def test_damaged_labels_are_told_and_not_written_over(repository: Path, content: str) -> None:
    (repository / "iris" / LABELS).write_text(content)

    with pytest.raises(ManifestInvalid, match=r"iris/labels\.json"):
        promote(repository, "iris", 1)

    assert (repository / "iris" / LABELS).read_text() == content


def test_readers_see_the_old_labels_until_the_new_ones_are_whole(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(repository, "iris", 1)
    seen = []
    replace = os.replace

    def look_and_replace(draft: Path, target: Path) -> None:
        seen.append((read_labels(repository / "iris"), json.loads(Path(draft).read_text())))
        replace(draft, target)

    monkeypatch.setattr(os, "replace", look_and_replace)
    promote(repository, "iris", 2)

    assert seen == [({"stable": 1}, {"stable": 2})]
    assert sorted(entry.name for entry in (repository / "iris").iterdir()) == ["1", "10", "2", "3", LABELS]
