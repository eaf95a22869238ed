"""Opening what lies in a repository, where anybody may have put anything: nothing here waits, or follows a link."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from service.core.artefact_errors import FileNotPrivate, FileTooLarge, FileUnsafe

# Manifests, signatures and labels; a manifest with a million categories has a few dozen MiB.
SMALL_FILE_BYTES: Final = 64 * 1024 * 1024

_WAYS_OUT: Final = "sign the version and trust the key, or allow it with --allow-shared-files"

_KINDS: Final = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def kind_of(mode: int) -> str | None:
    """What a file of this mode is, where it is no regular one."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


@contextmanager
def opened(path: Path, where: str) -> Iterator[BinaryIO]:
    """`path`, open for reading. `where` names it in messages.

    Looked at before it is opened, because opening a device can already do something, and again when it is open,
    because it may be another file by then. Without O_NONBLOCK a named pipe would be waited for.

    Raises:
        FileUnsafe: it is no regular file.
        OSError: it cannot be opened.
    """
    _require_regular(os.lstat(path).st_mode, where)
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        _require_regular(os.fstat(handle).st_mode, where)
        yield file


def read_small(path: Path, where: str) -> bytes:
    """All of a file that has no reason to be large.

    Raises: as `opened` does, and FileTooLarge beyond SMALL_FILE_BYTES.
    """
    with opened(path, where) as file:
        size = os.fstat(file.fileno()).st_size
        if size > SMALL_FILE_BYTES:
            raise FileTooLarge(f"{where} is larger than {SMALL_FILE_BYTES} bytes")
        return file.read(size)


def require_private(folder: Path, file: str) -> None:
    """`folder` is that of a version. Whoever can change its file, or put another one there, can run code here.

    A folder in which everybody may create but not replace (as /tmp) is no danger: what is created is owned by them.

    Raises:
        FileNotPrivate: others can change the file, its folder, or one of the two above; or they own it.
        OSError: one of them cannot be looked at.
    """
    where = f"{folder.parent.name}/{folder.name}/{file}"
    for place in (folder / file, folder, folder.parent, folder.parent.parent):
        status = place.stat()
        is_shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
            is_shared = 0
        if status.st_uid not in (os.geteuid(), 0):
            raise FileNotPrivate(f"{where} is code, and {place.name!r} belongs to another user; {_WAYS_OUT}")
        if is_shared:
            raise FileNotPrivate(
                f"{where} is code, and other users can change {place.name!r} (chmod go-w mends that); {_WAYS_OUT}"
            )


def _require_regular(mode: int, where: str) -> None:
    kind = kind_of(mode)
    if kind is not None:
        raise FileUnsafe(f"{where} is {kind}; only regular files are opened")
