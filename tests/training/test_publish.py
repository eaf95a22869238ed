from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.core.artefact_errors import VersionExists
from service.core.signature import Column, Container, Output, Signature
from service.repository.manifest import MANIFEST, FileEntry, Manifest, check_files, read_manifest
from service.repository.signing import create_keys, read_signed_manifest, read_signer, read_trusted_keys
from service.repository.sources import Folder
from tests.faults.cases import fault
from training import publish as module
from training.publish import STAGING, STALE_S, next_version, publish

_FILES = {"model.joblib": b"model", "golden.json": b"golden"}
_ROOT = Path(__file__).parents[2]


def _describe(number: int, files: dict[str, FileEntry]) -> Manifest:
    signature = Signature(
        container=Container.ARRAY,
        columns=(Column(name="x0", dtype="float64"),),
        outputs=(Output(name="predict", dtype="float64"),),
    )
    return Manifest(
        name="iris", version=number, created="", exporter="", estimator="", signature=signature, files=files,
        libraries={}, python="",
    )  # fmt: skip


def _publish(repository: Path, version: int | None = None, files: Mapping[str, bytes] = _FILES) -> Path:
    return publish(repository, "iris", version, files, _describe)[0]


def _is_whole(repository: Path, number: int) -> bool:
    folder = repository / "iris" / str(number)
    return check_files(folder, read_manifest(folder, "iris", number), set(_FILES)) == _FILES


def _visible(repository: Path) -> list[int]:
    return list(Folder(repository).scan().versions.get("iris", {}))


def _script(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Another exporter, in a process of its own."""
    prelude = "import os, signal, sys\nfrom pathlib import Path\nfrom tests.training.test_publish import *\n"
    prelude += "from tests.training.test_publish import _publish\nrepository = Path(sys.argv[1])\n"
    return subprocess.Popen(
        [sys.executable, "-c", prelude + code, *arguments],
        cwd=_ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_published_version_is_there_whole(tmp_path: Path) -> None:
    path, manifest = publish(tmp_path / "models", "iris", None, _FILES, _describe)

    assert path == tmp_path / "models" / "iris" / "1"
    assert read_manifest(path, "iris", 1) == manifest
    assert _is_whole(tmp_path / "models", 1)
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == ["iris"]


def test_versions_count_on_from_the_highest(tmp_path: Path) -> None:
    for number in ("9", "10", "2"):
        (tmp_path / "iris" / number).mkdir(parents=True)
    (tmp_path / "iris" / "99.bak").mkdir()

    assert next_version(tmp_path / "iris") == 11
    assert next_version(tmp_path / "wine") == 1


def test_version_that_exists_is_not_touched(tmp_path: Path) -> None:
    _publish(tmp_path, 3)

    with pytest.raises(VersionExists, match="version 3 of 'iris' exists already"):
        _publish(tmp_path, 3, {"model.joblib": b"other"})

    assert _is_whole(tmp_path, 3)
    assert [entry.name for entry in tmp_path.iterdir()] == ["iris"]


@fault("M24", sent="an export, step by step", expected="files, manifest and folder are synced before the rename")
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files are read from /proc")
def test_files_are_synced_before_the_manifest_and_the_manifest_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def watched_fsync(handle: int) -> None:
        steps.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def watched_rename(source: Path, target: Path) -> None:
        steps.append(f"rename to {target.name}")
        assert sorted(entry.name for entry in source.iterdir()) == sorted([*_FILES, MANIFEST])
        rename(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    _publish(tmp_path)

    draft = steps[3]
    assert draft.startswith(STAGING)
    assert steps == ["model.joblib", "golden.json", MANIFEST, draft, "rename to 1", "iris", tmp_path.name]


@contextmanager
def _full_disk(owner: Any, function: str, call: int) -> Iterator[None]:
    """Lets the disk be full at that call of a function of `owner`."""
    calls = 0
    known: Callable[..., Any] = getattr(owner, function)

    def full(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return known(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, function, full)
        yield


_MODEL_FOLDER = pytest.param(os, "mkdir", 3, id="folder of the model")
_STEPS = [
    pytest.param(os, "mkdir", 2, id="folder of the draft"),
    *(pytest.param(module, "_write", call, id=f"file {call}") for call in (1, 2, 3)),
    *(pytest.param(os, "fsync", call, id=f"sync {call}") for call in range(1, 7)),
    pytest.param(os, "rename", 1, id="rename"),
]


@fault("M22", sent="a full disk at every write, sync and rename", expected="an error; nothing is left behind")
@pytest.mark.parametrize(("owner", "function", "call"), [*_STEPS, _MODEL_FOLDER])
@pytest.mark.parametrize("version", [None, 7])
def test_full_disk_leaves_nothing_behind(
    tmp_path: Path, owner: Any, function: str, call: int, version: int | None
) -> None:
    with _full_disk(owner, function, call), pytest.raises(OSError, match="No space left"):
        _publish(tmp_path, version)

    assert list(tmp_path.iterdir()) == []


@fault("M22", sent="a full disk, with a version there", expected="an error; the version is as it was")
@pytest.mark.parametrize(("owner", "function", "call"), _STEPS)
def test_full_disk_leaves_earlier_versions_as_they_are(tmp_path: Path, owner: Any, function: str, call: int) -> None:
    _publish(tmp_path)

    with _full_disk(owner, function, call), pytest.raises(OSError, match="No space left"):
        _publish(tmp_path)

    assert _is_whole(tmp_path, 1)
    assert _visible(tmp_path) == [1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["iris"]


_KILLED = """
steps = int(sys.argv[2])
def until_killed(function):
    def step(*arguments):
        global steps
        steps -= 1
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return step
os.fsync, os.rename = until_killed(os.fsync), until_killed(os.rename)
_publish(repository)
"""


@fault("M23", sent="SIGKILL at each step of an export", expected="nothing visible or a whole version; leftovers swept")
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_exporter_leaves_nothing_visible_and_its_draft_is_swept_later(tmp_path: Path) -> None:
    repositories = {step: tmp_path / str(step) for step in range(1, 8)}
    exporters = {step: _script(_KILLED, str(path), str(step)) for step, path in repositories.items()}

    for step, exporter in exporters.items():
        _, stderr = exporter.communicate(timeout=60)
        assert exporter.returncode == -9, stderr
        repository = repositories[step]
        # Only after the rename, the fifth step, is there anything to see.
        assert _visible(repository) == ([1] if step > 5 else [])
        assert len(list(repository.glob(f"{STAGING}*"))) == (0 if step > 5 else 1)

        for draft in repository.glob(f"{STAGING}*"):
            status = draft.stat()
            os.utime(draft, (status.st_atime, status.st_mtime - STALE_S - 1))
        published = _publish(repository)
        assert _is_whole(repository, int(published.name))
        assert list(repository.glob(f"{STAGING}*")) == []


def test_draft_of_an_exporter_at_work_is_not_swept(tmp_path: Path) -> None:
    draft = tmp_path / f"{STAGING}1234"
    draft.mkdir()

    _publish(tmp_path)

    assert draft.is_dir()


_RACING = """
from service.core.artefact_errors import VersionExists
version = int(sys.argv[2]) or None
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[3])):
    try:
        print(_publish(repository, version).name)
    except VersionExists as error:
        print(error)
"""


def _race(repository: Path, exporters: int, version: int, times: int) -> list[str]:
    """What several exporters say that start at the same moment."""
    processes = [_script(_RACING, str(repository), str(version), str(times)) for _ in range(exporters)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    told = []
    for process in processes:
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        told += stdout.splitlines()
    return told


@fault("M21", sent="two exporters of one version at once", expected="one wins, the other is told")
def test_of_two_exporters_of_one_version_one_wins_and_the_other_is_told(tmp_path: Path) -> None:
    for version in range(1, 4):
        told = _race(tmp_path, 2, version, 1)

        assert sorted(told) == sorted([str(version), f"version {version} of 'iris' exists already"])
        assert _is_whole(tmp_path, version)
    assert [entry.name for entry in tmp_path.iterdir()] == ["iris"]


def test_exporters_that_take_the_next_number_get_different_ones(tmp_path: Path) -> None:
    told = _race(tmp_path, 3, 0, 10)

    assert sorted(map(int, told)) == list(range(1, 31))
    assert _visible(tmp_path) == list(range(1, 31))
    assert all(_is_whole(tmp_path, number) for number in range(1, 31))


def test_number_that_somebody_took_meanwhile_is_stepped_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _publish(tmp_path)
    rename = os.rename

    def late(source: Path, target: Path) -> None:
        if target.name == "2" and not target.exists():
            shutil.copytree(tmp_path / "iris" / "1", target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)

    assert _publish(tmp_path).name == "3"
    assert _is_whole(tmp_path, 3)


def test_exporter_that_never_gets_a_number_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _publish(tmp_path)
    monkeypatch.setattr(module, "next_version", lambda folder: 1)

    with pytest.raises(VersionExists, match="no free version of 'iris'"):
        _publish(tmp_path)

    assert [entry.name for entry in tmp_path.iterdir()] == ["iris"]


def test_what_is_published_can_be_changed_by_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        folder = _publish(tmp_path / "models")
    finally:
        os.umask(before)

    for place in (folder.parent.parent, folder.parent, folder, *folder.iterdir()):
        assert not place.stat().st_mode & 0o022, place


def test_signature_is_published_with_the_version(tmp_path: Path) -> None:
    create_keys(tmp_path / "mine")

    path, manifest = publish(tmp_path / "models", "iris", None, _FILES, _describe, read_signer(tmp_path / "mine.key"))

    trusted = read_trusted_keys([tmp_path / "mine.pub"])
    assert read_signed_manifest(path, "iris", 1, trusted) == manifest
    assert check_files(path, manifest, set(_FILES)) == _FILES
