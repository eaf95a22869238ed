"""Starts the process that owns a device, and starts it again when it dies or hangs.

    parent ── listening socket, lifeline ──▶ python -m service.device.host
    web processes ── local socket in a private folder ──▶ the same

The parent keeps the listening socket, so its path outlives a crash: who connects meanwhile waits for the next
process. The lifeline is a pair of sockets. The child beats on it; when it falls silent it is killed. The child
reads from it; when the parent is gone, by whatever end, it removes the folder and ends as well.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Final

from service.runtimes.breaker import Breaker
from service.runtimes.spawn import command, environment

_log = logging.getLogger(__name__)

READY: Final = b"R"
BEAT: Final = b"."
BEAT_S: Final = 0.5

_SOCKET: Final = "device.sock"
_PREFIX: Final = "tandem-device-"
# A socket's path may have 108 bytes, some systems' temporary folders take more than half of them.
_LONGEST_FOLDER: Final = 70
_YOUNG_S: Final = 60.0
_PARTING_S: Final = 5.0


class Exit(IntEnum):
    """Why the process ended itself, as its exit status."""

    PARENT_GONE = 0
    CALL_HUNG = 70
    STICKY_ERROR = 71


class Phase(StrEnum):
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"  # it died, and is started again after a pause
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """`restarts` counts the ends that nobody asked for; `last_end` says what the last one was."""

    phase: Phase
    pid: int | None
    restarts: int
    last_end: str | None


class DeviceProcess:
    """One process for one device, or for engines that are to be kept apart. Safe to call from any thread.

    It is started in one process, which should outlive all that connect to `path`.
    """

    def __init__(
        self,
        opener: str,
        *,
        device: int | None = None,
        threads: int = 1,
        call_limit_s: float = 30.0,
        open_limit_s: float = 300.0,
        start_limit_s: float = 120.0,
        hang_s: float = 60.0,
        logs: tuple[str, str] = ("json", "info"),
        variables: Mapping[str, str] | None = None,
        first_pause_s: float = 0.1,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing is started yet.

        Args:
            opener: `package.module:function`, see `device.engines.OpenEngine`.
            device: number of the GPU that it owns; None hosts engines of the CPU.
            threads: engines that compute at a time.
            call_limit_s: a call that runs for longer hangs, and the process is given up; too small, and a large batch
                on a slow model never ends.
            open_limit_s: the same, for loading and warming up an engine.
            start_limit_s: the same, until it is ready to be asked: Python, the opener's imports, and CUDA.
            hang_s: silence after which it is killed; longer than `call_limit_s`, because a call may keep the
                interpreter lock until it is done.
            logs: format and least level of what it logs to standard error.
            variables: of its environment, beside this process's own.
            first_pause_s: before a restart; doubles up to 30 seconds for as long as it does not last.
            ended: is called whenever it ended and nobody asked it to.
        """
        self._opener = opener
        self._device = device
        self._arguments = {
            "--threads": str(threads),
            "--start-limit-s": str(start_limit_s),
            "--call-limit-s": str(call_limit_s),
            "--open-limit-s": str(open_limit_s),
            "--hang-s": str(hang_s),
            "--log-format": logs[0],
            "--log-level": logs[1],
        }
        self._variables = dict(variables or {})
        self._ended = ended
        self._start_limit_s = start_limit_s
        self._hang_s = hang_s
        self._breaker = Breaker(failures=1, first_pause_s=first_pause_s)
        self._changed = threading.Condition()
        self._status = DeviceStatus(Phase.STOPPED, None, 0, None)
        self._stopping = threading.Event()
        self._owner = os.getpid()
        self._lifeline: socket.socket | None = None
        remove_leftovers()
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_base()))  # 0700
        self.path = self._folder / _SOCKET
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self.path.chmod(0o600)
        self._listener.listen(128)
        self._thread = threading.Thread(target=self._supervise, name="device process", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait_until_ready(self, timeout_s: float) -> bool:
        """Whether it is ready by then. One that keeps dying is not."""
        with self._changed:
            return self._changed.wait_for(lambda: self._status.phase is Phase.READY, timeout_s)

    def wait_for_restart(self, restarts: int, timeout_s: float) -> bool:
        """Whether it is ready again by then, after so many restarts in all."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._status.phase is Phase.READY and self._status.restarts >= restarts, timeout_s
            )

    @property
    def status(self) -> DeviceStatus:
        return self._status

    def close(self) -> None:
        """End it, and remove the socket. What is being computed is lost, so drain first. May be called twice."""
        if os.getpid() != self._owner:  # a forked web worker inherits this object, but not the process
            return
        self._stopping.set()
        with self._changed:
            if self._lifeline is not None:
                self._lifeline.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join()
        self._listener.close()
        remove_folder(self._folder)

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            end = self._live()
            if self._stopping.is_set():
                break
            now = time.monotonic()
            self._breaker.tripped(now)
            pause_s = self._breaker.pause_left_s(now)
            self._tell(Phase.WAITING, None, end)
            self._ended()
            _log.error("the device's process ended: %s; it is started again in %.1f s", end, pause_s)
            self._stopping.wait(pause_s)
            self._breaker.may_probe(now + pause_s)
        self._tell(Phase.STOPPED, None)

    def _live(self) -> str:
        """One life of the process, from its start to how it ended, in words."""
        ours, theirs = socket.socketpair()
        with self._changed:
            self._lifeline = ours
        try:
            with theirs:
                child = self._spawn(theirs)
            self._tell(Phase.STARTING, child.pid)
            silence = self._listen(ours, child.pid)
        except OSError as error:
            return f"it could not be started ({error})"
        finally:
            with self._changed:
                self._lifeline = None
            ours.close()  # a child that is still there reads its end here
        return _buried(child, silence)

    def _spawn(self, lifeline: socket.socket) -> subprocess.Popen[bytes]:
        fds = (self._listener.fileno(), lifeline.fileno())
        arguments = {"--opener": self._opener, "--listener": str(fds[0]), "--lifeline": str(fds[1]), **self._arguments}
        line = command("service.device.host") + [part for pair in arguments.items() for part in pair]
        variables = dict(self._variables)
        if self._device is not None:
            line.append("--gpu")
            variables["CUDA_VISIBLE_DEVICES"] = str(self._device)
        return subprocess.Popen(line, env=environment(variables), pass_fds=fds, stdin=subprocess.DEVNULL)

    def _listen(self, lifeline: socket.socket, pid: int) -> str | None:
        """Until it ends or falls silent; then, for how long it was silent."""
        if self._stopping.is_set():
            return None
        limit_s = self._start_limit_s
        while True:
            lifeline.settimeout(limit_s)
            try:
                said = lifeline.recv(4096)
            except TimeoutError:
                return f"it said nothing for {limit_s:g} s"
            except OSError:
                return None
            if not said:
                return None
            if limit_s is self._start_limit_s:
                limit_s = self._hang_s
                self._tell(Phase.READY, pid)
            self._breaker.succeeded(time.monotonic())

    def _tell(self, phase: Phase, pid: int | None, end: str | None = None) -> None:
        with self._changed:
            before = self._status
            restarts = before.restarts + (end is not None)
            self._status = DeviceStatus(phase, pid, restarts, end or before.last_end)
            self._changed.notify_all()


def remove_folder(folder: Path) -> None:
    """The socket's folder, if it is still there."""
    with contextlib.suppress(OSError):
        (folder / _SOCKET).unlink(missing_ok=True)
        folder.rmdir()


def remove_leftovers() -> None:
    """Folders of processes that were all killed at once: nobody listens in them any more."""
    for folder in Path(_base()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            found = folder.stat()
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < _YOUNG_S:
                continue
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1)
                try:
                    probe.connect(str(folder / _SOCKET))
                except (ConnectionRefusedError, FileNotFoundError):
                    remove_folder(folder)


def _base() -> str:
    """A folder for the socket's folder."""
    for place in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir()):
        if place and len(os.fsencode(place)) < _LONGEST_FOLDER and os.access(place, os.W_OK):
            return place
    return "/tmp"


def _buried(child: subprocess.Popen[bytes], silence: str | None) -> str:
    """Make sure that it is gone, and say how."""
    if silence is not None:
        child.kill()
    try:
        status = child.wait(_PARTING_S)
    except subprocess.TimeoutExpired:
        child.kill()
        status = child.wait()
    if silence is not None:
        return f"it was killed: {silence}"
    if status < 0:
        return f"signal {-status}"
    return Exit(status).name.lower().replace("_", " ") if status in list(Exit) else f"exit status {status}"
