"""Figures of the GPU by NVML, as the web processes ask for them: without CUDA."""

from __future__ import annotations

from typing import Any

import pytest

from service.observability.machine import Gpus

pytestmark = pytest.mark.gpu


def test_every_gpu_shows_its_memory(gpu: Any) -> None:
    pytest.importorskip("pynvml")

    gauges = Gpus().gauges()

    total = gauges["tandem_gpu_memory_total_bytes", ("0",)]
    assert 0 <= gauges["tandem_gpu_memory_used_bytes", ("0",)] <= total
    assert total > 2**30
    assert 0 <= gauges.get(("tandem_gpu_utilization_ratio", ("0",)), 0.0) <= 1
