from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from service.core.artefact_errors import GoldenDisagrees
from service.core.errors import CannotAnswer, ModelFailed
from service.core.signature import Column, Container, Output, Signature
from service.core.table import Matrix, Table, Values, take
from service.loading import engines
from service.loading.golden import Golden, Recorded, read_golden, write_golden
from service.loading.options import Trial, check_estimator, open_compiled, option
from service.repository.manifest import EngineEntry, FileEntry, Manifest

_SIGNATURE = Signature(
    container=Container.ARRAY,
    columns=(Column(name="a", dtype="float64"), Column(name="b", dtype="float64")),
    outputs=(Output(name="predict", dtype="float64"), Output(name="score_samples", dtype="float64")),
)
_ROWS = Matrix(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))


def _answers(rows: Table) -> dict[str, Any]:
    assert isinstance(rows, Matrix)
    return {"predict": rows.values.sum(axis=1), "score_samples": rows.values.prod(axis=1)}


class _Engine:
    """Gives the recorded answers, or what the test makes of them."""

    def __init__(self, change: Callable[[str, Any], Any] = lambda name, values: values) -> None:
        self.is_reentrant = True
        self.asked: list[int] = []
        self._change = change

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        self.asked.append(rows.n_rows)
        return {name: self._change(name, _answers(rows)[name]) for name in outputs}


@pytest.fixture
def golden() -> Golden:
    """Two rows of a sample and a hard one."""
    sample, hard = (
        Recorded(part, _answers(part)) for part in (take(_ROWS, np.array([0, 1])), take(_ROWS, np.array([2])))
    )
    return read_golden(write_golden(sample, hard, _SIGNATURE), _SIGNATURE)


def _outputs(trial: Trial) -> frozenset[str]:
    assert trial.option is not None
    return trial.option.outputs


def _manifest(*, exact: tuple[str, ...] = ()) -> Manifest:
    entry = EngineEntry(
        name="fast", runtime="fake", files=("it",), agreement={"predict": 0.0, "score_samples": 1e-9}, exact=exact
    )
    return Manifest(
        name="m", version=1, created="", exporter="", estimator="", signature=_SIGNATURE,
        files={"it": FileEntry(sha256="", bytes=0)}, libraries={}, python="", engines=(entry,),
    )  # fmt: skip


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Callable[[_Engine | Exception], None]:
    """What opening the compiled engine gives."""

    def set_up(engine: _Engine | Exception) -> None:
        def open_fake(files: Mapping[str, bytes], *_: Any, threads: int) -> _Engine:
            assert files == {"it": b"bytes"}
            if isinstance(engine, Exception):
                raise engine
            return engine

        monkeypatch.setitem(engines.RUNTIMES, "fake", f"{__name__}:opened")
        monkeypatch.setitem(globals(), "opened", open_fake)

    return set_up


def test_engine_that_repeats_the_golden_rows_here_is_an_option_with_its_cost(golden: Golden, opens: Any) -> None:
    opens(_Engine())

    (found,) = open_compiled(_manifest(exact=("predict",)), {"it": b"bytes"}, golden, "close")

    fast = found.option
    assert fast is not None
    assert (fast.name, fast.outputs, fast.exact) == ("fast", {"predict", "score_samples"}, {"predict"})
    assert fast.curve is not None
    assert [rows for rows, _ in fast.curve.points] == [1, 8, 64, 512, 4096]
    assert found.dropped == ()


def test_output_that_is_wrong_on_this_host_only_is_dropped_and_told(golden: Golden, opens: Any) -> None:
    opens(_Engine(lambda name, values: values * 1.01 if name == "predict" else values))

    (found,) = open_compiled(_manifest(), {"it": b"bytes"}, golden, "close")

    assert _outputs(found) == {"score_samples"}
    (drop,) = found.dropped
    assert (drop.name, drop.output) == ("fast", "predict")
    assert drop.reason.startswith("on this host, it does not repeat the golden rows: [")


def test_engine_that_was_exact_at_export_must_be_so_here(golden: Golden, opens: Any) -> None:
    opens(_Engine(lambda name, values: values * (1 + 1e-8)))

    (exact,) = open_compiled(_manifest(exact=("predict", "score_samples")), {"it": b"bytes"}, golden, "close")
    (close,) = open_compiled(_manifest(), {"it": b"bytes"}, golden, "close")

    assert exact.option is None
    assert _outputs(close) == {"predict", "score_samples"}


def test_fidelity_exact_leaves_out_what_is_only_close(golden: Golden, opens: Any) -> None:
    opens(_Engine())

    (found,) = open_compiled(_manifest(exact=("score_samples",)), {"it": b"bytes"}, golden, "exact")

    assert _outputs(found) == {"score_samples"}


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        pytest.param(ValueError("bad magic"), "fake cannot open it: ValueError('bad magic')", id="opening"),
        pytest.param(_Engine(lambda name, values: (_ for _ in ()).throw(ModelFailed())), "it fails on", id="running"),
    ],
)
def test_engine_that_fails_here_is_dropped_and_the_version_lives_on(
    golden: Golden, opens: Any, engine: Any, told: str
) -> None:
    opens(engine)

    (found,) = open_compiled(_manifest(), {"it": b"bytes"}, golden, "close")

    assert found.option is None
    assert told in found.dropped[0].reason


def test_rows_that_an_engine_passes_on_do_not_keep_it_from_being_timed(golden: Golden) -> None:
    class Picky(_Engine):
        def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
            assert isinstance(rows, Matrix)
            if (large := rows.values[:, 0] > 2).any():
                raise CannotAnswer("too large", large)
            return super().run(rows, outputs)

    timed = option("picky", Picky(), ("predict",), golden)

    assert timed.curve is not None


def test_engine_that_fails_on_a_single_row_answers_without_a_cost(golden: Golden) -> None:
    class Plural(_Engine):
        def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
            if rows.n_rows == 1:
                raise ModelFailed
            return super().run(rows, outputs)

    assert option("plural", Plural(), ("predict",), golden).curve is None


@pytest.mark.parametrize(("measure_s", "sizes"), [(0.0, [1]), (3600.0, [1, 8, 64, 512, 4096])])
def test_timing_takes_no_longer_than_it_may(golden: Golden, measure_s: float, sizes: list[int]) -> None:
    curve = option("slow", _Engine(), ("predict",), golden, measure_s=measure_s).curve

    assert curve is not None
    assert [rows for rows, _ in curve.points] == sizes


def test_estimator_must_repeat_the_rows_of_the_sample_and_only_those(golden: Golden) -> None:
    wrong_on_hard_rows = _Engine(lambda name, values: np.where(values > 20, 0.0, values))
    wrong = _Engine(lambda name, values: values + 1)

    check_estimator(wrong_on_hard_rows, _manifest(), golden)
    with pytest.raises(GoldenDisagrees, match="version 1 of m does not repeat its golden rows: predict"):
        check_estimator(wrong, _manifest(), golden)
