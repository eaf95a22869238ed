"""How another Python of ours is started: never by fork, and with this very code."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def command(module: str) -> list[str]:
    # Without -P, a folder called `service` in the working directory would be taken for ours.
    return [sys.executable, "-P", "-m", module]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's own, in which a checkout that is not installed is found too."""
    found = {**os.environ, **(more or {})}
    if str(_ROOT) != sysconfig.get_path("purelib"):
        found["PYTHONPATH"] = os.pathsep.join(filter(None, (found.get("PYTHONPATH"), str(_ROOT))))
    return found
