"""Where models come from: a folder of versions, or one bare file."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from service.core.errors import ArtefactError, NotAllowed
from service.core.names import is_name, parse_version
from service.repository.labels import promote, read_labels
from service.repository.manifest import MANIFEST

_log = logging.getLogger(__name__)

# Name, time of change in nanoseconds, size and inode of each file, by name.
Stamp = tuple[tuple[str, int, int, int], ...]


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
    """What is on disk at one moment."""

    versions: Mapping[str, Mapping[int, Found]] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


class Source(Protocol):
    def scan(self) -> Snapshot:
        """What is there now. Raises OSError where nothing can be said, and then nothing changes."""
        ...

    def promote(self, name: str, version: int) -> None:
        """Point the label `stable` at a version that is there. Raises NotAllowed where it cannot be written."""
        ...


class Folder:
    """`root/<name>/<version>/manifest.json`; whatever else lies there is passed over."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._labels: dict[str, Mapping[str, int]] = {}
        self._complained: set[str] = set()

    def scan(self) -> Snapshot:
        versions: dict[str, dict[int, Found]] = {}
        labels: dict[str, Mapping[str, int]] = {}
        for folder in sorted(self._root.iterdir()):
            if not is_name(folder.name) or not folder.is_dir():
                continue
            found = {
                number: version
                for entry in folder.iterdir()
                if (number := parse_version(entry.name)) is not None
                and (version := _find(folder.name, number, entry)) is not None
            }
            if found:
                versions[folder.name] = dict(sorted(found.items()))
                labels[folder.name] = self._labels_in(folder)
        return Snapshot(versions, labels)

    def promote(self, name: str, version: int) -> None:
        try:
            promote(self._root, name, version)
        except OSError as error:
            raise NotAllowed("the labels cannot be changed: the folder of models cannot be written") from error

    def _labels_in(self, folder: Path) -> Mapping[str, int]:
        """The labels; where they are damaged, those read before, so that `stable` does not jump to the newest."""
        try:
            self._labels[folder.name] = read_labels(folder)
        except (ArtefactError, OSError) as error:
            if str(error) not in self._complained:  # once, not at every poll
                self._complained.add(str(error))
                _log.error("%s", error)
        return self._labels.get(folder.name, {})


class OneModel(Folder):
    """Versions at `root/<version>`, or one at `root` itself: their manifests say which model they are of."""

    def scan(self) -> Snapshot:
        versions: dict[str, dict[int, Found]] = {}
        for folder in _versions_in(self._root):
            name, number = _identity(folder)
            if (version := _find(name, number, folder)) is not None:
                versions.setdefault(name, {})[number] = version
        labels = self._labels_in(self._root)
        return Snapshot(versions, dict.fromkeys(versions, labels))

    def promote(self, name: str, version: int) -> None:
        raise NotAllowed("labels are changed in a folder of models, not in that of a single one")


def source_in(folder: Path) -> Folder:
    """The models in `folder`: several of them, or what was copied of one."""
    return OneModel(folder) if folder.is_dir() and _versions_in(folder) else Folder(folder)


class BareFile:
    """One joblib file, served as version 1 of a model named after the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = bare_name(path)

    def scan(self) -> Snapshot:
        found = Found(self._name, 1, self._path, _stamp([self._path]), is_bare=True)
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
        manifest = json.loads((folder / MANIFEST).read_bytes())
        name, number = str(manifest["name"]), int(manifest["version"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "model", parse_version(folder.name) or 1
    return (name if is_name(name) else "model"), number


def _find(name: str, number: int, folder: Path) -> Found | None:
    # Every file counts: a folder that is being copied here may have its manifest before its model.
    try:
        return Found(name, number, folder, _stamp(folder.iterdir())) if (folder / MANIFEST).is_file() else None
    except OSError:
        return None  # it is being removed


def _stamp(paths: Iterable[Path]) -> Stamp:
    statuses = sorted((path.name, path.stat()) for path in paths)
    return tuple((name, status.st_mtime_ns, status.st_size, status.st_ino) for name, status in statuses)
