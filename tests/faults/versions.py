"""Two versions of one model, to be damaged and put into a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression

from service.repository.manifest import MANIFEST
from training.export import export

X = np.random.RandomState(0).normal(size=(12, 2))


def export_two(root: Path) -> Path:
    """Versions 1 and 2 of `line`: their answers to a row of ones are 1 and 2."""
    for factor in (1, 2):
        export(LinearRegression().fit(X, X[:, 0] * factor), X, name="line", repository=root)
    return root


def change_manifest(version: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((version / MANIFEST).read_bytes())
    change(content)
    (version / MANIFEST).write_text(json.dumps(content))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
