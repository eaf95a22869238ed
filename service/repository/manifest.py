"""The manifest of a version: what it is, what it takes and gives, and the digest of every file.

It is written last, so a version without one does not exist.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service import __version__
from service.core.artefact_errors import (
    DigestMismatch,
    FileMissing,
    FileUnlisted,
    LibraryMismatch,
    ManifestInvalid,
    ManifestMissing,
    ManifestOfAnother,
)
from service.core.names import check_model_name
from service.core.signature import Signature
from service.repository.reading import opened, read_small
from service.repository.room import require_room

MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.sig"
LABELS: Final = "labels.json"
MODEL: Final = "model.joblib"
GOLDEN: Final = "golden.json"

_PIECE_BYTES: Final = 1024 * 1024

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
    """The manifest in `folder`, whoever made it; `signing.read_signed_manifest` asks who.

    Raises:
        ManifestInvalid, FileUnsafe: absent, unreadable, or of another name or version.
        NameReserved: a model of that name cannot be served.
    """
    return parse_manifest(read_manifest_bytes(folder, name, number), name, number)


def read_manifest_bytes(folder: Path, name: str, number: int) -> bytes:
    """Raises ManifestInvalid, FileUnsafe: absent, or it cannot be read."""
    where = f"{name}/{number}/{MANIFEST}"
    try:
        return read_small(folder / MANIFEST, where)
    except FileNotFoundError as error:
        raise ManifestMissing(f"{where} cannot be read: {error.strerror}") from error
    except OSError as error:
        raise ManifestInvalid(f"{where} cannot be read: {error.strerror}") from error


def parse_manifest(content: bytes, name: str, number: int) -> Manifest:
    """Raises: see `read_manifest`."""
    where = f"{name}/{number}/{MANIFEST}"
    try:
        json.loads(content, object_pairs_hook=_each_once)
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "as a whole"
        raise ManifestInvalid(f"{where}: {place}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(f"{where}: as a whole: Invalid JSON: {error}") from None
    if (manifest.name, manifest.version) != (name, number):
        raise ManifestOfAnother(f"{where} is that of version {manifest.version} of {manifest.name!r}")
    check_model_name(name)
    if manifest.format != 1:
        raise ManifestInvalid(f"{where} has format {manifest.format}; this service reads 1")
    return manifest


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers of JSON differ in which of two equal keys counts, so that one could be checked and another used."""
    found = dict(pairs)
    if len(found) != len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"it has the key {twice[:100]!r} twice")
    return found


def check_files(folder: Path, manifest: Manifest, keep: Collection[str]) -> dict[str, bytes]:
    """The files of `keep`, read once: the bytes that were hashed are the bytes that are used.

    The others are hashed a piece at a time, and not kept.

    Raises:
        ManifestInvalid: it does not list a file of `keep`.
        DigestMismatch: a file is missing, is not the one that was exported, or was not exported at all.
        FileUnsafe: what is there is no regular file.
        OutOfMemory: a file of `keep` does not fit into the memory that is left.
    """
    where = f"{manifest.name}/{manifest.version}"
    if missing := sorted(set(keep) - manifest.files.keys()):
        raise ManifestInvalid(f"{where}/{MANIFEST} does not list {missing[0]}")
    ours = {MANIFEST, SIGNATURE, LABELS, *manifest.files}
    if more := sorted(entry for entry in os.listdir(folder) if entry not in ours):
        raise FileUnlisted(f"{where}/{more[0]} is not listed in the manifest")
    return {
        name: content for name in manifest.files if (content := _read(folder, manifest, name, name in keep)) is not None
    }


def read_file(folder: Path, manifest: Manifest, name: str) -> bytes:
    """One file of the version. Raises as `check_files` does."""
    content = _read(folder, manifest, name, keep=True)
    assert content is not None
    return content


def _read(folder: Path, manifest: Manifest, name: str, keep: bool) -> bytes | None:
    where = f"{manifest.name}/{manifest.version}/{name}"
    entry = manifest.files.get(name)
    if entry is None:
        raise DigestMismatch(f"{where} is not listed in the manifest")
    if Path(name).name != name or name == "..":
        raise DigestMismatch(f"{where}: a file's name has no folder in it")
    try:
        with opened(folder / name, where) as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry.bytes:  # said before anything is read: it may be much larger
                raise DigestMismatch(
                    f"{where} is not the file that was exported: it has {size} bytes, and had {entry.bytes}"
                )
            if keep:
                require_room(size, where)
            content, sha256 = _hashed(file, entry.bytes, keep)
    except FileNotFoundError as error:
        raise FileMissing(f"{where} cannot be read: {error.strerror}") from error
    except OSError as error:
        raise DigestMismatch(f"{where} cannot be read: {error.strerror}") from error
    if sha256 != entry.sha256:
        raise DigestMismatch(f"{where} is not the file that was exported: its sha256 differs")
    return content


def _hashed(file: BinaryIO, size: int, keep: bool) -> tuple[bytes | None, str]:
    """At most `size` bytes of `file`, if they are to be kept, and their SHA-256."""
    if keep:
        content = file.read(size)
        return content, digest(content)
    sha256, left = hashlib.sha256(), size
    while piece := file.read(min(left, _PIECE_BYTES)):
        sha256.update(piece)
        left -= len(piece)
    return None, sha256.hexdigest()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def installed_libraries() -> dict[str, str]:
    """Versions of the libraries that matter, without importing them, as they were when first asked for."""
    return dict(_installed())


@cache
def _installed() -> Mapping[str, str]:
    # To read all of them takes 15 ms, which was a third of the load of a small model.
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


def other_libraries(manifest: Manifest) -> list[str]:
    """What differs here, in words: any version of scikit-learn, minor ones of Python and the other libraries."""
    ours = installed_libraries()
    pairs = {"python": (manifest.python, python_version())}
    pairs |= {name: (theirs, ours[name]) for name, theirs in manifest.libraries.items() if name in ours}
    return [
        f"exported with {name} {theirs}, opened with {here}"
        for name, (theirs, here) in pairs.items()
        if (theirs != here if name == "scikit-learn" else theirs.split(".")[:2] != here.split(".")[:2])
    ]


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
