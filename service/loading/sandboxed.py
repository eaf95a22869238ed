"""The child in which model files are tried out: `python -m service.loading.sandboxed DESCRIPTOR BYTES`.

It is started by `sandbox.py`, never by hand. What it must not have is given up before anything else is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from service.core.contracts import Engine
    from service.core.signature import Signature

# Source: unshare(2).
_CLONE_NEWUSER: Final = 0x1000_0000
_CLONE_NEWNET: Final = 0x4000_0000
# A model's libraries are files, too, but they are open only while they are loaded.
_OPEN_FILES: Final = 64


def main() -> None:
    descriptor, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    give_up(memory_bytes)
    from service.runtimes.channel import Channel, ChannelClosed

    channel = Channel(socket.socket(fileno=descriptor))
    try:
        while True:
            message, block = channel.receive()
            reply = _try_out(message, block)
            del block  # and with it the memory that it is mapped to
            channel.send(reply)
    except ChannelClosed:
        pass


def give_up(memory_bytes: int) -> None:
    """The network, where the kernel lets users go without; core dumps, writing files, many files, much memory.

    Must be called before there are threads.
    """
    with contextlib.suppress(AttributeError, OSError):  # no Linux
        unshare = ctypes.CDLL(None).unshare
        # Root may leave the network without leaving its users, and in some containers only the other way round.
        _ = unshare(_CLONE_NEWNET) == 0 or unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),  # pipes, sockets and /dev/null are no files
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        # Not the address space, of which libraries reserve gigabytes that they never touch.
        (resource.RLIMIT_DATA, memory_bytes),
    ):
        _, most = resource.getrlimit(limit)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(limit, (value, value))


def limit_time(seconds: float) -> None:
    """From now on: so much processor time, and ten times as long by the clock, also if nobody is left who would kill.

    The parent is stricter; this is for a parent that died.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime + seconds) + 1, most))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(math.ceil(10 * seconds))


def _try_out(message: dict[str, Any], block: memoryview) -> dict[str, Any]:
    """Open, and ask. What went wrong, as the parent says it; empty where all is well."""
    from service.core.artefact_errors import ArtefactError, UntrustedNames
    from service.runtimes.device_errors import is_out_of_memory, pack_error
    from service.runtimes.wire import Packing

    limit_time(message["seconds"])
    try:
        _answer(message, block)
    except UntrustedNames as error:
        return {"names": list(error.names)}
    except MemoryError:
        return {"is_out_of_memory": True}
    except ArtefactError as error:
        if is_out_of_memory(error):
            return {"is_out_of_memory": True}
        return {"error": pack_error(Packing(), error)}
    finally:
        signal.alarm(0)
    return {}


def _answer(message: dict[str, Any], block: memoryview) -> None:
    import warnings

    from service.core.signature import Signature
    from service.loading.engines import open_engine
    from service.runtimes.wire import unpack_array

    warnings.simplefilter("ignore")  # nobody would see them
    parts = {name: bytes(unpack_array(place, block)) for name, place in message["parts"].items()}
    if "runtime" in message:
        signature = Signature.model_validate_json(parts["signature"])
        files = {name.removeprefix("file "): content for name, content in parts.items() if name.startswith("file ")}
        engine = open_engine(message["runtime"], files, signature, message["options"])
        _ask(engine, signature, parts["golden"], message["outputs"])
        return
    from service.loading.loader import engine_of
    from service.repository.model_file import open_estimator
    from service.runtimes.describe import describe

    estimator = open_estimator(message["name"], parts["content"], message["trust"])
    if "signature" not in parts:
        describe(estimator)
        return
    signature = Signature.model_validate_json(parts["signature"])
    _ask(engine_of(estimator, signature), signature, parts["golden"], signature.output_names)


def _ask(engine: Engine, signature: Signature, content: bytes, outputs: Sequence[str]) -> None:
    from service.core.errors import TandemError
    from service.loading.golden import read_golden

    golden = read_golden(content, signature)
    for asked in filter(None, (golden.sample, golden.hard)):
        for output in outputs:
            # An answer that fails, or is wrong, is found out by whoever serves it.
            with contextlib.suppress(TandemError):
                engine.run(asked.rows, (output,))


if __name__ == "__main__":
    main()
