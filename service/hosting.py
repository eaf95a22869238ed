"""The processes beside the web processes: one that owns the GPU, one for models that are kept apart.

`tandem serve` starts them once for all its workers; an app that a web server builds starts its own.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from service.core.errors import TandemError
from service.runtimes.device import Device, probe
from service.runtimes.device_process import DeviceProcess
from service.runtimes.remote import DeviceClient
from service.settings import Settings

_log = logging.getLogger(__name__)

OPENER: Final = "service.loading.hosted:open_hosted"
# Python, CUDA and cuML take seconds to start; a process that is not ready by then will not be.
START_S: Final = 120.0
# What computes on a GPU; without one of them nobody need look for one.
_LIBRARIES: Final = ("nvforest", "cuml")


class NoGpu(TandemError):
    """`--device gpu` was asked for, and there is none that can be used."""

    title = "No usable GPU"


@contextmanager
def orders_file(settings: Settings) -> Iterator[Path | None]:
    """The file by which workers tell each other what callers loaded and unloaded; None where they may not."""
    if not settings.model_control or settings.orders_file is not None:
        yield settings.orders_file
        return
    with _private_folder("tandem-orders-") as folder:
        path = folder / "orders.json"
        path.write_text("{}")  # read at every poll, so that nothing that tidies temporary folders finds it forgotten
        yield path


@contextmanager
def metrics_folder(settings: Settings) -> Iterator[Path | None]:
    """The folder in which workers add up their metrics; None where there is no place for one."""
    if settings.metrics_folder is not None:
        yield settings.metrics_folder
        return
    with ExitStack() as stack:
        folder: Path | None = None
        try:
            folder = stack.enter_context(_private_folder("tandem-metrics-"))
        except OSError as error:
            _log.warning("each worker shows metrics of its own: they have no folder in common (%s)", error)
        yield folder


@contextmanager
def _private_folder(prefix: str) -> Iterator[Path]:
    """One that only this user can enter, and that goes at the end with the process that made it: gunicorn's workers
    are forks, which come by there as well.
    """
    owner = os.getpid()
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)


class Hosts:
    """Starts what the settings ask for. `start` and `close` are called by one thread."""

    def __init__(
        self,
        settings: Settings,
        look: Callable[[], Device] = probe,
        ended: Callable[[str], None] = lambda process: None,
    ) -> None:
        """`ended` is called with `gpu` or `apart` whenever that process ended and nobody asked it to."""
        self._settings = settings
        self._look = look
        self._ended = ended
        self._processes: list[DeviceProcess] = []
        self._gpu = settings.gpu_socket
        self._apart = settings.apart_socket

    def start(self) -> None:
        """Returns once they are ready.

        Raises:
            NoGpu: `device` is gpu, and there is none.
        """
        if self._gpu is None and self._settings.device != "cpu":
            device = self._found()
            if device.usable:
                _log.info("GPU: %s, %s", device.name, device.reason)
                self._gpu = self._begin(device=0)
            elif self._settings.device == "gpu":
                raise NoGpu(f"there is no GPU to compute on: {device.reason}")
            else:
                _log.info("no GPU: %s; engines compute on the CPU", device.reason)
        if self._apart is None and self._settings.isolate:
            self._apart = self._begin(device=None)

    def close(self) -> None:
        for process in self._processes:
            process.close()
        self._processes.clear()
        self._gpu, self._apart = self._settings.gpu_socket, self._settings.apart_socket

    def sockets(self) -> dict[str, Path | None]:
        """The settings by which other processes find them."""
        return {"gpu_socket": self._gpu, "apart_socket": self._apart}

    @property
    def gpu(self) -> DeviceClient | None:
        """A way to the GPU's process; None where there is no GPU."""
        return DeviceClient(self._gpu) if self._gpu is not None else None

    @property
    def apart(self) -> DeviceClient | None:
        return DeviceClient(self._apart) if self._apart is not None else None

    def _found(self) -> Device:
        if all(find_spec(library) is None for library in _LIBRARIES):
            return Device(reason="neither nvForest nor cuML is installed (pip install 'tandem-serving[gpu]')")
        return self._look()

    def _begin(self, device: int | None) -> Path:
        settings = self._settings
        process = DeviceProcess(
            OPENER,
            device=device,
            threads=settings.thread_budget,
            call_limit_s=settings.timeout_s,
            logs=(settings.log_format, settings.log_level),
            ended=lambda: self._ended("apart" if device is None else "gpu"),
        )
        process.start()
        self._processes.append(process)
        if not process.wait_until_ready(START_S):
            _log.error("the process for %s is not ready: %s", device, process.status.last_end)
        return process.path
