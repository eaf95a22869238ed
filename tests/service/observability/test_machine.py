from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.observability import machine
from service.observability.machine import Gpus, process_gauges, process_totals


class Nvml:
    """As much of pynvml as is asked of it: one GPU, of which some calls may fail."""

    class NVMLError(Exception):
        pass

    def __init__(self, *failing: str) -> None:
        for name in failing:
            setattr(self, name, self._fail)

    def _fail(self, *_: Any) -> Any:
        raise self.NVMLError("GPU is lost")

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=3, total=8)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return SimpleNamespace(gpu=50)


def test_process_knows_its_memory_and_files() -> None:
    gauges = process_gauges()

    assert gauges["process_resident_memory_bytes", ()] > 1_000_000
    assert gauges["process_open_fds", ()] >= 3
    assert gauges["tandem_processes", ()] == 1


def test_what_the_system_does_not_tell_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_PROC", tmp_path / "proc")

    assert process_gauges() == {("tandem_processes", ()): 1}


def test_process_knows_what_it_has_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "dropped_lines", lambda: 3)

    totals = process_totals()

    assert totals["process_cpu_seconds_total"] > 0
    assert totals["tandem_log_lines_dropped_total"] == 3


def test_gpu_shows_its_load_and_memory() -> None:
    assert Gpus(Nvml).gauges() == {
        ("tandem_gpu_memory_used_bytes", ("0",)): 3,
        ("tandem_gpu_memory_total_bytes", ("0",)): 8,
        ("tandem_gpu_utilization_ratio", ("0",)): 0.5,
    }


def test_gpu_that_tells_no_load_still_shows_its_memory() -> None:
    gauges = Gpus(lambda: Nvml("nvmlDeviceGetUtilizationRates")).gauges()

    assert {name for name, _ in gauges} == {"tandem_gpu_memory_used_bytes", "tandem_gpu_memory_total_bytes"}


def test_gpu_that_is_lost_shows_nothing() -> None:
    assert Gpus(lambda: Nvml("nvmlDeviceGetHandleByIndex")).gauges() == {}


@pytest.mark.parametrize("error", [ImportError("no pynvml"), Nvml.NVMLError("no driver"), OSError("no library")])
def test_without_nvml_there_are_none_and_it_is_looked_for_once(error: Exception) -> None:
    tries: list[None] = []

    def open_nvml() -> Any:
        tries.append(None)
        raise error

    gpus = Gpus(open_nvml)

    assert [gpus.gauges() for _ in range(3)] == [{}, {}, {}]
    assert len(tries) == 1
