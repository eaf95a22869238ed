from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from service.core.errors import CannotAnswer, ModelFailed, RowsRefused
from service.core.table import Frame, Matrix, SparseRows, Table, Values
from service.device.guard import SHORT_S, GuardedEngine, Watch
from service.runtimes.device_errors import DeviceUnavailable
from tests.faults.cases import fault


class Engine:
    """Answers with the first column, and keeps the number of rows of each call; `instead` may raise."""

    is_reentrant = False

    def __init__(self, instead: Callable[[Table], None] = lambda rows: None) -> None:
        self.calls: list[int] = []
        self._instead = instead

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        self.calls.append(rows.n_rows)
        first = _first(rows).copy()
        _first(rows)[:] = -1  # rows are used up
        self._instead(rows)
        answers: dict[str, Values] = {
            "predict": first,
            "predict_proba": [first, first.reshape(-1, 1)],
            "transform": SparseRows(3, np.arange(len(first) + 1, dtype=np.int32), np.arange(len(first)), first),
        }
        return {name: answers[name] for name in outputs}


def _first(rows: Table) -> np.ndarray:
    return rows.values[:, 0] if isinstance(rows, Matrix) else rows.columns["a"]


def _holds(most: int, error: type[Exception] = MemoryError) -> Callable[[Table], None]:
    def instead(rows: Table) -> None:
        if rows.n_rows > most:
            raise error from MemoryError()

    return instead


def _guarded(engine: Engine, left: list[BaseException] | None = None) -> GuardedEngine:
    return GuardedEngine(engine, Watch(60), ([] if left is None else left).append)


def _rows(n: int) -> Matrix:
    return Matrix(np.arange(2.0 * n).reshape(n, 2))


@fault("G02", sent="out of memory on a batch", expected="computed in halves")
@pytest.mark.parametrize("error", [MemoryError, ModelFailed], ids=["as it is", "wrapped"])
def test_batch_too_large_for_the_memory_is_computed_in_halves(error: type[Exception]) -> None:
    engine = Engine(_holds(3, error))

    answers = _guarded(engine).run(_rows(5), ["predict", "predict_proba", "transform"])

    assert engine.calls == [5, 2, 3]
    assert np.array_equal(answers["predict"], [0, 2, 4, 6, 8])  # type: ignore[arg-type]
    targets, sparse = answers["predict_proba"], answers["transform"]
    assert isinstance(targets, list) and isinstance(sparse, SparseRows)
    assert [target.shape for target in targets] == [(5,), (5, 1)]
    assert sparse.indptr.tolist() == [0, 1, 2, 3, 4, 5]


def test_halves_of_a_frame_are_frames() -> None:
    engine = Engine(_holds(2))

    answers = _guarded(engine).run(Frame({"a": np.arange(4.0)}), ["predict"])

    assert np.array_equal(answers["predict"], [0, 1, 2, 3])  # type: ignore[arg-type]


@fault("G02", sent="out of memory on half a batch", expected="DeviceUnavailable: another engine, or 503")
@pytest.mark.parametrize("n", [1, 8])
def test_half_that_is_too_large_as_well_is_for_another_engine(n: int) -> None:
    engine = Engine(_holds(0))

    with pytest.raises(DeviceUnavailable, match="no memory"):
        _guarded(engine).run(_rows(n), ["predict"])

    assert len(engine.calls) <= 2


def test_rows_that_a_half_cannot_answer_are_named_among_all() -> None:
    def instead(rows: Table) -> None:
        _holds(2)(rows)
        if len(engine.calls) == 3:
            raise CannotAnswer("too close", np.array([False, True]))

    engine = Engine(instead)

    with pytest.raises(CannotAnswer) as caught:
        _guarded(engine).run(_rows(4), ["predict"])

    assert caught.value.rows.tolist() == [False, False, False, True]


def test_other_errors_are_left_as_they_are() -> None:
    def instead(rows: Table) -> None:
        raise RowsRefused

    engine = Engine(instead)

    with pytest.raises(RowsRefused):
        _guarded(engine).run(_rows(4), ["predict"])

    assert engine.calls == [4]


@fault("G03", sent="a CUDA error that poisons the process", expected="the process is left")
def test_process_is_left_after_an_error_that_poisons_it() -> None:
    def instead(rows: Table) -> None:
        raise ModelFailed from RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    left: list[BaseException] = []

    with pytest.raises(ModelFailed):
        _guarded(Engine(instead), left).run(_rows(2), ["predict"])

    assert len(left) == 1


def test_call_is_watched_while_it_runs_and_no_longer() -> None:
    now = [0.0]
    watch = Watch(5, lambda: now[0])
    seen = []

    def instead(rows: Table) -> None:
        seen.append(watch.is_past_hope())
        now[0] += 5.1
        seen.append(watch.is_past_hope())
        raise RowsRefused

    with pytest.raises(RowsRefused):
        GuardedEngine(Engine(instead), watch, lambda error: None).run(_rows(1), ["predict"])

    assert [*seen, watch.is_past_hope()] == [False, True, False]


def test_call_is_called_short_once_one_of_its_size_was() -> None:
    ticks = iter([0.0, SHORT_S / 2, 1.0, 1.0 + 2 * SHORT_S])
    guarded = GuardedEngine(Engine(), Watch(60), lambda error: None, lambda: next(ticks))
    before = guarded.is_short(1)

    guarded.run(_rows(1), ["predict"])
    guarded.run(_rows(1000), ["predict"])

    assert (before, guarded.is_short(1), guarded.is_short(1000), guarded.is_short(4)) == (False, True, False, False)
