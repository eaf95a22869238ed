"""Where models come from: a folder of versions, or one bare file."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from service.core.errors import ArtefactError
from service.core.names import is_name, parse_version
from service.repository.labels import read_labels
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

    def _labels_in(self, folder: Path) -> Mapping[str, int]:
        """The labels; where they are damaged, those read before, so that `stable` does not jump to the newest."""
        try:
            self._labels[folder.name] = read_labels(folder)
        except (ArtefactError, OSError) as error:
            if str(error) not in self._complained:  # once, not at every poll
                self._complained.add(str(error))
                _log.error("%s", error)
        return self._labels.get(folder.name, {})


class BareFile:
    """One joblib file, served as version 1 of a model named after the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = bare_name(path)

    def scan(self) -> Snapshot:
        found = Found(self._name, 1, self._path, _stamp([self._path]), is_bare=True)
        return Snapshot({self._name: {1: found}}, {self._name: {}})


def bare_name(path: Path) -> str:
    """`path`'s stem where it can be a model's name, else `model`."""
    return path.stem if is_name(path.stem) else "model"


def _find(name: str, number: int, folder: Path) -> Found | None:
    # Every file counts: a folder that is being copied here may have its manifest before its model.
    try:
        return Found(name, number, folder, _stamp(folder.iterdir())) if (folder / MANIFEST).is_file() else None
    except OSError:
        return None  # it is being removed


def _stamp(paths: Iterable[Path]) -> Stamp:
    statuses = sorted((path.name, path.stat()) for path in paths)
    return tuple((name, status.st_mtime_ns, status.st_size, status.st_ino) for name, status in statuses)
