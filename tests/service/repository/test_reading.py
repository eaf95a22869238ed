from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from service.core.artefact_errors import FileNotPrivate, FileTooLarge, FileUnsafe
from service.repository import reading as module
from service.repository.reading import kind_of, opened, read_small, require_private


def _link(path: Path) -> None:
    (path.parent / "secret").write_bytes(b"secret")
    path.symlink_to(path.parent / "secret")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


UNSAFE = [
    pytest.param(_link, "a symbolic link", id="link"),
    pytest.param(lambda path: path.symlink_to(path), "a symbolic link", id="loop"),
    pytest.param(os.mkfifo, "a named pipe", id="pipe"),
    pytest.param(_socket, "a socket", id="socket"),
    pytest.param(lambda path: path.symlink_to("/dev/zero"), "a symbolic link", id="link to a device"),
    pytest.param(os.mkdir, "a folder", id="folder"),
]


@pytest.mark.parametrize(("put", "kind"), UNSAFE)
def test_what_is_no_regular_file_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: Callable[[Path], None], kind: str
) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    put(Path("model"))
    asked: list[object] = []

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda *arguments: asked.append(arguments))
        with pytest.raises(FileUnsafe, match=f"iris/1/model is {kind}; only regular files are opened"):
            read_small(Path("model"), "iris/1/model")

    assert asked == []


@pytest.mark.parametrize("put", [case.values[0] for case in UNSAFE[:5]], ids=[case.id for case in UNSAFE[:5]])
def test_what_became_another_file_after_the_look_is_neither_read_nor_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    regular = os.lstat(__file__)
    put(Path("model"))

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", lambda path: regular)
        with pytest.raises((FileUnsafe, OSError)):
            read_small(Path("model"), "model")


def test_device_is_one() -> None:
    assert kind_of(os.stat("/dev/null").st_mode) == "a device"
    assert kind_of(stat.S_IFREG | 0o644) is None


def test_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"12")

    with opened(tmp_path / "model", "model") as file:
        assert file.read() == b"12"
    assert read_small(tmp_path / "model", "model") == b"12"


def test_large_file_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALL_FILE_BYTES", 4)
    (tmp_path / "four").write_bytes(b"1234")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(100 * 1024**3)  # takes no room on disk

    assert read_small(tmp_path / "four", "four") == b"1234"
    with pytest.raises(FileTooLarge, match="huge is larger than 4 bytes"):
        read_small(tmp_path / "huge", "huge")


@pytest.fixture
def version(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "iris" / "1"
    folder.mkdir(parents=True)
    (folder / "model.joblib").write_bytes(b"1")
    for place in (folder.parent.parent, folder.parent, folder):
        place.chmod(0o755)
    (folder / "model.joblib").chmod(0o644)
    return folder


PLACES = ["model.joblib", ".", "..", "../.."]


@pytest.mark.parametrize("mode", [0o020, 0o002], ids=["group", "everybody"])
@pytest.mark.parametrize("place", PLACES)
def test_file_that_others_can_change_is_refused(version: Path, place: str, mode: int) -> None:
    require_private(version, "model.joblib")
    shared = (version / place).resolve()
    shared.chmod(shared.stat().st_mode | mode)

    with pytest.raises(FileNotPrivate, match=f"model.joblib is code, and other users can change '{shared.name}'"):
        require_private(version, "model.joblib")


@pytest.mark.parametrize("place", PLACES)
def test_file_of_somebody_else_is_refused(version: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, known = (version / place).resolve(), Path.stat
    inode = theirs.stat().st_ino

    def told(path: Path) -> os.stat_result:
        status = list(known(path))
        if status[stat.ST_INO] == inode:
            status[stat.ST_UID] = os.geteuid() + 1
        return os.stat_result(status)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", told)
        with pytest.raises(FileNotPrivate, match=f"'{theirs.name}' belongs to another user"):
            require_private(version, "model.joblib")


def test_folder_where_everybody_may_create_but_not_replace_is_no_danger(version: Path) -> None:
    version.parent.parent.chmod(0o1777)

    require_private(version, "model.joblib")


def test_such_a_bit_on_a_file_means_nothing(version: Path) -> None:
    (version / "model.joblib").chmod(0o1666)

    with pytest.raises(FileNotPrivate):
        require_private(version, "model.joblib")
