"""What a compiler offers, before anything is proven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine that could answer `outputs`.

    `name` is unique in a version and stands in URLs and settings (`onnx`, `onnx-scores`, `treelite`).
    `runtime` is the module of `service/runtimes` that opens it, `files` are written beside the
    manifest under these names, and `options` is JSON that only the runtime understands.
    `is_double` says that no number in it is ever narrowed below what the estimator computes in.
    """

    name: str
    runtime: str
    outputs: tuple[str, ...]
    files: Mapping[str, bytes]
    options: Mapping[str, Any] = field(default_factory=dict)
    is_double: bool = False


@dataclass(frozen=True, slots=True)
class Compiled:
    """Candidates of one compiler, best first, and why it offers none for the other outputs.

    A reason under the empty name is about all outputs.
    """

    candidates: tuple[Candidate, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
