from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from service.core.signature import Column, Container, Output, Signature


def signature(*columns: Column, outputs: tuple[str, ...] = ("predict",)) -> Signature:
    return Signature(
        container=Container.FRAME,
        columns=columns,
        outputs=tuple(Output(name=name, dtype="float64") for name in outputs),
    )


def test_names_keep_the_order_of_columns_and_outputs() -> None:
    given = signature(Column(name="b", dtype="int64"), Column(name="a", dtype="bool"), outputs=("transform", "predict"))

    assert given.names == ("b", "a")
    assert given.output_names == ("transform", "predict")


@pytest.mark.parametrize(
    ("offered", "default"),
    [
        pytest.param(("predict_proba", "predict"), "predict", id="predict where there is one"),
        pytest.param(("score_samples", "transform"), "transform", id="a transformer transforms"),
        pytest.param(("score_samples", "kneighbors"), "score_samples", id="else the first"),
    ],
)
def test_default_output(offered: tuple[str, ...], default: str) -> None:
    assert signature(Column(name="x", dtype="float64"), outputs=offered).default_output == default


@pytest.mark.parametrize(
    ("columns", "dtype"),
    [
        pytest.param([{"dtype": "float32"}, {"dtype": "float32"}], "float32", id="floats of one size"),
        pytest.param([{"dtype": "float64", "nullable": True}] * 2, "float64", id="floats that may be missing"),
        pytest.param([{"dtype": "int8"}], "int8", id="integers"),
        pytest.param([{"dtype": "bool", "pandas": "bool"}], "bool", id="booleans"),
        pytest.param([{"dtype": "float64"}, {"dtype": "float32"}], None, id="two sizes"),
        pytest.param(
            [{"dtype": "float64", "nullable": True}, {"dtype": "float64"}], "float64", id="one may be missing"
        ),
        pytest.param([{"dtype": "int64", "nullable": True}], None, id="integers that may be missing"),
        pytest.param([{"dtype": "float64", "categories": [1.0, 2.0]}], None, id="categories"),
        pytest.param([{"dtype": "int64", "pandas": "Int64"}], None, id="another dtype in the frame"),
        pytest.param([{"dtype": "string"}], None, id="texts"),
        pytest.param([{"dtype": "datetime"}], None, id="datetimes"),
    ],
)
def test_columns_form_a_matrix_when_they_are_plain_numbers_of_one_kind(
    columns: list[dict[str, object]], dtype: str | None
) -> None:
    given = signature(*(Column.model_validate({"name": f"x{i}", **about}) for i, about in enumerate(columns)))

    assert given.matrix_dtype == (None if dtype is None else np.dtype(dtype))


def test_signature_takes_nulls_when_every_column_does() -> None:
    may, must = Column(name="a", dtype="float64", nullable=True), Column(name="b", dtype="float64")

    assert signature(may).takes_nulls
    assert not signature(may, must).takes_nulls


def test_limit_of_a_signature_is_the_least_of_its_columns() -> None:
    free = Column(name="a", dtype="float64")
    wide, narrow = (Column(name=str(limit), dtype="float64", max_abs=limit) for limit in (1e30, 1e6))

    assert signature(free, wide, narrow).max_abs == 1e6
    assert signature(free).max_abs == math.inf


def test_what_is_not_set_is_not_written() -> None:
    column = Column(name="city", dtype="string", categories=["Graz"], nullable=True)

    written = column.model_dump(mode="json")

    assert written == {"name": "city", "dtype": "string", "nullable": True, "categories": ["Graz"]}


def test_written_signature_reads_back_equal() -> None:
    given = signature(
        Column(name="when", dtype="datetime", timezone="Europe/Vienna", pandas="datetime64[ns, UTC]"),
        Column(name="price", dtype="float64", max_abs=3.4e38, low=-1.5, high=2.0),
    )

    assert Signature.model_validate_json(given.model_dump_json()) == given


@pytest.mark.parametrize(
    "about",
    [
        pytest.param({"name": "x", "dtype": "complex128"}, id="dtype without a JSON form"),
        pytest.param({"name": "x", "dtype": "float64", "nulable": True}, id="misspelt field"),
        pytest.param({"name": "x", "dtype": "float64", "missing": "zero"}, id="unknown kind of missing"),
    ],
)
def test_column_that_is_not_understood_is_refused(about: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Column.model_validate(about)


def test_column_cannot_be_changed() -> None:
    column = Column(name="x", dtype="float64")

    with pytest.raises(ValidationError):
        column.nullable = True  # type: ignore[misc]


def test_known_categories_are_a_set_for_looking_up() -> None:
    assert Column(name="x", dtype="string", categories=["a", "b"]).known == {"a", "b"}
    assert Column(name="x", dtype="string").known == frozenset()


def test_changed_copy_remembers_nothing_that_its_original_worked_out() -> None:
    column = Column(name="a", dtype="float64", categories=[1.0])
    original = Signature(container=Container.ARRAY, columns=(column,), outputs=())
    assert (column.known, original.takes_nulls, original.max_abs) == ({1.0}, False, math.inf)

    changed = column.model_copy(update={"nullable": True, "max_abs": 5.0, "categories": [2.0]})
    copy = original.model_copy(update={"columns": (changed,)})

    assert changed.known == {2.0}
    assert (copy.takes_nulls, copy.max_abs) == (True, 5.0)
