from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.core.table import SparseRows, Values
from service.scheduling.answers import count, parted, stacked, taken, woven


def _sparse(dense: NDArray[Any]) -> SparseRows:
    """As scipy has it, with 32-bit indices."""
    rows, indices = np.nonzero(dense)
    ends = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))]).astype(np.int32)
    return SparseRows(dense.shape[1], ends, indices.astype(np.int32), dense[rows, indices])


def _dense(values: Values) -> list[Any]:
    """Values of any form as nested lists, for comparing."""
    if isinstance(values, SparseRows):
        dense = np.zeros((len(values.indptr) - 1, values.width))
        assert values.indptr[0] == 0
        for row, (start, end) in enumerate(zip(values.indptr, values.indptr[1:], strict=False)):
            dense[row, values.indices[start:end]] = values.data[start:end]
        return dense.tolist()
    if isinstance(values, list):
        return [list(row) for row in zip(*(target.tolist() for target in values), strict=True)]
    return list(values.tolist())


def _forms(rows: int, seed: int) -> dict[str, Values]:
    """Answers of `rows` rows, in every form that answers have."""
    random = np.random.default_rng(seed)
    dense = random.integers(0, 3, (rows, 4)).astype(np.float64)
    return {
        "vector": random.random(rows),
        "matrix": dense,
        "labels": random.choice(np.array(["a", "bc", "def"], dtype=object), rows),
        "sparse": _sparse(dense),
        "targets": [dense[:, :2], random.integers(0, 9, (rows, 3))],
    }


FORMS = sorted(_forms(0, 0))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_rows_are_counted(form: str, rows: int) -> None:
    assert count(_forms(rows, 1)[form]) == rows


def test_scalar_has_no_rows() -> None:
    assert count(np.asarray(1.0)) == -1


@pytest.mark.parametrize("form", FORMS)
@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_stacking_undoes_parting(form: str, lengths: list[int], seed: int) -> None:
    ends = np.cumsum([0, *lengths]).tolist()
    values = _forms(ends[-1], seed)[form]

    parts = parted(values, ends)

    assert [count(part) for part in parts] == lengths
    assert _dense(stacked(parts)) == _dense(values)
    assert [row for part in parts for row in _dense(part)] == _dense(values)


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data(), seed=st.integers(0, 99))
def test_taken_rows_are_those_asked_for(form: str, data: st.DataObject, seed: int) -> None:
    values = _forms(6, seed)[form]
    rows = data.draw(st.lists(st.integers(0, 5), max_size=8))

    got = taken(values, np.array(rows, dtype=np.intp))

    everything = _dense(values)
    assert _dense(got) == [everything[row] for row in rows]


@pytest.mark.parametrize("form", FORMS)
def test_dtypes_stay_what_they_are(form: str) -> None:
    def dtypes(values: Values) -> list[Any]:
        if isinstance(values, SparseRows):
            return [values.indptr.dtype, values.indices.dtype, values.data.dtype]
        return [target.dtype for target in values] if isinstance(values, list) else [values.dtype]

    values = _forms(5, 1)[form]

    assert dtypes(taken(values, np.array([3, 1]))) == dtypes(values)
    assert dtypes(stacked(parted(values, [0, 2, 5]))) == dtypes(values)


@given(mask=st.lists(st.booleans(), min_size=1, max_size=9), seed=st.integers(0, 99))
def test_weaving_puts_every_row_where_it_belongs(mask: list[bool], seed: int) -> None:
    answers = _forms(len(mask), seed)
    some, others = np.flatnonzero(mask), np.flatnonzero(~np.array(mask))

    woven_answers = woven(
        [(rows, {name: taken(values, rows) for name, values in answers.items()}) for rows in (some, others)]
    )

    assert {name: _dense(values) for name, values in woven_answers.items()} == {
        name: _dense(values) for name, values in answers.items()
    }
