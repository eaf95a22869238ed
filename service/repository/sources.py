"""Where models come from: a folder of versions, or one bare file.

Looking never opens a model's file, follows no link below the folder, and waits for nothing that lies there.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from service.core.artefact_errors import (
    ArtefactError,
    FileTooLarge,
    FileUnsafe,
    ManifestMissing,
)
from service.core.errors import NotAllowed
from service.core.names import is_name, parse_version
from service.repository.labels import promote, read_labels
from service.repository.manifest import MANIFEST
from service.repository.reading import kind_of, read_small

_log = logging.getLogger(__name__)

# Name, time of change in nanoseconds, size and inode of each file, by name.
Stamp = tuple[tuple[str, int, int, int], ...]

# Only the newest versions and the labelled ones can be wanted: of the others nothing but their number is looked at,
# so that ten thousand of them cost little. More than `keep` are looked at, because some may be bad.
SPARE_VERSIONS: Final = 16
# Whoever swaps a folder by two renames leaves a gap between them.
GAP_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Found:
    """A version on disk. `stamp` changes when one of its files (or the bare file) is another one."""

    name: str
    version: int
    path: Path
    stamp: Stamp
    is_bare: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is on disk at one moment. `skipped` says of versions that are there why they cannot even be looked at."""

    versions: Mapping[str, Mapping[int, Found]] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    skipped: Mapping[str, Mapping[int, ArtefactError]] = field(default_factory=dict)


class Source(Protocol):
    def scan(self) -> Snapshot:
        """What is there now. Raises OSError where nothing can be said, and then nothing changes.

        What was there before and is not any more was looked for twice.
        """
        ...

    def promote(self, name: str, version: int) -> None:
        """Point the label `stable` at a version that is there. Raises NotAllowed where it cannot be written."""
        ...


class Folder:
    """`root/<name>/<version>/manifest.json`; whatever else lies there is passed over, and what looks wrong is told.

    Args:
        keep: how many of the newest versions of a model may be wanted.
        max_bytes: a version whose files are larger, all together, is skipped.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        root: Path,
        *,
        keep: int = 2,
        max_bytes: int | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._root = root
        self._looked_at = keep + SPARE_VERSIONS
        self._max_bytes = max_bytes
        self._pause = pause
        self._labels: dict[str, Mapping[str, int]] = {}
        self._complaints: dict[str, str] = {}
        self._before = Snapshot()

    def scan(self) -> Snapshot:
        snapshot = self._look()
        if _lacks(snapshot, self._before):
            self._pause(GAP_S)
            snapshot = self._look()
        self._before = snapshot
        return snapshot

    def _look(self) -> Snapshot:
        models: dict[str, dict[int, Path]] = {}
        for folder in _entries(self._root):
            if not is_name(folder.name):
                continue
            if folder.is_symlink():
                self._complain(folder.name, f"{folder.name} is a symbolic link, and none is followed")
            elif folder.is_dir(follow_symlinks=False):
                try:
                    models[folder.name] = _numbered(Path(folder.path))
                except OSError as error:
                    self._complain(folder.name, f"{folder.name} cannot be looked at: {error.strerror}")
                    # That says nothing about its versions: as far as anybody knows they are as they were.
                    known = self._before.versions.get(folder.name, {})
                    models[folder.name] = {number: version.path for number, version in known.items()}
        return self._snapshot(models, lambda name: self._root / name)

    def _snapshot(self, models: Mapping[str, Mapping[int, Path]], labels_at: Callable[[str], Path]) -> Snapshot:
        """What is at these places, by model and version."""
        versions: dict[str, dict[int, Found]] = {}
        labels: dict[str, Mapping[str, int]] = {}
        skipped: dict[str, dict[int, ArtefactError]] = {}
        for name, places in models.items():
            labelled = self._labels_in(labels_at(name))
            looked_at = {*sorted(places)[-self._looked_at :], *labelled.values()}
            found: dict[int, Found] = {}
            wrong: dict[int, ArtefactError] = {}
            for number, place in sorted(places.items()):
                try:
                    stamp = _stamp_of(place, f"{name}/{number}", self._max_bytes) if number in looked_at else ()
                except (FileNotFoundError, NotADirectoryError):
                    continue  # it is being removed
                except ArtefactError as error:
                    wrong[number] = error
                except OSError as error:
                    wrong[number] = FileUnsafe(f"{name}/{number} cannot be looked at: {error.strerror}")
                else:
                    found[number] = Found(name, number, place, stamp)
            for number, why in wrong.items():
                self._complain(f"{name}/{number}", str(why))
            if found:
                versions[name], labels[name] = found, labelled
            if wrong:
                skipped[name] = wrong
        return Snapshot(versions, labels, skipped)

    def promote(self, name: str, version: int) -> None:
        try:
            promote(self._root, name, version)
        except (OSError, FileUnsafe) as error:
            raise NotAllowed("the labels cannot be changed: the folder of models cannot be written") from error

    def _labels_in(self, folder: Path) -> Mapping[str, int]:
        """The labels; where they are damaged, those read before, so that `stable` does not jump to the newest."""
        try:
            self._labels[folder.name] = read_labels(folder)
        except (ArtefactError, OSError) as error:
            self._complain(f"{folder.name}/labels", str(error))
        return self._labels.get(folder.name, {})

    def _complain(self, about: str, complaint: str) -> None:
        """Once, not at every poll."""
        if self._complaints.get(about) != complaint:
            if len(self._complaints) >= _MOST_COMPLAINTS:
                self._complaints.clear()
            self._complaints[about] = complaint
            _log.error("%s", complaint)


class OneModel(Folder):
    """Versions at `root/<version>`, or one at `root` itself: their manifests say which model they are of."""

    def _look(self) -> Snapshot:
        models: dict[str, dict[int, Path]] = {}
        for folder in _versions_in(self._root):
            name, number = _identity(folder)
            models.setdefault(name, {})[number] = folder
        return self._snapshot(models, lambda name: self._root)

    def promote(self, name: str, version: int) -> None:
        raise NotAllowed("labels are changed in a folder of models, not in that of a single one")


def source_in(folder: Path, *, keep: int = 2, max_bytes: int | None = None) -> Folder:
    """The models in `folder`: several of them, or what was copied of one."""
    kind = OneModel if folder.is_dir() and _versions_in(folder) else Folder
    return kind(folder, keep=keep, max_bytes=max_bytes)


class BareFile:
    """One joblib file, served as version 1 of a model named after the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = bare_name(path)

    def scan(self) -> Snapshot:
        found = Found(self._name, 1, self._path, _stamp([(self._path.name, self._path.stat())]), is_bare=True)
        return Snapshot({self._name: {1: found}}, {self._name: {}})

    def promote(self, name: str, version: int) -> None:
        raise NotAllowed("a bare file has no labels")


def bare_name(path: Path) -> str:
    """`path`'s stem where it can be a model's name, else `model`."""
    return path.stem if is_name(path.stem) else "model"


def _versions_in(folder: Path) -> list[Path]:
    """`folder`, where it is a version, or those right below it."""
    if (folder / MANIFEST).is_file():
        return [folder]
    below = {parse_version(entry.name): entry for entry in folder.iterdir() if (entry / MANIFEST).is_file()}
    return [below[number] for number in sorted(number for number in below if number is not None)]


def _identity(folder: Path) -> tuple[str, int]:
    """Name and version as the manifest has them; whether it is sound is asked when it is loaded."""
    try:
        manifest = json.loads(read_small(folder / MANIFEST, MANIFEST))
        name, number = str(manifest["name"]), int(manifest["version"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError, ArtefactError):
        return "model", parse_version(folder.name) or 1
    return (name if is_name(name) else "model"), number


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _numbered(folder: Path) -> dict[int, Path]:
    """Folders, and links that may lead to one, that are called like a version; none where `folder` just went."""
    try:
        return {
            number: Path(entry.path)
            for entry in _entries(folder)
            if (number := parse_version(entry.name)) is not None
            and (entry.is_symlink() or entry.is_dir(follow_symlinks=False))
        }
    except FileNotFoundError:
        return {}


def _lacks(snapshot: Snapshot, before: Snapshot) -> bool:
    """Whether something is gone that was there before."""
    return any(not found.keys() <= snapshot.versions.get(name, {}).keys() for name, found in before.versions.items())


def _stamp_of(folder: Path, where: str, max_bytes: int | None) -> Stamp:
    """Every file counts: a folder that is being copied here may have its manifest before its model.

    Raises:
        FileUnsafe, FileTooLarge, ManifestMissing: it cannot be a version.
        OSError: it is gone.
    """
    if folder.is_symlink():
        raise FileUnsafe(f"{where} is a symbolic link, and none is followed")
    files = [(entry.name, entry.stat(follow_symlinks=False)) for entry in _entries(folder)]
    for name, status in files:
        kind = kind_of(status.st_mode)
        if kind is not None and (name == MANIFEST or not stat.S_ISDIR(status.st_mode)):
            raise FileUnsafe(f"{where}/{name} is {kind}; only regular files are opened")
    if not any(name == MANIFEST for name, _ in files):
        raise ManifestMissing(f"{where} has no {MANIFEST}: it is not complete, or no version")
    size = sum(status.st_size for _, status in files)
    if max_bytes is not None and size > max_bytes:
        raise FileTooLarge(f"{where} has {size} bytes, and this service takes {max_bytes} (max_model_bytes)")
    return _stamp(files)


def _stamp(files: Iterable[tuple[str, os.stat_result]]) -> Stamp:
    return tuple((name, status.st_mtime_ns, status.st_size, status.st_ino) for name, status in sorted(files))


# Beyond it what was complained of is forgotten, and may be said again.
_MOST_COMPLAINTS: Final = 1000
