"""What this process takes of the machine, and what its GPUs do."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from service.observability.counts import Gauges
from service.observability.logs import dropped_lines

_PROC: Final = Path("/proc/self")
# Where a driver can be asked: on Linux, and on Linux within Windows.
_DRIVERS: Final = ("/dev/nvidiactl", "/dev/dxg")


def process_gauges() -> Gauges:
    """Memory and open files of this process; what the system does not tell is left out."""
    gauges: Gauges = {("tandem_processes", ()): 1.0}
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int((_PROC / "statm").read_text().split()[1])
        gauges["process_resident_memory_bytes", ()] = float(pages * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError):
        gauges["process_open_fds", ()] = float(len(os.listdir(_PROC / "fd")))
    return gauges


def process_totals() -> dict[str, float]:
    """What this process has taken since it began, by the names of counters."""
    return {
        "process_cpu_seconds_total": time.process_time(),
        "tandem_log_lines_dropped_total": float(dropped_lines()),
    }


class Gpus:
    """The GPUs of this machine, by NVML, which needs no CUDA context: the process that computes is another one.

    Without pynvml, a driver or a GPU there are none. One thread at a time.

    Args:
        open_nvml: imports NVML and begins to use it, or raises.
    """

    def __init__(self, open_nvml: Callable[[], Any] | None = None) -> None:
        self._open = open_nvml or _nvml
        self._nvml: Any = None
        self._is_absent = False

    def gauges(self) -> Gauges:
        if self._nvml is None and not self._is_absent:
            try:
                self._nvml = self._open()
            except Exception:  # no package, no driver, no library: each has its own exception
                self._is_absent = True
        found: Gauges = {}
        if self._nvml is not None:
            with contextlib.suppress(self._nvml.NVMLError):  # a GPU that fell off the bus, a driver that is updated
                found.update(self._read())
        return found

    def _read(self) -> Iterator[tuple[tuple[str, tuple[str, ...]], float]]:
        nvml = self._nvml
        for index in range(nvml.nvmlDeviceGetCount()):
            handle, labels = nvml.nvmlDeviceGetHandleByIndex(index), (str(index),)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            yield ("tandem_gpu_memory_used_bytes", labels), float(memory.used)
            yield ("tandem_gpu_memory_total_bytes", labels), float(memory.total)
            # Cards that are cut into parts tell memory, and no utilisation.
            with contextlib.suppress(nvml.NVMLError):
                busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu
                yield ("tandem_gpu_utilization_ratio", labels), busy / 100


def _nvml() -> Any:
    if not any(map(os.path.exists, _DRIVERS)):
        raise OSError("there is no NVIDIA driver")  # which is found out sooner than by importing what would ask it
    import pynvml

    pynvml.nvmlInit()
    return pynvml
