from __future__ import annotations

import json
import logging
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from service.core.errors import NotAllowed
from service.repository.labels import promote
from service.repository.manifest import GOLDEN, LABELS, MANIFEST, MODEL
from service.repository.sources import GAP_S, SPARE_VERSIONS, BareFile, Folder, Source, bare_name, source_in
from tests.faults.cases import fault
from tests.service.repository.test_reading import UNSAFE


def _put(root: Path, name: str, number: str, *, manifest: bool = True) -> Path:
    folder = root / name / number
    folder.mkdir(parents=True)
    for file in (MODEL, GOLDEN, *([MANIFEST] if manifest else [])):
        (folder / file).write_bytes(b"1")
    return folder


def test_versions_are_found_by_model_and_number(tmp_path: Path) -> None:
    for name, number in (("iris", "10"), ("iris", "2"), ("wine", "1")):
        _put(tmp_path, name, number)

    snapshot = Folder(tmp_path).scan()

    assert {name: list(found) for name, found in snapshot.versions.items()} == {"iris": [2, 10], "wine": [1]}
    found = snapshot.versions["iris"][10]
    assert (found.name, found.version, found.path, found.is_bare) == ("iris", 10, tmp_path / "iris" / "10", False)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        pytest.param(".staging-1234", "1", id="draft of an exporter"),
        pytest.param("two words", "1", id="no model's name"),
        pytest.param("iris", "01", id="leading zero"),
        pytest.param("iris", "0", id="zero"),
        pytest.param("iris", "latest", id="word"),
        pytest.param("iris", "1.bak", id="copy"),
    ],
)
def test_what_is_not_spelt_as_a_version_is_passed_over(tmp_path: Path, name: str, number: str) -> None:
    _put(tmp_path, name, number)

    assert Folder(tmp_path).scan().versions == {}


def test_version_without_a_manifest_does_not_exist(tmp_path: Path) -> None:
    _put(tmp_path, "iris", "1", manifest=False)

    assert Folder(tmp_path).scan().versions == {}


def test_files_between_the_folders_are_passed_over(tmp_path: Path) -> None:
    _put(tmp_path, "iris", "1")
    (tmp_path / "README").write_text("")
    (tmp_path / "iris" / "2").write_text("")

    assert list(Folder(tmp_path).scan().versions["iris"]) == [1]


@pytest.mark.parametrize("file", [MANIFEST, MODEL, GOLDEN])
@pytest.mark.parametrize("change", ["longer", "touched", "replaced", "removed and back"])
def test_version_is_another_one_when_a_file_of_it_changes(tmp_path: Path, file: str, change: str) -> None:
    path = _put(tmp_path, "iris", "1") / file
    source = Folder(tmp_path)
    before = source.scan().versions["iris"][1]
    status = path.stat()

    match change:
        case "longer":
            path.write_bytes(b"12")
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        case "touched":
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        case "replaced":  # by a file of the same size and time
            twin = tmp_path / "twin"
            shutil.copy2(path, twin)
            os.replace(twin, path)
        case _:
            path.rename(tmp_path / "aside")
            during = source.scan().versions.get("iris", {}).get(1)
            (tmp_path / "aside").rename(path)
            assert during != before
            assert source.scan().versions["iris"][1] == before
            return

    assert source.scan().versions["iris"][1] != before


def test_version_is_the_same_while_nothing_changes(tmp_path: Path) -> None:
    _put(tmp_path, "iris", "1")
    source = Folder(tmp_path)

    assert source.scan() == source.scan()


def test_labels_come_with_the_versions(tmp_path: Path) -> None:
    _put(tmp_path, "iris", "1")
    _put(tmp_path, "wine", "1")
    promote(tmp_path, "iris", 1)

    assert Folder(tmp_path).scan().labels == {"iris": {"stable": 1}, "wine": {}}


def test_damaged_labels_leave_those_read_before_and_complain_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _put(tmp_path, "iris", "1")
    promote(tmp_path, "iris", 1)
    source = Folder(tmp_path)
    source.scan()

    (tmp_path / "iris" / LABELS).write_text("")
    with caplog.at_level(logging.ERROR):
        labels = [source.scan().labels["iris"] for _ in range(3)]

    assert labels == [{"stable": 1}] * 3
    assert [record.message for record in caplog.records] == ["iris/labels.json is not JSON"]


def test_labels_that_were_damaged_from_the_start_are_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _put(tmp_path, "iris", "1")
    (tmp_path / "iris" / LABELS).mkdir()

    assert Folder(tmp_path).scan().labels == {"iris": {}}
    assert len(caplog.records) == 1


def test_promoted_version_is_the_stable_one(tmp_path: Path) -> None:
    for number in ("1", "2"):
        _put(tmp_path, "iris", number)
    promote(tmp_path, "iris", 2, "canary")
    source = Folder(tmp_path)

    source.promote("iris", 1)

    assert source.scan().labels == {"iris": {"canary": 2, "stable": 1}}


def test_labels_that_cannot_be_written_are_not_allowed_to_change(tmp_path: Path) -> None:
    _put(tmp_path, "iris", "1")
    (tmp_path / "iris" / LABELS).mkdir()
    bare = tmp_path / "iris.joblib"
    bare.touch()

    with pytest.raises(NotAllowed, match="the folder of models cannot be written"):
        Folder(tmp_path).promote("iris", 1)
    with pytest.raises(NotAllowed, match="a bare file has no labels"):
        BareFile(bare).promote("iris", 1)


@pytest.mark.parametrize("kind", [Folder, BareFile])
def test_what_is_not_there_says_so(tmp_path: Path, kind: type[Folder] | type[BareFile]) -> None:
    source: Source = kind(tmp_path / "nowhere")

    with pytest.raises(FileNotFoundError):
        source.scan()


def test_bare_file_is_version_one_of_a_model_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "churn-2.joblib"
    path.write_bytes(b"1")

    snapshot = BareFile(path).scan()

    found = snapshot.versions["churn-2"][1]
    assert (found.path, found.is_bare) == (path, True)
    assert snapshot.labels == {"churn-2": {}}


def test_bare_file_that_was_saved_again_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "churn.joblib"
    path.write_bytes(b"1")
    source = BareFile(path)
    before = source.scan()

    path.write_bytes(b"12")

    assert source.scan() != before


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("churn.joblib", "churn"), ("churn.v2.pkl", "churn.v2"), ("my model.joblib", "model"),
        ("größe.joblib", "model"), (".joblib", "model"),
    ],
)  # fmt: skip
def test_bare_file_whose_name_no_url_can_hold_is_called_model(file: str, name: str) -> None:
    assert bare_name(Path(file)) == name


# One model, copied out of its folder


@pytest.mark.parametrize("places", [{2: ""}, {2: "2"}, {2: "2", 3: "3"}], ids=["a version", "a model", "two versions"])
def test_versions_are_found_where_they_were_copied_to(tmp_path: Path, places: dict[int, str]) -> None:
    for version, place in places.items():
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / MANIFEST).write_text(json.dumps({"name": "iris", "version": version}))
    (tmp_path / "labels.json").write_text('{"stable": 2}')

    snapshot = source_in(tmp_path).scan()

    assert {n: (v.name, v.version, v.path) for n, v in snapshot.versions["iris"].items()} == {
        version: ("iris", version, tmp_path / place) for version, place in places.items()
    }
    assert snapshot.labels == {"iris": {"stable": 2}}


@pytest.mark.parametrize("content", ["", "[]", '{"name": 5, "version": "x"}', '{"name": "../x", "version": 4}'])
def test_a_version_with_a_damaged_manifest_is_found_too_so_that_somebody_hears_of_it(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "4").mkdir()
    (tmp_path / "4" / MANIFEST).write_text(content)

    assert list(source_in(tmp_path).scan().versions["model"]) == [4]


def test_labels_of_a_copied_model_are_not_changed(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text('{"name": "iris", "version": 1}')

    with pytest.raises(NotAllowed):
        source_in(tmp_path).promote("iris", 1)


@pytest.mark.parametrize("place", ["", "iris/1"])
def test_a_folder_of_models_is_one(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    if place:
        (tmp_path / place / MANIFEST).write_text("{}")

    assert type(source_in(tmp_path)) is Folder
    assert type(source_in(tmp_path / "not there yet")) is Folder


# What anybody may have put there


@fault(
    "M15", "N05",
    sent="in a version's folder: a link, a loop of links, a pipe, a socket, a device, a folder called manifest.json",
    expected="the version is skipped with a reason, said once; the others are found",
)  # fmt: skip
@pytest.mark.parametrize("file", [MANIFEST, MODEL, "more"])
@pytest.mark.parametrize(("put", "kind"), UNSAFE)
def test_version_with_anything_but_files_is_skipped_with_the_reason(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    file: str,
    put: Callable[[Path], None],
    kind: str,
) -> None:
    if kind == "a folder" and file != MANIFEST:
        pytest.skip("such a folder is no danger to who looks, and is refused at load")
    bad, _ = _put(tmp_path, "iris", "2"), _put(tmp_path, "iris", "1")
    (bad / file).unlink(missing_ok=True)
    with monkeypatch.context() as patch:
        patch.chdir(bad)
        put(Path(file))
    source = Folder(tmp_path)

    snapshots = [source.scan() for _ in range(3)]

    told = f"iris/2/{file} is {kind}; only regular files are opened"
    assert list(snapshots[2].versions["iris"]) == [1]
    assert {number: (error.code, str(error)) for number, error in snapshots[2].skipped["iris"].items()} == {
        2: ("file-unsafe", told)
    }
    assert [record.message for record in caplog.records] == [told]


@fault("N05", sent="folders of models and versions that are symbolic links", expected="refused at scan, reason logged")
def test_folders_that_are_links_are_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root, outside = tmp_path / "models", tmp_path / "outside"
    _put(root, "iris", "1")
    _put(outside, "secret", "2")
    (root / "wine").symlink_to(outside / "secret")
    (root / "iris" / "2").symlink_to(outside / "secret" / "2")
    (root / "iris" / "3").symlink_to("..")

    snapshot = Folder(root).scan()

    assert {name: list(found) for name, found in snapshot.versions.items()} == {"iris": [1]}
    assert {number: error.code for number, error in snapshot.skipped["iris"].items()} == dict.fromkeys(
        (2, 3), "file-unsafe"
    )
    assert [record.message for record in caplog.records] == [
        "wine is a symbolic link, and none is followed",
        "iris/2 is a symbolic link, and none is followed",
        "iris/3 is a symbolic link, and none is followed",
    ]


@fault("M15", sent="a pipe called labels.json", expected="nothing waits for it")
def test_labels_that_are_a_pipe_are_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _put(tmp_path, "iris", "1")
    os.mkfifo(tmp_path / "iris" / LABELS)

    assert Folder(tmp_path).scan().labels == {"iris": {}}
    assert "iris/labels.json is a named pipe" in caplog.text


@fault("M15", sent="a file of 100 GB", expected="the version is skipped with a reason, and nothing is read")
def test_version_that_is_too_large_is_skipped(tmp_path: Path) -> None:
    with (_put(tmp_path, "iris", "1") / MODEL).open("r+b") as file:
        file.truncate(100 * 1024**3)  # takes no room on disk
    size = 100 * 1024**3 + 2

    assert list(Folder(tmp_path, max_bytes=size).scan().versions["iris"]) == [1]
    skipped = Folder(tmp_path, max_bytes=size - 1).scan().skipped["iris"][1]
    assert skipped.code == "file-too-large"
    assert str(skipped) == f"iris/1 has {size} bytes, and this service takes {size - 1} (max_model_bytes)"


@fault("M05", sent="a version's folder without a manifest", expected="skipped: manifest-missing")
def test_version_without_a_manifest_is_told(tmp_path: Path) -> None:
    _put(tmp_path, "iris", "1", manifest=False)

    assert Folder(tmp_path).scan().skipped["iris"][1].code == "manifest-missing"


@fault(
    "M18",
    sent="folders of a model and of a version that cannot be read (EIO)",
    expected="what is known of them stays known; the others are found",
)
def test_folder_that_cannot_be_read_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("iris", "tea", "wine"):
        _put(tmp_path, name, "1")
    source = Folder(tmp_path)
    before = source.scan()
    broken, known = {str(tmp_path / "iris"), str(tmp_path / "tea" / "1")}, os.scandir

    def scandir(path: Path) -> object:
        if str(path) in broken:
            raise OSError(5, "Input/output error")
        return known(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        snapshot = source.scan()

    assert snapshot.versions == {name: found for name, found in before.versions.items() if name != "tea"}
    assert [(n, e.code) for n, e in snapshot.skipped["tea"].items()] == [(1, "file-unsafe")]
    assert "iris cannot be looked at: Input/output error" in caplog.text
    assert "tea/1 cannot be looked at: Input/output error" in caplog.text


@fault("M03", sent="a version swapped by two renames, seen between them", expected="it is looked for again, and found")
def test_what_seems_gone_is_looked_for_twice(tmp_path: Path) -> None:
    folder = _put(tmp_path, "iris", "1")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        (tmp_path / "aside").rename(folder)

    source = Folder(tmp_path, pause=pause)
    source.scan()
    folder.rename(tmp_path / "aside")

    assert list(source.scan().versions["iris"]) == [1]
    assert pauses == [GAP_S]


@fault("M17", sent="10 000 versions", expected="only those that may be wanted are looked at; memory is bounded")
def test_ten_thousand_versions_are_listed_and_few_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "iris").mkdir()
    for number in range(1, 10_001):
        os.mkdir(f"{tmp_path}/iris/{number}")
    for number in (5, *range(9_900, 10_001)):
        _fill(tmp_path / "iris" / str(number))
    promote(tmp_path, "iris", 5)
    source, looks, known = Folder(tmp_path, keep=3), [], os.scandir

    def scandir(path: Path) -> object:
        looks.append(str(path))
        return known(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        tracemalloc.start()
        before_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        snapshot = source.scan()
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    newest = range(10_001 - 3 - SPARE_VERSIONS, 10_001)
    assert len(snapshot.versions["iris"]) == 10_000
    looked_at = [tmp_path, tmp_path / "iris", *(tmp_path / "iris" / str(number) for number in (5, *newest))]
    assert sorted(looks) == sorted(map(str, looked_at))
    assert peak_bytes - before_bytes < 30_000_000


def _fill(folder: Path) -> None:
    for file in (MODEL, GOLDEN, MANIFEST):
        (folder / file).write_bytes(b"1")
