"""Where log lines go: to standard error, for as long as that takes them at once.

A full disk, a reader that hangs or that has gone must neither fail nor delay a request.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
from collections.abc import Sequence
from typing import Final

# So much a pipe takes without making the writer wait, once it takes anything (PIPE_BUF of Linux).
_PIECE: Final = 4096


class Lines(io.TextIOBase):
    """A stream over a file descriptor. What cannot be written at once is dropped, and counted in `dropped`.

    Each call of `write` is one line, with its end. To be called by one thread at a time, as handlers of `logging` do.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poller = select.poll()
        self._poller.register(fd, select.POLLOUT)
        self._always_takes = stat.S_ISREG(os.fstat(fd).st_mode)  # or fails, which is as quick
        self._is_torn = False  # the last line ends in the middle
        self.dropped = 0

    def write(self, text: str) -> int:
        line = text.encode("utf-8", "backslashreplace")
        if self._is_torn:
            line = b"\n" + line
        written = self._write(line)
        if written < len(line):
            self.dropped += 1
        if written:
            self._is_torn = written < len(line)
        return len(text)

    def write_lines(self, texts: Sequence[str]) -> None:
        """As `write` of each. A file takes them together."""
        if len(texts) == 1 or not self._always_takes or self._is_torn:
            for text in texts:
                self.write(text)
            return
        lines = "".join(texts).encode("utf-8", "backslashreplace")
        written = lines[: self._write(lines)]
        self.dropped += len(texts) - written.count(b"\n")
        self._is_torn = bool(written) and not written.endswith(b"\n")

    def _write(self, line: bytes) -> int:
        """How many bytes were taken."""
        written = 0
        try:
            if self._always_takes:
                return os.write(self._fd, line)
            while written < len(line) and self._poller.poll(0):
                written += os.write(self._fd, line[written : written + _PIECE])
        except OSError:  # no space, nobody reads any more
            pass
        return written


def standard_error() -> Lines | None:
    """None where standard error is no file: tests and notebooks replace it."""
    try:
        return Lines(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        return None
