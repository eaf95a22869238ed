"""From sums of trees to outputs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from service.core.artefact_errors import ModelFileUnreadable
from service.core.signature import Column, Container, Output, Signature
from service.runtimes.treelite_recipe import Recipe, derivation, too_close


def signature(**outputs: dict[str, Any]) -> Signature:
    return Signature(
        container=Container.ARRAY,
        columns=(Column(name="a", dtype="float64"),),
        outputs=tuple(Output(name=name, **fields) for name, fields in outputs.items()),
    )


def sums(*rows: list[float], dtype: str = "float64") -> Any:
    """One target, and as many classes as there are numbers in a row."""
    return np.array(rows, dtype=dtype)[:, None, :]


def test_options_go_through_json_and_come_back() -> None:
    recipe = Recipe(scores="margins", cast="float64", link="sigmoid", order=(1, 0), codes={0: ["a", "b"], 3: [1.5]})

    again = Recipe.read(json.loads(json.dumps(recipe.options())))

    assert again == recipe


def test_what_is_as_usual_is_not_said() -> None:
    assert Recipe(scores="votes", cast="float32").options() == {"scores": "votes", "cast": "float32"}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"scores": "votes"}, id="lacking"),
        pytest.param({"scores": "votes", "cast": "float32", "dropout": 0.5}, id="unknown"),
        pytest.param({"scores": "guesses", "cast": "float32"}, id="another kind of sums"),
    ],
)
def test_options_that_are_not_understood_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ModelFileUnreadable, match="options of a Treelite engine"):
        Recipe.read(options)


@pytest.mark.parametrize(
    ("dtype", "classes"), [("string", ["no", "yes"]), ("object", ["no", 1]), ("int64", [3, 7]), ("bool", [False, True])]
)
def test_the_label_of_most_votes_is_what_the_estimator_calls_it(dtype: str, classes: list[Any]) -> None:
    derive = derivation(Recipe(scores="votes", cast="float32"), signature(predict={"dtype": dtype, "classes": classes}))

    labels = derive(sums([0.4, 0.6], [0.5, 0.5]), ("predict",))["predict"]

    assert isinstance(labels, np.ndarray)
    assert labels.tolist() == [classes[1], classes[0]]
    assert labels.dtype == np.array(classes, dtype={"string": str}.get(dtype, dtype)).dtype


def test_a_probability_of_zero_has_a_logarithm_and_no_warning() -> None:
    derive = derivation(
        Recipe(scores="votes", cast="float32"), signature(predict_log_proba={"dtype": "float64", "shape": (2,)})
    )

    logarithms = derive(sums([0.0, 1.0]), ("predict_log_proba",))["predict_log_proba"]

    assert isinstance(logarithms, np.ndarray)
    assert logarithms.tolist() == [[-np.inf, 0.0]]


def test_several_targets_have_a_list_of_probabilities_and_a_column_of_labels_each() -> None:
    outputs = signature(
        predict={"dtype": "int64", "shape": (2,), "classes": [[0, 1], [5, 6, 7]]},
        predict_proba={"dtype": "float64", "targets": 2},
    )
    votes = np.array([[[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]]])

    answers = derivation(Recipe(scores="votes", cast="float32", targets=(2, 3)), outputs)(
        votes, ("predict", "predict_proba")
    )

    probabilities, labels = answers["predict_proba"], answers["predict"]
    assert isinstance(probabilities, list)
    assert [target.tolist() for target in probabilities] == [[[0.25, 0.75]], [[0.0, 0.0, 1.0]]]
    assert isinstance(labels, np.ndarray)
    assert labels.tolist() == [[1, 7]]


@pytest.mark.parametrize(("decide", "label"), [("at_least_zero", 1), ("above_zero", 0), ("probability", 0)])
def test_each_library_has_its_own_side_for_a_margin_of_zero(decide: Any, label: int) -> None:
    recipe = Recipe(scores="margins", cast="float32", link="sigmoid", decide=decide)

    labels = derivation(recipe, signature(predict={"dtype": "int64", "classes": [0, 1]}))(sums([0.0]), ("predict",))

    assert np.asarray(labels["predict"]).tolist() == [label]


def test_one_margin_makes_two_probabilities_and_a_flat_decision() -> None:
    recipe = Recipe(scores="margins", cast="float64", link="sigmoid", slope=2.0)
    outputs = signature(
        predict_proba={"dtype": "float64", "shape": (2,)}, decision_function={"dtype": "float64", "shape": ()}
    )

    answers = derivation(recipe, outputs)(sums([0.0], [-1000.0], [np.log(3) / 2]), outputs.output_names)

    assert np.asarray(answers["predict_proba"]).tolist() == [[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]]
    assert np.asarray(answers["decision_function"]).shape == (3,)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_softmax_stays_in_the_precision_of_the_sums(dtype: str) -> None:
    recipe = Recipe(scores="margins", cast="float32", link="softmax")
    outputs = signature(predict_proba={"dtype": dtype, "shape": (3,)})

    answer = derivation(recipe, outputs)(sums([800.0, 800.0, -800.0], dtype=dtype), ("predict_proba",))

    probabilities = np.asarray(answer["predict_proba"])
    assert probabilities.tolist() == [[0.5, 0.5, 0.0]]
    assert probabilities.dtype == dtype


@pytest.mark.parametrize(
    ("link", "value"),
    [("identity", -2.0), ("exponential", np.exp(-2.0)), ("signed_square", -4.0), ("log1p_exp", np.log1p(np.exp(-2.0)))],
)
def test_values_go_through_the_link(link: Any, value: float) -> None:
    recipe = Recipe(scores="values", cast="float64", link=link)

    answer = derivation(recipe, signature(predict={"dtype": "float64"}))(sums([-2.0]), ("predict",))

    assert np.asarray(answer["predict"]).tolist() == [value]


def test_short_paths_are_outliers() -> None:
    recipe = Recipe(scores="depths", cast="float32", denominator=10.0, offset=-0.5)
    outputs = signature(
        predict={"dtype": "int64"}, score_samples={"dtype": "float64"}, decision_function={"dtype": "float64"}
    )

    answers = derivation(recipe, outputs)(sums([5.0], [10.0], [20.0]), outputs.output_names)

    assert np.asarray(answers["score_samples"]).tolist() == [-(2**-0.5), -0.5, -0.25]
    assert np.asarray(answers["predict"]).tolist() == [-1, 1, 1]
    assert np.asarray(answers["decision_function"]).tolist() == [0.5 - 2**-0.5, 0.0, 0.25]


@pytest.mark.parametrize(
    ("scores", "doubtful"),
    [
        pytest.param(sums([1e-7], [1.0]), [True, False], id="a sign"),
        pytest.param(sums([0.2, 0.5, 0.5 + 1e-7], [0.1, 0.2, 0.7]), [True, False], id="the best two"),
        pytest.param(sums([0.2, 0.2, 0.6]), None, id="not the others"),
    ],
)
def test_labels_nearer_than_the_margin_are_doubtful(scores: Any, doubtful: list[bool] | None) -> None:
    mask = too_close(Recipe(scores="margins", cast="float32", margin=1e-6), scores)

    assert (None if mask is None else mask.tolist()) == doubtful


def test_without_a_margin_nothing_is_doubtful() -> None:
    assert too_close(Recipe(scores="margins", cast="float64"), sums([0.0])) is None
