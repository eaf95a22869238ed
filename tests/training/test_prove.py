from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from service.core.errors import ModelFailed
from service.core.signature import Column, Container, Output, Signature
from service.core.table import Matrix, Table, Values
from service.loading import engines
from service.loading.golden import Golden, Recorded, read_golden, write_golden
from training.compile.candidate import Candidate, Compiled
from training.prove import prove

_SIGNATURE = Signature(
    container=Container.ARRAY,
    columns=(Column(name="a", dtype="float64"),),
    outputs=(Output(name="predict", dtype="int64", classes=[0, 1]), Output(name="score_samples", dtype="float64")),
)
_ROWS = Matrix(np.array([[1.0], [2.0], [3.0]]))


def _answer(name: str, rows: Table) -> Any:
    assert isinstance(rows, Matrix)
    column = rows.values[:, 0]
    return (column > 1.5).astype(np.int64) if name == "predict" else column / 3


class _Engine:
    is_reentrant = True

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        if self._options.get("fails"):
            raise ModelFailed
        answers = {name: _answer(name, rows) for name in outputs}
        if "score_samples" in answers:
            answers["score_samples"] = answers["score_samples"] * (1 + self._options.get("off", 0.0))
        if "predict" in answers and self._options.get("wrong_label"):
            answers["predict"] = 1 - answers["predict"]
        return answers


def open_fake(files: Mapping[str, bytes], signature: Signature, options: Mapping[str, Any], *, threads: int) -> _Engine:
    if files["it"] == b"broken":
        raise ValueError("not a model")
    return _Engine(options)


@pytest.fixture(autouse=True)
def _runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.RUNTIMES, "fake", f"{__name__}:open_fake")


@pytest.fixture
def golden() -> Golden:
    answers = {name: _answer(name, _ROWS) for name in _SIGNATURE.output_names}
    return read_golden(write_golden(Recorded(_ROWS, answers), None, _SIGNATURE), _SIGNATURE)


def _candidate(
    name: str = "fake",
    *,
    outputs: tuple[str, ...] = ("predict", "score_samples"),
    content: bytes = b"",
    double: bool = True,
    **options: Any,
) -> Candidate:
    return Candidate(name, "fake", outputs, {"it": content}, options, is_double=double)


def test_engine_that_gives_the_estimators_answers_is_kept_with_its_files(golden: Golden) -> None:
    proven = prove({"fake": Compiled((_candidate(),))}, golden, _SIGNATURE, "close")

    (entry,) = proven.engines
    assert entry.agreement == {"predict": 0.0, "score_samples": 0.0}
    assert entry.exact == ("predict", "score_samples")
    assert (entry.files, proven.files) == (("it",), {"it": b""})
    assert proven.dropped == ()


@pytest.mark.parametrize(
    ("off", "close", "exact"),
    [
        pytest.param(1e-14, True, True, id="last digits"),
        pytest.param(1e-7, True, False, id="single precision"),
        pytest.param(1e-4, False, False, id="another number"),
    ],
)
def test_fidelity_says_how_far_numbers_may_be(golden: Golden, off: float, close: bool, exact: bool) -> None:
    compiled = {"fake": Compiled((_candidate(outputs=("score_samples",), off=off),))}

    assert bool(prove(compiled, golden, _SIGNATURE, "close").engines) is close
    assert bool(prove(compiled, golden, _SIGNATURE, "exact").engines) is exact


def test_engine_in_single_precision_is_never_called_exact(golden: Golden) -> None:
    proven = prove({"fake": Compiled((_candidate(double=False),))}, golden, _SIGNATURE, "close")

    assert proven.engines[0].exact == ()


def test_output_that_disagrees_is_dropped_and_says_where(golden: Golden) -> None:
    proven = prove({"fake": Compiled((_candidate(wrong_label=True),))}, golden, _SIGNATURE, "close")

    assert list(proven.engines[0].agreement) == ["score_samples"]
    (drop,) = proven.dropped
    assert (drop.name, drop.output) == ("fake", "predict")
    assert "[0] is 1 where 0 was recorded" in drop.reason


@pytest.mark.parametrize(
    ("candidate", "told"),
    [
        pytest.param(
            lambda: _candidate(content=b"broken"), "fake cannot open it: ValueError('not a model')", id="opens"
        ),
        pytest.param(lambda: _candidate(fails=True), "it fails on the golden rows", id="runs"),
    ],
)
def test_engine_that_fails_is_dropped_with_its_files(
    golden: Golden, candidate: Callable[[], Candidate], told: str
) -> None:
    proven = prove({"fake": Compiled((candidate(),))}, golden, _SIGNATURE, "close")

    assert (proven.engines, proven.files) == ((), {})
    assert told in proven.dropped[0].reason


def test_what_a_compiler_says_is_passed_on(golden: Golden) -> None:
    reasons = {"": "no trees", "predict": "no classes"}

    proven = prove({"fake": Compiled((), reasons)}, golden, _SIGNATURE, "close")

    assert [(drop.name, drop.output, drop.reason) for drop in proven.dropped] == [
        ("fake", None, "no trees"),
        ("fake", "predict", "no classes"),
    ]


def test_of_two_candidates_with_one_name_the_one_that_keeps_more_stays(golden: Golden) -> None:
    first = _candidate(wrong_label=True, off=1e-14)
    second = _candidate(double=False, off=1e-7)

    proven = prove({"fake": Compiled((first, second))}, golden, _SIGNATURE, "close")

    (entry,) = proven.engines
    assert set(entry.agreement) == {"predict", "score_samples"}
    assert proven.dropped == ()


def test_of_two_that_keep_as_much_the_first_stays(golden: Golden) -> None:
    proven = prove({"fake": Compiled((_candidate(), _candidate(off=1e-7)))}, golden, _SIGNATURE, "close")

    assert proven.engines[0].agreement["score_samples"] == 0.0


def test_engine_for_gpus_alone_is_kept_unproven_with_the_outputs_it_could_give(golden: Golden) -> None:
    candidate = Candidate("cuml", "cuml", ("predict", "score_samples"), files={}, options={"class": "it"})

    proven = prove({"cuml": Compiled((candidate,))}, golden, _SIGNATURE, "close")

    (entry,) = proven.engines
    assert (entry.agreement, entry.exact) == ({}, ())
    assert entry.options == {"class": "it", "outputs": ["predict", "score_samples"]}
    assert proven.dropped == ()


def test_engine_for_gpus_alone_is_dropped_where_only_the_exact_is_wanted(golden: Golden) -> None:
    candidate = Candidate("cuml", "cuml", ("predict",), files={})

    proven = prove({"cuml": Compiled((candidate,))}, golden, _SIGNATURE, "exact")

    assert proven.engines == ()
    ((name, reason),) = [(drop.name, drop.reason) for drop in proven.dropped]
    assert (name, reason) == ("cuml", "only a GPU can prove it, and until then it is not exact")
