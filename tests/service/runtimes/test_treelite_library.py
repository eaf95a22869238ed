"""Treelite's shared library."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import treelite
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from service.core.artefact_errors import ModelFileUnreadable
from service.runtimes.treelite_library import Trees

ROWS: NDArray[np.float64] = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32).astype(np.float64)


@pytest.fixture(scope="module")
def forest() -> Any:
    return RandomForestClassifier(n_estimators=8, random_state=0).fit(ROWS, np.arange(200) % 3)


@pytest.fixture(scope="module")
def checkpoint(forest: Any) -> bytes:
    content: bytes = treelite.sklearn.import_model(forest).serialize_bytes()
    return content


def test_trees_know_their_shape(checkpoint: bytes) -> None:
    trees = Trees(checkpoint, threads=1)

    assert (trees.width, trees.dtype, trees.shape) == (4, np.float64, (1, 3))


def test_scores_are_those_of_the_package(checkpoint: bytes) -> None:
    model = treelite.Model.deserialize_bytes(checkpoint)

    scores = Trees(checkpoint, threads=1).scores(ROWS)

    assert np.array_equal(scores, treelite.gtil.predict(model, ROWS, nthread=1, pred_margin=True))


@pytest.mark.parametrize("threads", [1, 2])
def test_several_threads_may_ask_at_once(checkpoint: bytes, threads: int) -> None:
    trees = Trees(checkpoint, threads=threads)

    with ThreadPoolExecutor(4) as pool:
        expected = pool.submit(trees.scores, ROWS).result()  # this thread may have been limited to one by another test
        answers = list(pool.map(trees.scores, [ROWS] * 40))

    assert all(np.array_equal(answer, expected) for answer in answers)


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all" * 20], ids=["empty", "something else"])
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(ModelFileUnreadable, match="Treelite checkpoint"):
        Trees(content, threads=1)


def test_half_a_checkpoint_is_refused(checkpoint: bytes) -> None:
    with pytest.raises(ModelFileUnreadable):
        Trees(checkpoint[: len(checkpoint) // 2], threads=1)


def test_neither_scikit_learn_nor_scipy_nor_pandas_is_imported(checkpoint: bytes) -> None:
    program = (
        "import sys; from service.runtimes.treelite import TreeliteEngine; "
        "from service.runtimes.treelite_library import Trees; Trees(sys.stdin.buffer.read(), 1); "
        "print([name for name in ('sklearn', 'scipy', 'pandas', 'treelite') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], input=checkpoint, capture_output=True, check=True)

    assert done.stdout.strip() == b"[]"
