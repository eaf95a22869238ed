from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from service.core.table import Frame, Matrix, SparseRows, Table, Values
from service.scheduling.slices import SLICE_ROWS, in_slices

N = 2 * SLICE_ROWS + 3


class Engine:
    """Answers each row with its number, in every form that answers have."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        values = rows.values[:, 0] if isinstance(rows, Matrix) else rows.columns["number"]
        self.sizes.append(rows.n_rows)
        size = len(values)
        answers: dict[str, Values] = {
            "array": values,
            "wide": np.stack([values, -values], axis=1),
            "labels": np.array([f"label {int(value)}" for value in values]),
            "targets": [values, values + 1],
            "sparse": SparseRows(3, np.arange(size + 1), np.zeros(size, dtype=int), values),
        }
        return {name: answers[name] for name in outputs}


@pytest.mark.parametrize("rows", [1, SLICE_ROWS, SLICE_ROWS + 1, N])
def test_slices_are_all_rows_in_their_order(rows: int) -> None:
    engine = Engine()

    answers = in_slices(engine.run, Matrix(np.arange(rows, dtype=float)[:, None]), ("array",), lambda: None)

    assert np.array_equal(answers["array"], np.arange(rows))
    assert sum(engine.sizes) == rows and max(engine.sizes) <= SLICE_ROWS


def parts_of(values: Values) -> list[Any]:
    if isinstance(values, SparseRows):
        return [values.indptr, values.indices, values.data]
    return values if isinstance(values, list) else [values]


@pytest.mark.parametrize("output", ["array", "wide", "labels", "targets", "sparse"])
def test_answers_of_every_form_are_those_to_all_rows_at_once(output: str) -> None:
    numbers = np.arange(N, dtype=float)
    whole: Any = Engine().run(Frame({"number": numbers}), (output,))[output]

    found: Any = in_slices(Engine().run, Frame({"number": numbers}), (output,), lambda: None)[output]

    parts = [parts_of(values) for values in (whole, found)]
    assert all(np.array_equal(one, other) for one, other in zip(*parts, strict=True))


def test_rows_are_not_copied() -> None:
    rows = Matrix(np.zeros((N, 2)))
    seen: list[bool] = []

    def run(some: Table, outputs: Sequence[str]) -> dict[str, Values]:
        assert isinstance(some, Matrix)
        seen.append(np.shares_memory(some.values, rows.values))
        return {"predict": np.zeros(some.n_rows)}

    in_slices(run, rows, ("predict",), lambda: None)

    assert seen == [True] * 3


def test_what_is_raised_between_two_slices_spares_the_others() -> None:
    engine = Engine()

    def pause() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        in_slices(engine.run, Matrix(np.zeros((N, 1))), ("array",), pause)
    assert engine.sizes == [SLICE_ROWS]
