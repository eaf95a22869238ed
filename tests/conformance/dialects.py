"""The requests of every other dialect, each in a corpus of its own (`corpus_v2.py` and so on)."""

from __future__ import annotations

from typing import Final

from tests.conformance import (
    corpus_columnar,
    corpus_invocations,
    corpus_repository,
    corpus_torchserve,
    corpus_v1,
    corpus_v2,
)
from tests.conformance.corpus import Case

CASES: Final[tuple[Case, ...]] = (
    *corpus_columnar.CASES,
    *corpus_invocations.CASES,
    *corpus_v1.CASES,
    *corpus_v2.CASES,
    *corpus_repository.CASES,
    *corpus_torchserve.CASES,
)
