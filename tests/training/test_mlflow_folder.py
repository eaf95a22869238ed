from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from service.core.artefact_errors import ArtefactError, UntrustedNames
from service.core.signature import Column, Container, Output, Signature
from service.inspection import find_version
from service.loading.loader import Loader
from tests.conformance import clients
from training import export
from training.cli import tandem
from training.data import DataUnusable
from training.mlflow_folder import _mlflow_signature, read_mlflow, write_mlflow


class Doubler(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Code that is on no allow-list."""

    def fit(self, rows: Any, y: Any = None) -> Doubler:
        self.n_features_in_ = rows.shape[1]
        return self

    def transform(self, rows: Any) -> Any:
        return rows * 2


TABLE = pd.DataFrame(
    {
        "age": [41.5, np.nan, 23.0, 67.0] * 3,
        "city": ["Graz", "Linz", None, "Wien"] * 3,
        "visits": np.array([3, 1, 4, 1] * 3, dtype="int32"),
        "since": pd.to_datetime(["2024-02-29 10:00"] * 12),
    }
)
NUMBERS = np.random.RandomState(0).normal(size=(12, 3))


def mixed() -> Any:
    columns = make_column_transformer(
        (SimpleImputer(), ["age", "visits"]), (OneHotEncoder(handle_unknown="ignore"), ["city"])
    )
    return make_pipeline(columns, LogisticRegression()).fit(TABLE, ["stays", "leaves"] * 6)


def written(folder: Path, estimator: Any, about: dict[str, Any], example: Any = None) -> Path:
    """A folder as MLflow writes it, with `about` beside the flavour in MLmodel."""
    folder.mkdir(exist_ok=True)
    (folder / "model.pkl").write_bytes(pickle.dumps(estimator))
    flavors = {"sklearn": {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}}
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors} | about))
    if example is not None:
        (folder / "input_example.json").write_text(json.dumps(example))
    return folder


def example_info(kind: str, **more: str) -> dict[str, Any]:
    return {"saved_input_example_info": {"artifact_path": "input_example.json", "type": kind, **more}}


def signature_info(*specs: Any) -> dict[str, Any]:
    return {"signature": {"inputs": json.dumps(specs)}}


# Reading


def test_the_example_has_the_types_of_the_signature(tmp_path: Path) -> None:
    split = json.loads(TABLE.to_json(orient="split", date_format="iso"))
    specs = [
        {"name": "age", "type": "double"},
        {"name": "city", "type": "string"},
        {"name": "visits", "type": "integer"},
        {"name": "since", "type": "datetime"},
        {"name": "gone", "type": "long"},
    ]
    about = example_info("dataframe", pandas_orient="split") | signature_info(*specs)

    estimator, example = read_mlflow(written(tmp_path, mixed(), about, split))

    assert example["visits"].dtype == "int32" and example["age"].dtype == "float64"
    assert example["since"].dtype.kind == "M" and example["age"].isna().any()
    assert estimator.predict_proba(example).tolist() == mixed().predict_proba(TABLE).tolist()


def test_whole_numbers_with_holes_stay_as_they_are(tmp_path: Path) -> None:
    about = example_info("dataframe") | signature_info({"name": "a", "type": "long"})
    model = SimpleImputer().fit(pd.DataFrame({"a": [1.0, 2.0]}))

    _, example = read_mlflow(written(tmp_path, model, about, {"columns": ["a"], "data": [[1], [None]]}))

    assert example["a"].tolist()[0] == 1.0 and example["a"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("about", "content", "wanted"),
    [
        pytest.param(example_info("ndarray"), [[1, 2, 3]], [[1, 2, 3]], id="array"),
        pytest.param(
            example_info("ndarray", params="true"), {"inputs": [[1, 2, 3]], "params": {}}, [[1, 2, 3]], id="parameters"
        ),
        pytest.param(
            example_info("sparse_matrix_csr"),
            {"data": [5.0], "indices": [1], "indptr": [0, 1, 1], "shape": [2, 3]},
            [[0, 5, 0], [0, 0, 0]],
            id="sparse",
        ),
        pytest.param(
            example_info("sparse_matrix_csc"),
            {"data": [5.0], "indices": [1], "indptr": [0, 0, 1, 1], "shape": [2, 3]},
            [[0, 0, 0], [0, 5, 0]],
            id="sparse by column",
        ),
        pytest.param(example_info("dataframe"), [[1, 2, 3]], [[1, 2, 3]], id="data frame without names"),
        pytest.param(example_info("json_object"), [{"a": 1, "b": 2, "c": 3}], [[1, 2, 3]], id="records"),
        pytest.param(example_info("json_object"), {"a": 1, "b": 2, "c": 3}, [[1, 2, 3]], id="a record"),
        pytest.param(example_info("json_object"), {"a": [1], "b": [2], "c": [3]}, [[1, 2, 3]], id="columns"),
    ],
)
def test_examples_of_every_type_are_rows(tmp_path: Path, about: Any, content: Any, wanted: Any) -> None:
    _, example = read_mlflow(written(tmp_path, StandardScaler().fit(NUMBERS), about, content))

    assert np.asarray(example.toarray() if hasattr(example, "toarray") else example).tolist() == wanted


def test_an_array_has_the_dtype_of_the_signature(tmp_path: Path) -> None:
    about = example_info("ndarray") | signature_info({"type": "tensor", "tensor-spec": {"dtype": "float32"}})

    _, example = read_mlflow(written(tmp_path, StandardScaler().fit(NUMBERS), about, [[1, 2, 3]]))

    assert example.dtype == "float32"


def test_a_folder_without_an_example_has_none(tmp_path: Path) -> None:
    assert read_mlflow(written(tmp_path, mixed(), {}))[1] is None


@pytest.mark.parametrize(
    ("about", "content", "told"),
    [
        ({"flavors": {"pytorch": {}, "python_function": {}}}, None, "no scikit-learn model; its flavours are pytorch"),
        ({"flavors": {}}, None, "its flavours are none"),
        ({"flavors": []}, None, "is not what MLflow writes"),
        ({"flavors": {"sklearn": {"pickled_model": "gone.pkl"}}}, None, "gone.pkl' cannot be read"),
        (example_info("dataframe"), None, "the input example .* cannot be read"),
        (example_info("json_object"), 5, "neither a table nor a list of texts"),
        ({"saved_input_example_info": {}}, [[1]], "the input example .* cannot be read"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path, about: dict[str, Any], content: Any, told: str) -> None:
    folder = written(tmp_path, mixed(), about, content)

    with pytest.raises(DataUnusable, match=told):
        read_mlflow(folder)


def test_what_is_no_folder_of_mlflow_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataUnusable, match="it has no file MLmodel"):
        read_mlflow(tmp_path)
    (tmp_path / "MLmodel").write_text("a: [")
    with pytest.raises(DataUnusable, match="cannot be read"):
        read_mlflow(tmp_path)


def test_foreign_code_is_opened_only_where_it_is_trusted(tmp_path: Path) -> None:
    folder = written(tmp_path, Doubler().fit(NUMBERS), {})

    with pytest.raises(UntrustedNames, match="Doubler"):
        read_mlflow(folder)

    assert isinstance(read_mlflow(folder, ["tests.training.test_mlflow_folder.Doubler"])[0], Doubler)


def test_a_file_of_skops_is_opened_by_the_same_allow_list(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io", reason="skops, which MLflow may write, is not installed")
    folder = written(tmp_path, None, {"flavors": {"sklearn": {"pickled_model": "m", "serialization_format": "skops"}}})
    (folder / "m").write_bytes(skops.dumps(mixed()))

    opened, _ = read_mlflow(folder)
    (folder / "m").write_bytes(skops.dumps(Doubler().fit(NUMBERS)))

    assert opened.predict(TABLE).tolist() == mixed().predict(TABLE).tolist()
    with pytest.raises(UntrustedNames, match="Doubler"):
        read_mlflow(folder)


# Writing


def test_a_version_that_is_written_can_be_read_again(tmp_path: Path) -> None:
    export(mixed(), TABLE, name="churn", repository=tmp_path / "models")

    manifest = write_mlflow(find_version(tmp_path / "models", "churn", 1), tmp_path / "out")
    estimator, example = read_mlflow(tmp_path / "out")

    assert manifest.name == "churn"
    assert estimator.predict_proba(TABLE).tolist() == mixed().predict_proba(TABLE).tolist()
    assert example.dtypes.astype(str).to_dict() | {"city": ""} == TABLE.dtypes.astype(str).to_dict() | {"city": ""}
    requirements = (tmp_path / "out" / "requirements.txt").read_text().splitlines()
    assert "mlflow" in requirements and any(line.startswith("scikit-learn==") for line in requirements)
    assert not any(line.startswith(("xgboost", "lightgbm")) for line in requirements)


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    export(LogisticRegression().fit(NUMBERS, [0, 1] * 6), NUMBERS, name="it", repository=tmp_path)

    with pytest.raises(DataUnusable, match="is there already"):
        write_mlflow(find_version(tmp_path, "it", None), tmp_path / "it")


def test_only_what_is_trusted_is_opened_to_be_written(tmp_path: Path) -> None:
    export(Doubler().fit(NUMBERS), NUMBERS, name="it", repository=tmp_path)

    with pytest.raises(ArtefactError, match="Doubler"):
        write_mlflow(find_version(tmp_path, "it", None), tmp_path / "out")

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        ({"dtype": "float32", "nullable": True}, {"type": "float", "required": True}),
        ({"dtype": "int64"}, {"type": "long", "required": True}),
        ({"dtype": "int8"}, {"type": "integer", "required": True}),
        ({"dtype": "bool"}, {"type": "boolean", "required": True}),
        ({"dtype": "datetime"}, {"type": "datetime", "required": True}),
        ({"dtype": "datetime", "timezone": "UTC"}, None),
        ({"dtype": "uint64"}, None),
    ],
)
def test_columns_have_mlflows_types_or_there_is_no_signature(column: dict[str, Any], wanted: Any) -> None:
    columns = (Column(name="x", **column),)
    outputs = (Output(name="predict", dtype="string"),)

    written = _mlflow_signature(Signature(container=Container.FRAME, columns=columns, outputs=outputs))

    if wanted is None:
        assert written is None
    else:
        assert written is not None
        assert json.loads(written["inputs"]) == [{"name": "x", **wanted}]
        assert json.loads(written["outputs"]) == [{"type": "tensor", "tensor-spec": {"dtype": "str", "shape": [-1]}}]


# The command line


def test_an_mlflow_folder_is_exported_and_written_by_command(tmp_path: Path) -> None:
    split = json.loads(TABLE.to_json(orient="split", date_format="iso"))
    folder = written(tmp_path / "in", mixed(), example_info("dataframe"), split)
    models = str(tmp_path / "models")

    exported = CliRunner().invoke(tandem, ["export", str(folder), "--name", "churn", "--models", models])
    back = CliRunner().invoke(tandem, ["to-mlflow", "churn", str(tmp_path / "out"), "--models", models])

    assert exported.exit_code == 0, exported.output
    assert (back.exit_code, back.output) == (0, f"{tmp_path / 'out'} is churn 1\n")
    Loader()(find_version(Path(models), "churn", 1))  # asks the golden rows again


def test_a_model_without_rows_is_not_exported(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", mixed(), {})

    result = CliRunner().invoke(tandem, ["export", str(folder), "--name", "churn", "--models", str(tmp_path)])

    assert result.exit_code == 2 and "--sample is needed" in result.output


# MLflow itself


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that MLflow wrote, in every form that it has."""
    folder = tmp_path_factory.mktemp("saved")
    python = clients.environment("mlflow") / "bin" / "python"
    clients.run(str(python), str(clients.SCRIPTS / "mlflow_save.py"), str(folder))
    return folder


@pytest.mark.parametrize("form", ["pickle", "cloudpickle", "skops", "array", "texts"])
def test_what_mlflow_writes_is_exported_by_its_own_example(saved: Path, tmp_path: Path, form: str) -> None:
    result = CliRunner().invoke(tandem, ["export", str(saved / form), "--name", form, "--models", str(tmp_path)])

    assert result.exit_code == 0, result.output
    Loader()(find_version(tmp_path, form, 1))


@clients.needs("mlflow")
def test_mlflow_loads_and_asks_what_is_written(tmp_path: Path) -> None:
    samples: dict[str, tuple[Any, Any]] = {
        "mixed": (mixed(), TABLE),
        "numbers": (LogisticRegression().fit(NUMBERS, [0, 1] * 6), NUMBERS),
        "texts": text_model(),
    }
    for kind, (estimator, sample) in samples.items():
        export(estimator, sample, name=kind, repository=tmp_path)
        write_mlflow(find_version(tmp_path, kind, 1), tmp_path / f"{kind}-out")
    folders = [tmp_path / f"{kind}-out" for kind in samples]

    answers = clients.ask("mlflow", "mlflow_load.py", *map(str, folders), questions=None)

    for told, folder, (estimator, _) in zip(answers, folders, samples.values(), strict=True):
        rows = json.loads((folder / "input_example.json").read_text())
        own = estimator.predict(read_mlflow(folder)[1]).tolist()
        assert told["loaded"] == told["served"] == own
        assert len(own) == len(rows["data"] if isinstance(rows, dict) else rows)
        assert told["inputs"]


def text_model() -> tuple[Any, Any]:
    texts = ["great fun", "bad food", "great food", "awful"] * 3
    return make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, ["good", "bad"] * 6), texts
