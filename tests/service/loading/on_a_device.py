"""Opens engines in the device's process: those for a GPU as if it had one, with the same files on the CPU."""

from __future__ import annotations

from typing import Any

from service.core.contracts import Engine
from service.loading import hosted


def open_hosted(spec: dict[str, Any]) -> Engine:
    hosted.ON_GPU["treelite"] = "treelite"
    return hosted.open_hosted(spec)
