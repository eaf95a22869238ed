"""The engine around one graph: what it is asked, what it passes on, and what it never touches."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest

from service.core.artefact_errors import EstimatorUnusable
from service.core.errors import CannotAnswer, ModelFailed, RowsRefused
from service.core.signature import Column, Container, Output, Signature
from service.core.table import Frame, Matrix
from service.runtimes.onnx import OnnxEngine, open_onnx

SIGNATURE = Signature(
    container=Container.ARRAY,
    columns=(Column(name="a", dtype="float64"), Column(name="b", dtype="float64")),
    outputs=(Output(name="predict", dtype="string", classes=["no", "yes"]), Output(name="transform", dtype="float64")),
)
GRAPH = """
<ir_version: 10, opset_import: ["" : 21]>
tandem (double[N, 2] numbers) => (double[N] sums, bool[N] unsure)
<int64[1] axis = {1}, double hundred = {100}>
{
  sums = ReduceSum <keepdims = 0> (numbers, axis)
  unsure = Greater (sums, hundred)
}
"""
OPTIONS: dict[str, Any] = {
    "codes": [],
    "outputs": {
        "predict": {"as": "labels", "tensors": ["sums"], "classes": [["no", "yes"]], "inclusive": [False]},
        "transform": {"as": "values", "tensors": ["sums"]},
    },
}


def engine(threads: int = 1, **options: Any) -> OnnxEngine:
    content = onnx.parser.parse_model(GRAPH).SerializeToString()
    return open_onnx({"onnx.onnx": content}, SIGNATURE, OPTIONS | options, threads)


def rows(*values: list[float]) -> Matrix:
    return Matrix(np.array(values))


def test_outputs_that_share_a_tensor_are_made_of_one_run() -> None:
    answers = engine().run(rows([1.0, 2.0], [1.0, -2.0]), ("transform", "predict"))

    assert list(answers) == ["transform", "predict"]
    np.testing.assert_array_equal(answers["transform"], [3.0, -1.0])
    np.testing.assert_array_equal(answers["predict"], np.array(["yes", "no"]))


def test_rows_that_the_graph_doubts_are_passed_on_with_the_answers_of_the_others() -> None:
    with pytest.raises(CannotAnswer) as caught:
        engine(doubt="unsure").run(rows([1.0, 2.0], [100.0, 1.0]), ("transform",))

    assert caught.value.rows.tolist() == [False, True]
    assert caught.value.answers is not None
    assert np.asarray(caught.value.answers["transform"])[0] == 3.0


def test_labels_too_close_for_the_precision_and_numbers_too_large_for_it_are_passed_on_together() -> None:
    with pytest.raises(CannotAnswer) as caught:
        engine(margin=1e-5, limit=1e30).run(rows([1.0, 2.0], [1.0, -1.0 + 1e-7], [1e35, 0.0]), ("predict",))

    assert caught.value.rows.tolist() == [False, True, True]


def test_a_label_that_nobody_asked_for_is_not_too_close() -> None:
    answers = engine(margin=1e-5).run(rows([1.0, -1.0]), ("transform",))

    np.testing.assert_array_equal(answers["transform"], [0.0])


def test_large_batches_run_in_slices() -> None:
    many = Matrix(np.arange(14.0).reshape(7, 2))

    answers = engine(slice_rows=3).run(many, ("transform",))

    np.testing.assert_array_equal(answers["transform"], many.values.sum(axis=1))


def test_codes_are_cut_into_slices_too() -> None:
    signature = SIGNATURE.model_copy(update={"columns": (Column(name="a", dtype="string"),)})
    graph = """
    <ir_version: 10, opset_import: ["" : 21]>
    tandem (int64[1, N] codes) => (double[N] sums) <int64[1] axis = {0}>
    { wide = Cast <to = 11> (codes) sums = ReduceSum <keepdims = 0> (wide, axis) }
    """
    codes = [{"column": "a", "values": ["x", "y"], "first": 0, "missing": 2, "unseen": 3}]
    content = onnx.parser.parse_model(graph).SerializeToString()
    asked = open_onnx({"onnx.onnx": content}, signature, OPTIONS | {"codes": codes, "slice_rows": 2, "numbers": []})

    answers = asked.run(Frame({"a": np.array(["y", None, "x", "z", "y"], dtype=object)}), ("transform",))

    np.testing.assert_array_equal(answers["transform"], [1.0, 2.0, 0.0, 3.0, 1.0])


def test_no_rows_give_no_answers() -> None:
    answers = engine(margin=1e-5, limit=1e30).run(Matrix(np.zeros((0, 2))), ("predict", "transform"))

    assert [len(np.asarray(values)) for values in answers.values()] == [0, 0]


@pytest.mark.parametrize("threads", [1, 2])
def test_several_threads_may_ask_at_once(threads: int) -> None:
    shared = engine(threads)
    assert shared.is_reentrant

    def ask(number: int) -> float:
        return float(np.asarray(shared.run(rows([number, 1.0]), ("transform",))["transform"])[0])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(200))) == [number + 1.0 for number in range(200)]


def test_an_output_it_does_not_have_is_a_failure_of_the_service() -> None:
    with pytest.raises(ModelFailed):
        engine().run(rows([1.0, 2.0]), ("predict_proba",))


def test_rows_of_another_width_are_a_failure_of_the_service() -> None:
    with pytest.raises(ModelFailed):
        engine().run(rows([1.0, 2.0, 3.0]), ("transform",))


def test_what_cannot_be_a_number_is_refused_as_the_estimator_would() -> None:
    signature = SIGNATURE.model_copy(update={"columns": (Column(name="a", dtype="bool"), SIGNATURE.columns[1])})
    content = onnx.parser.parse_model(GRAPH).SerializeToString()
    asked = open_onnx({"onnx.onnx": content}, signature, OPTIONS | {"numbers": ["a", "b"]})

    with pytest.raises(RowsRefused):
        asked.run(Frame({"a": np.array(["red"], dtype=object), "b": np.ones(1)}), ("transform",))


@pytest.mark.parametrize("content", [b"", b"no graph"])
def test_a_file_that_is_no_graph_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(EstimatorUnusable, match="cannot be opened"):
        open_onnx({"onnx.onnx": content}, SIGNATURE, OPTIONS)


def test_an_answer_with_another_number_of_rows_is_a_failure_of_the_service() -> None:
    graph = GRAPH.replace("<keepdims = 0> (numbers, axis)", "<keepdims = 0> (numbers, first)")
    graph = graph.replace("int64[1] axis = {1}", "int64[1] first = {0}")
    content = onnx.parser.parse_model(graph).SerializeToString()

    with pytest.raises(ModelFailed):
        open_onnx({"onnx.onnx": content}, SIGNATURE, OPTIONS).run(rows([1.0, 2.0]), ("transform",))


def test_answering_imports_no_library_of_models(tmp_path: Any) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(onnx.parser.parse_model(GRAPH).SerializeToString())
    code = f"""
import sys
import numpy as np
from service.core.signature import Signature
from service.core.table import Matrix
from service.runtimes.onnx import open_onnx
signature = Signature.model_validate_json({SIGNATURE.model_dump_json()!r})
engine = open_onnx({{"g": open({str(path)!r}, "rb").read()}}, signature, {OPTIONS!r})
engine.run(Matrix(np.ones((1, 2))), ("predict",))
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert {"sklearn", "scipy", "pandas", "onnx", "skl2onnx", "training"} & set(done.stdout.split()) == set()
