from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from service.core.artefact_errors import DigestMismatch, LibraryMismatch, ManifestInvalid
from service.core.signature import Column, Container, Output, Signature
from service.repository import manifest as module
from service.repository.manifest import (
    LIBRARIES,
    MANIFEST,
    MODEL,
    FileEntry,
    Manifest,
    check_files,
    check_libraries,
    digest,
    installed_libraries,
    python_version,
    read_file,
    read_manifest,
)

_SIGNATURE = Signature(
    container=Container.ARRAY,
    columns=(Column(name="x0", dtype="float64"),),
    outputs=(Output(name="predict", dtype="float64"),),
)


def _manifest(**changes: Any) -> Manifest:
    known: dict[str, Any] = {
        "name": "iris", "version": 3, "created": "2026-01-01T00:00:00+00:00", "exporter": "tandem-serving 0",
        "estimator": "Ridge", "signature": _SIGNATURE, "files": {}, "libraries": {}, "python": "3.11.9",
    }  # fmt: skip
    return Manifest(**{**known, **changes})


def _write(folder: Path, **changes: Any) -> None:
    content = {**_manifest().model_dump(mode="json"), **changes}
    (folder / MANIFEST).write_text(json.dumps(content))


def test_manifest_reads_as_it_was_written(tmp_path: Path) -> None:
    written = _manifest(scores={"r2": 0.5}, trust=["mine.Step"])
    (tmp_path / MANIFEST).write_text(written.model_dump_json())

    assert read_manifest(tmp_path, "iris", 3) == written


def test_fields_of_a_newer_exporter_are_passed_over(tmp_path: Path) -> None:
    _write(tmp_path, mood="sunny")

    assert read_manifest(tmp_path, "iris", 3).name == "iris"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"name": "wine"}, "is that of version 3 of 'wine'", id="another name"),
        pytest.param({"version": 4}, "is that of version 4 of 'iris'", id="another version"),
        pytest.param({"format": 2}, "has format 2; this service reads 1", id="a later format"),
        pytest.param({"python": None}, "python: ", id="a field of another type"),
        pytest.param({"signature": {}}, "signature.container: ", id="no signature"),
    ],
)
def test_manifest_of_something_else_is_refused_with_the_place(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    _write(tmp_path, **changes)

    with pytest.raises(ManifestInvalid) as caught:
        read_manifest(tmp_path, "iris", 3)

    assert str(caught.value).startswith("iris/3/manifest.json")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "content", [pytest.param(b"", id="empty"), pytest.param(b'{"name": ', id="cut"), pytest.param(b"\xff", id="bytes")]
)
def test_manifest_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)

    with pytest.raises(ManifestInvalid, match=r"iris/3/manifest\.json: as a whole: Invalid JSON"):
        read_manifest(tmp_path, "iris", 3)


def test_absent_manifest_is_told_without_the_servers_paths(tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid) as caught:
        read_manifest(tmp_path, "iris", 3)

    assert str(caught.value) == "iris/3/manifest.json cannot be read: No such file or directory"


def test_files_are_read_when_their_digests_agree(tmp_path: Path) -> None:
    (tmp_path / MODEL).write_bytes(b"model")
    manifest = _manifest(files={MODEL: FileEntry(sha256=digest(b"model"), bytes=5)})

    assert check_files(tmp_path, manifest, {MODEL}) == {MODEL: b"model"}
    assert read_file(tmp_path, manifest, MODEL) == b"model"


@pytest.mark.parametrize("keep", [{MODEL}, set[str]()], ids=["kept", "only hashed"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(b"modem", "is not the file that was exported", id="changed"),
        pytest.param(b"mode", "is not the file that was exported", id="cut"),
        pytest.param(None, "cannot be read: No such file", id="missing"),
    ],
)
def test_file_that_is_not_the_exported_one_is_refused(
    tmp_path: Path, content: bytes | None, told: str, keep: set[str]
) -> None:
    if content is not None:
        (tmp_path / MODEL).write_bytes(content)
    manifest = _manifest(files={MODEL: FileEntry(sha256=digest(b"model"), bytes=5)})

    with pytest.raises(DigestMismatch, match=f"iris/3/model.joblib {told}"):
        check_files(tmp_path, manifest, keep)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "sub/model.joblib", ".."])
def test_file_outside_of_the_folder_is_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    manifest = _manifest(files={name: FileEntry(sha256=digest(b"x"), bytes=1)})
    folder = tmp_path / "3"
    folder.mkdir()

    with pytest.raises(DigestMismatch):
        check_files(folder, manifest, set())


@pytest.mark.parametrize(
    ("exported", "installed"),
    [
        pytest.param("1.9.1", "1.9.4", id="patch"),
        pytest.param("1.9.1", "1.9.dev0", id="development"),
        pytest.param("1.9", "1.9.0", id="short"),
    ],
)
def test_models_of_the_same_minor_version_are_taken(exported: str, installed: str) -> None:
    check_libraries({"scikit-learn": exported}, {"scikit-learn": installed})


@pytest.mark.parametrize(
    ("exported", "told"),
    [
        pytest.param({"scikit-learn": "1.8.2"}, "scikit-learn 1.8.2, this service runs 1.9.1", id="minor"),
        pytest.param({"scikit-learn": "2.9.1"}, "scikit-learn 2.9.1", id="major"),
        pytest.param({"scikit-learn": "1.90.1"}, "scikit-learn 1.90.1", id="longer number"),
        pytest.param({}, "of unknown version", id="not told"),
    ],
)
def test_models_of_another_minor_version_are_refused_with_the_way_out(exported: dict[str, str], told: str) -> None:
    with pytest.raises(LibraryMismatch, match="--allow-version-mismatch") as caught:
        check_libraries(exported, {"scikit-learn": "1.9.1"})

    assert told in str(caught.value)


def test_installed_libraries_are_told_by_the_names_of_their_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    present = {"scikit-learn": "1.9.1", "numpy": "2.4.6", "xgboost-cpu": "3.2.0"}

    def version(name: str) -> str:
        if name not in present:
            raise PackageNotFoundError(name)
        return present[name]

    monkeypatch.setattr(module, "version", version)
    monkeypatch.setattr(module, "_installed", module._installed.__wrapped__)

    assert installed_libraries() == {"scikit-learn": "1.9.1", "numpy": "2.4.6", "xgboost": "3.2.0"}

    del present["xgboost-cpu"]

    assert "xgboost" not in installed_libraries()


def test_what_is_installed_here_is_found() -> None:
    assert {"scikit-learn", "numpy", "scipy", "joblib"} <= installed_libraries().keys() <= set(LIBRARIES)
    assert python_version().count(".") == 2
