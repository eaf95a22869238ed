from __future__ import annotations

from typing import Any

import pytest

from service.core.errors import InvalidRequest
from service.core.signature import Container, Output
from service.protocols.v1.model import (
    DATA_TYPES,
    choose_classes,
    choose_number,
    choose_output,
    labels_of,
    signatures_of,
)
from service.protocols.v2.tensors import DATATYPES
from tests.service.protocols.fake_server import AGE, PREDICT, PROBA, SHOP, signature_of


def test_every_output_is_a_signature_and_one_is_the_default() -> None:
    found = signatures_of(SHOP)

    assert {name: [tensor.name for tensor in about.outputs] for name, about in found.items()} == {
        "serving_default": ["predict"], "predict": ["predict"], "predict_proba": ["predict_proba"],
    }  # fmt: skip
    assert {tuple(tensor.name for tensor in about.inputs) for about in found.values()} == {("age", "city")}


def test_model_of_numbers_has_one_input() -> None:
    numbers = signature_of(AGE, AGE.model_copy(update={"name": "rooms"}), container=Container.ARRAY)

    (tensor,) = signatures_of(numbers)["predict"].inputs

    assert (tensor.name, tensor.datatype, tensor.shape) == ("input-0", "INT64", (-1, 2))


def test_default_of_a_transformer_is_what_it_makes() -> None:
    scaler = signature_of(AGE, outputs=(Output(name="transform", dtype="float64", shape=(1,)),))

    assert choose_output(None, scaler) == "transform"
    assert list(signatures_of(scaler)) == ["serving_default", "transform"]


def test_every_datatype_has_a_type_of_tensorflow() -> None:
    assert set(DATA_TYPES) == set(DATATYPES)
    assert len(set(DATA_TYPES.values())) == len(DATATYPES)


AMOUNT = Output(name="predict", dtype="float64")


@pytest.mark.parametrize("name", [None, "", "serving_default", "predict", "tensorflow/serving/regress"])
@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_regress_asks_for_the_prediction(name: Any, shape: tuple[int, ...]) -> None:
    assert choose_number(name, signature_of(AGE, outputs=(AMOUNT.model_copy(update={"shape": shape}),))) == "predict"


@pytest.mark.parametrize(
    "outputs",
    [
        pytest.param((PREDICT, PROBA), id="classifier"),
        pytest.param((AMOUNT.model_copy(update={"dtype": "int64"}),), id="clusters"),
        pytest.param((AMOUNT.model_copy(update={"shape": (2,)}),), id="two amounts"),
        pytest.param((AMOUNT.model_copy(update={"classes": [0.0, 1.0]}),), id="labels that are numbers"),
        pytest.param((Output(name="transform", dtype="float64", shape=(1,)),), id="transformer"),
    ],
)
def test_regress_of_anything_but_a_regressor_is_refused(outputs: Any) -> None:
    with pytest.raises(InvalidRequest, match="regress: this model"):
        choose_number(None, signature_of(AGE, outputs=outputs))


@pytest.mark.parametrize("name", [None, "", "serving_default", "predict_proba", "tensorflow/serving/classify"])
def test_classify_asks_for_probabilities(name: Any) -> None:
    assert choose_classes(name, SHOP) == "predict_proba"


@pytest.mark.parametrize(
    "outputs",
    [
        pytest.param((AMOUNT,), id="regressor"),
        pytest.param((PREDICT,), id="classifier without probabilities"),
        pytest.param((PROBA.model_copy(update={"targets": 2, "classes": [["a"], ["b"]]}),), id="two targets"),
    ],
)
def test_classify_without_probabilities_of_one_target_is_refused(outputs: Any) -> None:
    with pytest.raises(InvalidRequest, match="classify: this model"):
        choose_classes(None, signature_of(AGE, outputs=outputs))


@pytest.mark.parametrize("name", ["nope", 7, ["predict"], {"a": 1}])
def test_unknown_signature_is_refused_by_all(name: Any) -> None:
    regressor = signature_of(AGE, outputs=(AMOUNT,))

    for choose, signature in ((choose_output, SHOP), (choose_classes, SHOP), (choose_number, regressor)):
        with pytest.raises(InvalidRequest, match="unknown signature_name"):
            choose(name, signature)


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        (["no", "yes"], ["no", "yes"]),
        ([0, 1], ["0", "1"]),
        ([False, True], ["false", "true"]),
        ([0.5, 2.0], ["0.5", "2.0"]),
    ],
    ids=str,
)
def test_labels_are_texts(classes: list[Any], labels: list[str]) -> None:
    assert labels_of(signature_of(AGE, outputs=(PROBA.model_copy(update={"classes": classes}),))) == labels
