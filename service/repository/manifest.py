"""The manifest of a version: what it is, what it takes and gives, and the digest of every file.

It is written last, so a version without one does not exist.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Collection
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service import __version__
from service.core.errors import DigestMismatch, LibraryMismatch, ManifestInvalid
from service.core.signature import Signature

MANIFEST: Final = "manifest.json"
MODEL: Final = "model.joblib"
GOLDEN: Final = "golden.json"

# Libraries whose version can change what a fitted estimator is or answers.
LIBRARIES: Final = ("scikit-learn", "numpy", "scipy", "pandas", "joblib", "xgboost", "lightgbm")


class FileEntry(BaseModel):
    model_config = ConfigDict(frozen=True)

    sha256: str
    bytes: int


class EngineEntry(BaseModel):
    """A compiled engine, and the outputs it was proven for.

    `agreement` holds, per output, the largest relative difference from the estimator's own answers
    on the golden rows: 0 is bit for bit. Labels are equal, else the output is not listed. It is empty
    of an engine that needs a GPU to be proven: whoever has one does that at load.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    runtime: str = Field(description="the module of service/runtimes that opens it")
    files: tuple[str, ...]
    agreement: dict[str, float]
    exact: tuple[str, ...] = Field((), description="outputs within 1e-12, computed without narrowing any number")
    options: dict[str, Any] = Field(default_factory=dict)


class DroppedEngine(BaseModel):
    """An engine, or one output of it, that was not kept; `output` is None where it is about all."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    output: str | None = None
    reason: str


class Manifest(BaseModel):
    """Fields that a newer exporter added are ignored, so that old services read new folders."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = 1
    name: str
    version: int
    created: str = Field(description="ISO 8601, UTC")
    exporter: str
    estimator: str = Field(description="class of the estimator, and of its steps if it is a pipeline")
    signature: Signature
    files: dict[str, FileEntry]
    libraries: dict[str, str]
    python: str
    scores: dict[str, Any] = Field(default_factory=dict, description="of the fit, where they were measured")
    engines: tuple[EngineEntry, ...] = Field((), description="compiled at export, best first")
    dropped: tuple[DroppedEngine, ...] = ()
    trust: list[str] = Field(default_factory=list, description="names outside the allow-list, for the operator")


def new_manifest(
    name: str, version: int, estimator: str, signature: Signature, files: dict[str, FileEntry], **more: Any
) -> Manifest:
    """A manifest made here and now, by this version of Tandem and of the libraries."""
    return Manifest(
        name=name,
        version=version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        exporter=f"tandem-serving {__version__}",
        estimator=estimator,
        signature=signature,
        files=files,
        libraries=installed_libraries(),
        python=python_version(),
        **more,
    )


def file_entry(content: bytes) -> FileEntry:
    return FileEntry(sha256=digest(content), bytes=len(content))


def read_manifest(folder: Path, name: str, number: int) -> Manifest:
    """The manifest in `folder`.

    Raises:
        ManifestInvalid: absent, unreadable, or of another name or version.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise ManifestInvalid(f"{name}/{number}/{MANIFEST} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "as a whole"
        raise ManifestInvalid(f"{name}/{number}/{MANIFEST}: {place}: {first['msg']}") from None
    if (manifest.name, manifest.version) != (name, number):
        raise ManifestInvalid(f"{name}/{number}/{MANIFEST} is that of version {manifest.version} of {manifest.name!r}")
    if manifest.format != 1:
        raise ManifestInvalid(f"{name}/{number}/{MANIFEST} has format {manifest.format}; this service reads 1")
    return manifest


def check_files(folder: Path, manifest: Manifest, keep: Collection[str]) -> dict[str, bytes]:
    """The files of `keep`, read once: the bytes that were hashed are the bytes that are used.

    The others are hashed a piece at a time, and not kept.

    Raises:
        DigestMismatch: a file is missing, or is not the one that was exported.
    """
    return {
        name: content for name in manifest.files if (content := _read(folder, manifest, name, name in keep)) is not None
    }


def read_file(folder: Path, manifest: Manifest, name: str) -> bytes:
    """One file of the version. Raises DigestMismatch where it is not the one that was exported."""
    content = _read(folder, manifest, name, keep=True)
    assert content is not None
    return content


def _read(folder: Path, manifest: Manifest, name: str, keep: bool) -> bytes | None:
    where = f"{manifest.name}/{manifest.version}/{name}"
    if name not in manifest.files:
        raise DigestMismatch(f"{where} is not listed in the manifest")
    if Path(name).name != name:
        raise DigestMismatch(f"{where}: a file's name has no folder in it")
    try:
        with (folder / name).open("rb") as file:
            content = file.read() if keep else None
            sha256 = digest(content) if content is not None else hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        raise DigestMismatch(f"{where} cannot be read: {error.strerror}") from error
    if FileEntry(sha256=sha256, bytes=size) != manifest.files[name]:
        raise DigestMismatch(f"{where} is not the file that was exported: its sha256 differs")
    return content


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def installed_libraries() -> dict[str, str]:
    """Versions of the libraries that matter, without importing them."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            if name == "xgboost":  # the same library without its GPU part has a distribution of its own
                found.update(_version_of("xgboost-cpu", name))
    return found


def python_version() -> str:
    return platform.python_version()


def _version_of(distribution: str, name: str) -> dict[str, str]:
    try:
        return {name: version(distribution)}
    except PackageNotFoundError:
        return {}


def check_libraries(exported: dict[str, str], installed: dict[str, str]) -> None:
    """scikit-learn promises nothing for models of another minor version.

    Raises:
        LibraryMismatch: major or minor version differ.
    """
    theirs, ours = exported.get("scikit-learn", ""), installed.get("scikit-learn", "")
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        raise LibraryMismatch(
            f"exported with scikit-learn {theirs or 'of unknown version'}, this service runs {ours}. "
            "Export it again, or allow it with --allow-version-mismatch: the golden rows must then still agree"
        )
