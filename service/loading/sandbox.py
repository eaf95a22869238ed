"""Files are opened in a child first: what crashes, hangs or fills the memory there harms nobody here.

The allow-list keeps foreign code out of a file, but a crafted tree or booster can still crash native code, also at
the first prediction. So the child (`sandboxed.py`) gets the very bytes that are to be opened, not their path, rebuilds
the estimator and asks it the golden rows, with limits on memory, processor time, time, and files, and without a
network where the kernel lets it go without. This guards against broken and careless files. It is no prison: whoever
takes over the child can say that all is well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from service.core.artefact_errors import SandboxRefused, UntrustedNames
from service.repository.manifest import EngineEntry, Manifest, digest
from service.runtimes.channel import Channel, ChannelClosed, Garbage
from service.runtimes.device_errors import unpack_error
from service.runtimes.spawn import command
from service.runtimes.wire import Packing, WireError

MODULE: Final = "service.loading.sandboxed"
# What Python and the libraries need to be found; keys, tokens and settings are none of a model's business.
_VARIABLES: Final = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TZ")
# A child that was told to end does so within this time or is killed.
_END_S: Final = 2.0
# What went well in this process: how it was opened, and the digests of its bytes.
_WENT_WELL: Final[set[tuple[str, ...]]] = set()


class Sandbox:
    """Tries model files out. Any thread may call; one file is tried at a time.

    A child is started for the first file, and tries those that follow; `rest` ends it. Bytes that went well once
    are not tried again by this process.

    Args:
        memory_bytes: what the child may take, libraries included.
        seconds: for one file; as much processor time at most.
        rests: its child ends with each file: nobody calls `rest`.
    """

    def __init__(self, *, memory_bytes: int, seconds: float, rests: bool = False) -> None:
        self._memory_bytes = memory_bytes
        self._seconds = seconds
        self._rests = rests
        self._lock = threading.Lock()
        self._child: _Child | None = None

    @property
    def limits(self) -> dict[str, Any]:
        """What another process needs to make one like it; JSON."""
        return {"memory_bytes": self._memory_bytes, "seconds": self._seconds}

    def try_out(
        self, name: str, content: bytes, trusted: Sequence[str], proof: tuple[Manifest, bytes] | None = None
    ) -> None:
        """Returns when the file called `name` was opened over there and answered.

        `proof` is its manifest and the content of its `golden.json`. Without one the child describes the estimator,
        which asks it rows, too. Whether the answers are right is not its business.

        Raises:
            SandboxRefused: it ended the child, or takes too much time or memory.
            ArtefactError: it cannot be opened; as `model_file.open_estimator` says.
        """
        parts = {"content": content}
        if proof is not None:
            manifest, golden = proof
            parts |= {"signature": manifest.signature.model_dump_json().encode(), "golden": golden}
        self._try(name, {"name": name, "trust": sorted(trusted)}, parts, [digest(content)])

    def try_out_engine(self, entry: EngineEntry, manifest: Manifest, files: Mapping[str, bytes], golden: bytes) -> None:
        """The same for a compiled engine in `files`.

        Raises:
            SandboxRefused: as `try_out`.
            EngineUnusable: it cannot be opened.
        """
        spec = {"runtime": entry.runtime, "options": entry.options, "outputs": list(entry.agreement)}
        parts = {f"file {name}": content for name, content in files.items()}
        parts |= {"signature": manifest.signature.model_dump_json().encode(), "golden": golden}
        self._try(f"the engine {entry.name}", spec, parts, [digest(content) for content in parts.values()])

    def _try(self, name: str, spec: dict[str, Any], parts: Mapping[str, bytes], digests: Sequence[str]) -> None:
        """`sandboxed.py` reads the message: `spec`, and where each of the parts is in the block that comes with it."""
        key = (repr(spec), *digests)
        with self._lock:
            if key in _WENT_WELL:
                return
            # The bytes arrive, are unpacked and become arrays.
            if 3 * sum(map(len, parts.values())) > self._memory_bytes:
                raise self._too_large(name)
            packing = Packing()
            places = {part: packing.add(np.frombuffer(content, np.uint8)) for part, content in parts.items()}
            try:
                self._ask(name, {**spec, "parts": places, "seconds": self._seconds}, packing)
            finally:
                if self._rests:
                    self._end()
            _WENT_WELL.add(key)

    def rest(self) -> None:
        """End the child, unless it is at work; the next file starts another."""
        if self._lock.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._lock.release()

    def close(self) -> None:
        """End the child, and with it what it is at work on."""
        child = self._child
        if child is not None:
            child.process.kill()
        with self._lock:
            self._end()

    def _ask(self, name: str, message: dict[str, Any], packing: Packing) -> None:
        try:
            if self._child is None:
                self._child = _Child(self._memory_bytes, self._seconds)
            reply = self._child.ask(message, packing)
        except (ChannelClosed, Garbage, WireError, OSError) as error:
            what = self._end(is_late=isinstance(error.__cause__, TimeoutError)) or f"could not be started: {error}"
            raise SandboxRefused(f"{name} was not opened: the process that tries files out {what}") from error
        if reply.get("is_out_of_memory"):
            self._end()  # what it has left after that is not much
            raise self._too_large(name)
        if "names" in reply:
            raise UntrustedNames(reply["names"])
        if "error" in reply:
            raise unpack_error(reply["error"], memoryview(b""))

    def _too_large(self, name: str) -> SandboxRefused:
        return SandboxRefused(
            f"{name} was not opened: it takes more than {self._memory_bytes} bytes of memory; if it may, raise "
            "TANDEM_SANDBOX_BYTES"
        )

    def _end(self, *, is_late: bool = False) -> str | None:
        """How the child ended; None where there was none. One that is late is not waited for."""
        child, self._child = self._child, None
        return child.end(is_late=is_late) if child is not None else None


class _Child:
    """The process and the connection to it."""

    def __init__(self, memory_bytes: int, seconds: float) -> None:
        self._seconds = seconds
        ours, theirs = socket.socketpair()
        with theirs:
            environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
            # Trusted code is imported from where this process would take it; an empty entry is the working directory.
            environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
            environment["PYTHONDONTWRITEBYTECODE"] = "1"
            try:
                self.process = subprocess.Popen(
                    [*command(MODULE), str(theirs.fileno()), str(memory_bytes)],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl+C is the server's business
                )
            except BaseException:
                ours.close()
                raise
        ours.settimeout(seconds)
        self._channel = Channel(ours)

    def ask(self, message: dict[str, Any], packing: Packing) -> dict[str, Any]:
        """Raises ChannelClosed where no answer comes in time, Garbage where it is none."""
        self._channel.send(message, packing)
        reply, _ = self._channel.receive()
        return reply

    def end(self, *, is_late: bool) -> str:
        self._channel.close()
        if not is_late:
            with contextlib.suppress(subprocess.TimeoutExpired):
                # Hanging up is enough for a child that waits; one that crashed is gone already.
                self.process.wait(_END_S)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            is_late = True
        code = self.process.returncode
        if is_late or code in (-signal.SIGXCPU, -signal.SIGALRM):
            return f"had no answer within {self._seconds:g} s"
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
