"""The manifest of a version: what it is, what it takes and gives, and the digest of every file.

It is written last, so a version without one does not exist.
"""

from __future__ import annotations

import hashlib
import platform
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


def read_files(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """Every file of the version, read once: the bytes that were hashed are the bytes that are used.

    Raises:
        DigestMismatch: a file is missing, or is not the one that was exported.
    """
    contents = {}
    for name, entry in manifest.files.items():
        where = f"{manifest.name}/{manifest.version}/{name}"
        if Path(name).name != name:
            raise DigestMismatch(f"{where}: a file's name has no folder in it")
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise DigestMismatch(f"{where} cannot be read: {error.strerror}") from error
        if file_entry(content) != entry:
            raise DigestMismatch(f"{where} is not the file that was exported: its sha256 differs")
        contents[name] = content
    return contents


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
