from __future__ import annotations

import datetime as dt
import io
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest, RandomForestClassifier, RandomForestRegressor
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from service.core.artefact_errors import EstimatorUnusable, NameInvalid, VersionExists
from service.core.rules import ModelRules, Pickle
from service.core.signature import Container
from service.core.table import Matrix
from service.loading.loader import Loader
from service.protocols.native import Exchange, write_outputs
from service.repository.manifest import GOLDEN, MANIFEST, MODEL, read_manifest
from service.repository.model_file import SKOPS
from service.repository.sources import Folder
from service.runtimes.describe import FLOAT32_MAX, Described
from tests.faults.cases import fault
from training.export import ExportedModel, export
from training.prove import Proven

_X = np.random.RandomState(0).uniform(0.1, 2.0, size=(40, 4))
_Y = np.arange(40) % 3
_AMOUNTS = _X @ np.array([1.0, 2.0, 0.5, 1.5])
_TEXTS = [f"{('red', 'green', 'blue')[label]} word{row % 5}" for row, label in enumerate(_Y)]


def _columns_to(estimator: Any) -> Any:
    """A pipeline that makes numbers of whatever columns hold."""
    return make_pipeline(OneHotEncoder(handle_unknown="ignore"), estimator)


def _load(exported: ExportedModel) -> Any:
    """The version as a service has it."""
    found = Folder(exported.path.parents[1]).scan().versions[exported.name][exported.version]
    rules = ModelRules(fidelity="close", pickle="always", engine="estimator")
    return Loader(trust=exported.manifest.trust, rules=lambda _: rules)(found)


def _is_empty(repository: Path) -> bool:
    return not repository.exists() or list(repository.iterdir()) == []


def _bytes(estimator: Any) -> bytes:
    """All that it holds; `joblib.hash` fails on the masked arrays of a search."""
    file = io.BytesIO()
    joblib.dump(estimator, file)
    return file.getvalue()


# What can be exported

_MULTI = np.column_stack([_Y == 0, _Y == 1]).astype(int)
_CASES: dict[str, tuple[Any, Any, Any]] = {
    "classifier": (LogisticRegression(max_iter=500), _X, _Y),
    "regressor": (Ridge(), _X, _AMOUNTS),
    "clusterer": (KMeans(3, n_init=1, random_state=0), _X, None),
    "transformer": (PCA(2), _X, None),
    "outlier detector": (IsolationForest(n_estimators=5, random_state=0), _X, None),
    "several targets": (MultiOutputClassifier(LogisticRegression(max_iter=500)), _X, _MULTI),
    "several amounts": (LinearRegression(), _X, np.column_stack([_AMOUNTS, -_AMOUNTS])),
    "forest of several targets": (RandomForestClassifier(5, random_state=0), _X, _MULTI),
    "pipeline": (make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)), _X, _Y),
    "search": (GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.5, 1.0]}, cv=2), _X, _Y),
    "sparse sample": (MultinomialNB(), sparse.csr_matrix(np.round(_X)), _Y),
    "sparse array": (LogisticRegression(max_iter=500), sparse.csr_array(_X), _Y),
    "texts": (make_pipeline(TfidfVectorizer(), MultinomialNB()), _TEXTS, _Y),
    "texts in a series": (make_pipeline(CountVectorizer(), MultinomialNB()), pd.Series(_TEXTS), _Y),
    "sparse answer": (CountVectorizer(), _TEXTS, None),
    "float32": (KNeighborsClassifier(3, algorithm="brute"), _X.astype(np.float32), _Y),
    "integers": (DecisionTreeClassifier(random_state=0), np.round(_X * 10).astype(np.int64), _Y),
    "small integers": (LinearRegression(), np.round(_X * 10).astype(np.uint8), _AMOUNTS),
    "booleans": (LogisticRegression(), _X > 1, _Y),
    "objects": (_columns_to(LogisticRegression()), np.array([["a", 1], ["b", 2]] * 20, dtype=object), _Y),
    "text of numpy": (_columns_to(LogisticRegression()), np.array([["a", "x"], ["b", "y"]] * 20), _Y),
    "list of lists": (Ridge(), _X.tolist(), _AMOUNTS),
    "frame": (Ridge(), pd.DataFrame(_X, columns=["a", "b", "c", "ä ö"]), _AMOUNTS),
}  # fmt: skip


@pytest.mark.parametrize("case", _CASES)
def test_exported_version_repeats_the_estimators_own_answers(tmp_path: Path, case: str) -> None:
    estimator, X, y = _CASES[case]
    estimator.fit(X) if y is None else estimator.fit(X, y)
    before = _bytes(estimator)

    exported = export(estimator, X, name="it", repository=tmp_path)

    assert _bytes(estimator) == before
    golden = orjson.loads((exported.path / GOLDEN).read_bytes())
    checked = _load(exported)
    request = Exchange(orjson.dumps(golden["request"])).read(exported.signature)
    assert request.rows.n_rows == 32
    for name in exported.signature.output_names:
        served = checked.engine.run(request.rows, (name,))
        written = write_outputs(served, exported.signature)
        assert orjson.loads(orjson.dumps(written, option=orjson.OPT_SERIALIZE_NUMPY)) == golden["replies"][name]


@pytest.mark.parametrize("kind", ["xgboost.XGBClassifier", "xgboost.XGBRegressor", "lightgbm.LGBMClassifier"])
def test_boosters_are_exported_with_nothing_to_trust(tmp_path: Path, kind: str) -> None:
    package, _, name = kind.partition(".")
    library = pytest.importorskip(package, reason=f"{package} is not installed")
    quiet = {"verbosity": -1, "min_child_samples": 2} if package == "lightgbm" else {}
    estimator = getattr(library, name)(n_estimators=3, n_jobs=1, random_state=0, **quiet)
    estimator.fit(pd.DataFrame(_X, columns=list("abcd")), _Y)

    exported = export(estimator, pd.DataFrame(_X, columns=list("abcd")), name="it", repository=tmp_path)

    assert exported.manifest.trust == []
    assert exported.signature.output_names[0] == "predict"
    assert all(column.nullable for column in exported.signature.columns)
    assert exported.manifest.libraries[package]
    _load(exported)


def test_forest_on_all_cores_is_exported_and_keeps_its_cores(tmp_path: Path) -> None:
    # On several threads a forest adds up its trees in any order, so that it hardly repeats itself.
    forest = RandomForestRegressor(60, n_jobs=4, random_state=0).fit(_X, _AMOUNTS + 0.1)

    exported = export(forest, _X, name="it", repository=tmp_path)

    assert "predict" in exported.signature.output_names
    assert forest.n_jobs == 4
    _load(exported)


def test_answers_recorded_are_those_of_the_estimator_on_the_sample_itself(tmp_path: Path) -> None:
    estimator = LogisticRegression(max_iter=500).fit(_X[:20], _Y[:20])

    exported = export(estimator, _X[:20], name="it", repository=tmp_path)

    replies = orjson.loads((exported.path / GOLDEN).read_bytes())["replies"]
    assert replies["predict"]["predictions"] == estimator.predict(_X[:20]).tolist()
    assert replies["predict_proba"]["probabilities"] == estimator.predict_proba(_X[:20]).tolist()


class NeverFitted(Ridge):
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        raise AssertionError("fitted")


def test_nothing_is_fitted(tmp_path: Path) -> None:
    estimator = Ridge().fit(_X, _AMOUNTS)
    estimator.__class__ = NeverFitted

    exported = export(estimator, _X, name="it", repository=tmp_path)

    assert exported.manifest.trust == [f"{__name__}.NeverFitted"]


# pandas

_MOMENTS = pd.to_datetime(["2026-01-01 00:00:00.000000", "2026-03-29 01:30:00.123456"] * 20)


class AsText(BaseEstimator):  # type: ignore[misc]
    """Answers with the cells of a row as text, and takes nothing but the dtypes of its training."""

    def fit(self, X: Any, y: Any = None) -> AsText:
        self.feature_names_in_ = np.array(X.columns, dtype=object)
        self.dtypes_ = [str(dtype) for dtype in X.dtypes]
        return self

    def predict(self, X: Any) -> Any:
        if [str(dtype) for dtype in X.dtypes] != self.dtypes_:
            raise ValueError(f"{X.dtypes}")
        return np.array([" ".join(map(str, row)) for row in X.itertuples(index=False)])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        pytest.param(pd.Categorical(["s", "m"] * 20, categories=["s", "m", "l"]), "string", id="category"),
        pytest.param(pd.Categorical([3, 1] * 20, ordered=True), "int64", id="category of numbers"),
        pytest.param(pd.Categorical(["s", None] * 20), "string", id="category with holes"),
        pytest.param(pd.array([1, None] * 20, dtype="Int64"), "int64", id="Int64"),
        pytest.param(pd.array([1.5, None] * 20, dtype="Float64"), "float64", id="Float64"),
        pytest.param(pd.array([True, None] * 20, dtype="boolean"), "bool", id="boolean"),
        pytest.param(pd.array(["a", None] * 20, dtype="string"), "string", id="string"),
        pytest.param(np.array(["a", None] * 20, dtype=object), "string", id="object with None"),
        pytest.param(np.array(["a", np.nan] * 20, dtype=object), "string", id="object with NaN"),
        pytest.param(_MOMENTS, "datetime", id="datetime"),
        pytest.param(_MOMENTS.tz_localize("UTC"), "datetime", id="datetime in UTC"),
        pytest.param(_MOMENTS.tz_localize("Europe/Vienna", nonexistent="shift_forward"), "datetime",
                     id="datetime in Vienna"),
        pytest.param(np.array([1, 2] * 20, dtype=np.int8), "int8", id="int8"),
        pytest.param(np.array([True, False] * 20), "bool", id="bool"),
    ],
)  # fmt: skip
def test_column_of_pandas_comes_back_with_its_dtype(tmp_path: Path, values: Any, dtype: str) -> None:
    frame = pd.DataFrame({"x": pd.Series(values), "amount": _AMOUNTS})
    estimator = AsText().fit(frame)

    exported = export(estimator, frame, name="it", repository=tmp_path)

    column = exported.signature.columns[0]
    assert (column.name, column.dtype, exported.signature.container) == ("x", dtype, Container.FRAME)
    _load(exported)


# The schema


def _schema(tmp_path: Path, estimator: Any, X: Any) -> Any:
    return export(estimator, X, name="it", repository=tmp_path).signature


@pytest.fixture
def town() -> pd.DataFrame:
    return pd.DataFrame({"city": np.array(["Graz", "Linz"] * 20, dtype=object), "age": _X[:, 0]})


def test_columns_are_those_of_the_fit_in_its_order(tmp_path: Path, town: pd.DataFrame) -> None:
    estimator = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough"), LinearRegression()
    ).fit(town, _AMOUNTS)

    signature = _schema(tmp_path, estimator, town.assign(other=1)[["other", "age", "city"]])

    assert [(column.name, column.dtype) for column in signature.columns] == [("city", "string"), ("age", "float64")]
    assert signature.columns[1].low == pytest.approx(_X[:, 0].min())


@pytest.mark.parametrize(("unknown", "closed"), [("error", True), ("ignore", None)])
def test_categories_are_closed_where_the_encoder_refuses_others(
    tmp_path: Path, town: pd.DataFrame, unknown: str, closed: bool | None
) -> None:
    encoder = make_column_transformer((OneHotEncoder(handle_unknown=unknown), ["city"]), remainder="passthrough")

    signature = _schema(tmp_path, make_pipeline(encoder, LinearRegression()).fit(town, _AMOUNTS), town)

    assert signature.columns[0].categories == ["Graz", "Linz"]
    assert signature.columns[0].closed is closed


def test_column_may_be_missing_where_an_imputer_fills_it(tmp_path: Path) -> None:
    frame = pd.DataFrame(_X[:, :2], columns=["filled", "needed"])
    imputer = make_column_transformer((SimpleImputer(), ["filled"]), remainder="passthrough")

    signature = _schema(tmp_path, make_pipeline(imputer, LinearRegression()).fit(frame, _AMOUNTS), frame)

    assert [column.nullable for column in signature.columns] == [True, False]


def test_trees_tell_the_largest_number_they_take(tmp_path: Path) -> None:
    tree = _schema(tmp_path, RandomForestRegressor(3, random_state=0).fit(_X, _AMOUNTS), _X)
    linear = _schema(tmp_path, Ridge().fit(_X, _AMOUNTS), _X)

    assert {column.max_abs for column in tree.columns} == {FLOAT32_MAX}
    assert {column.max_abs for column in linear.columns} == {None}


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        pytest.param(["no", "yes"], ["no", "yes"], id="text"),
        pytest.param(np.array(["no", "yes"], dtype=object), ["no", "yes"], id="objects"),
        pytest.param([False, True], [False, True], id="bool"),
        pytest.param([-1, 7], [-1, 7], id="int"),
        pytest.param([0.0, 1.0], [0.0, 1.0], id="float"),
        pytest.param(np.array(["2026-01-01", "2026-01-02"], "M8[D]"), ["2026-01-01", "2026-01-02"], id="datetime"),
        pytest.param(pd.Categorical(["no", "yes"]), ["no", "yes"], id="category"),
    ],
)
def test_classes_keep_their_type(tmp_path: Path, labels: Any, classes: list[Any]) -> None:
    y = pd.Series(labels).iloc[_Y % 2].to_numpy() if isinstance(labels, pd.Categorical) else np.asarray(labels)[_Y % 2]
    estimator = KNeighborsClassifier(3).fit(_X, y)

    signature = _schema(tmp_path, estimator, _X)

    assert [output.name for output in signature.outputs] == ["predict", "predict_proba"]
    for output in signature.outputs:
        assert output.classes == classes
        assert [type(label) for label in output.classes] == [type(label) for label in classes]


def test_several_targets_have_classes_each(tmp_path: Path) -> None:
    signature = _schema(tmp_path, RandomForestClassifier(3, random_state=0).fit(_X, _MULTI), _X)

    predict, proba = signature.outputs[:2]
    assert predict.shape == (2,)
    assert (proba.targets, proba.shape, proba.classes) == (2, (2,), [[0, 1], [0, 1]])


def test_transformer_tells_the_names_of_its_columns(tmp_path: Path) -> None:
    signature = _schema(tmp_path, PCA(2).fit(_X), _X)

    assert signature.outputs[0].columns == ["pca0", "pca1"]


def test_sparse_answer_stays_sparse(tmp_path: Path) -> None:
    (output,) = _schema(tmp_path, CountVectorizer().fit(_TEXTS), _TEXTS).outputs

    assert (output.sparse, output.shape) == (True, (8,))


class Noisy(Ridge):
    """Repeats its prediction, not its scores."""

    def score_samples(self, X: Any) -> Any:
        return np.random.default_rng().normal(size=len(X))

    def transform(self, X: Any) -> Any:
        raise RuntimeError("not this time")


def test_outputs_that_cannot_be_served_are_left_out_with_their_reason(tmp_path: Path) -> None:
    signature = _schema(tmp_path, Noisy().fit(_X, _AMOUNTS), _X)

    assert signature.output_names == ("predict",)
    assert signature.left_out == {
        "score_samples": "it gives other numbers when asked again",
        "transform": "it raised RuntimeError: not this time",
    }


# What cannot be exported


class Unsteady(Ridge):
    def predict(self, X: Any) -> Any:
        return np.random.default_rng().normal(size=len(X))


class Silent(BaseEstimator):  # type: ignore[misc]
    """Has nothing to answer with."""


_FITTED = Ridge().fit(_X, _AMOUNTS)
_NAMED = Ridge().fit(pd.DataFrame(_X, columns=list("abcd")), _AMOUNTS)
_ROWS = [{"colour": "red", "size": 1.0}, {"colour": "blue", "size": 2.0}]
_REFUSED: dict[str, tuple[Any, Any, str]] = {
    "unfitted": (Ridge(), _X, "Ridge is not fitted yet: call fit first, then export"),
    "nothing to serve": (Silent(), _X, "Silent has none of predict, predict_proba"),
    "lambda": (
        make_pipeline(FunctionTransformer(lambda x: x), Ridge()).fit(_X, _AMOUNTS), _X,
        "define them in a module that the service can import",
    ),
    "too few columns": (_FITTED, _X[:, :3], "the sample has 3 columns; the estimator was fitted on 4"),
    "columns of other names": (
        _NAMED, pd.DataFrame(_X, columns=list("abxy")), "lacks columns that the estimator was fitted on: c, d",
    ),
    "columns of one name": (_NAMED, pd.DataFrame(_X, columns=list("abca")), "columns of the same name: a"),
    "empty array": (_FITTED, _X[:0], "the sample is empty; at least one row is needed"),
    "empty frame": (_NAMED, pd.DataFrame(_X[:0], columns=list("abcd")), "the sample is empty"),
    "empty list": (make_pipeline(CountVectorizer(), MultinomialNB()).fit(_TEXTS, _Y), [], "the sample is empty"),
    "empty sparse": (
        MultinomialNB().fit(sparse.csr_matrix(_X), _Y), sparse.csr_matrix(_X)[:0], "the sample is empty",
    ),
    "dictionaries": (DictVectorizer().fit(_ROWS), _ROWS, "rows of the sample are of type dict"),
    "three dimensions": (_FITTED, _X.reshape(2, 20, 4), "the sample has 3 dimensions"),
    "other numbers each time": (Unsteady().fit(_X, _AMOUNTS), _X, "predict: it gives other numbers when asked again"),
    "complex numbers": (_FITTED, _X * 1j, "of type complex128, which has no JSON form"),
    "infinite": (SimpleImputer().fit(_X), np.full((3, 4), np.inf), "infinit"),
    "objects of several kinds": (
        OrdinalEncoder().fit(np.array([["a"], ["b"]])), np.array([["a"], [dt.date(2026, 1, 1)]], dtype=object),
        "column 'x0' holds values of type date, str",
    ),
}  # fmt: skip


@fault("M25", sent="an unfitted model, a lambda, and whatever else cannot be served", expected="refused at export")
@pytest.mark.parametrize("case", _REFUSED)
def test_what_cannot_be_served_is_refused_and_nothing_is_written(tmp_path: Path, case: str) -> None:
    estimator, X, told = _REFUSED[case]

    with pytest.raises(EstimatorUnusable) as caught:
        export(estimator, X, name="it", repository=tmp_path / "models")

    assert told in str(caught.value)
    assert _is_empty(tmp_path / "models")


_SCRIPT = """
import sys
from sklearn.linear_model import Ridge
from training import export

class Mine(Ridge):
    pass

export(Mine().fit([[1.0], [2.0]], [1, 2]), [[1.0], [2.0]], name="it", repository=sys.argv[1])
"""


@fault("M25", sent="a class of a script or notebook", expected="refused at export, with what mends it")
def test_class_of_a_script_is_refused_with_what_mends_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path / "models")], capture_output=True, text=True, check=False
    )

    last = done.stderr.splitlines()[-1]
    assert "EstimatorUnusable" in last
    assert "__main__.Mine, defined in a script or notebook; move it to a module" in last
    assert _is_empty(tmp_path / "models")


class Remembers(Ridge):
    """Depends on something that is in no file."""

    offset = 0.0

    def predict(self, X: Any) -> Any:
        return super().predict(X) + self.__dict__.get("_hidden", 1.0)

    def __getstate__(self) -> Any:
        return {key: value for key, value in super().__getstate__().items() if key != "_hidden"}


def test_estimator_that_its_file_does_not_hold_whole_is_refused(tmp_path: Path) -> None:
    estimator = Remembers().fit(_X, _AMOUNTS)
    estimator._hidden = 2.0

    with pytest.raises(EstimatorUnusable, match="predict gives other numbers through the service"):
        export(estimator, _X, name="it", repository=tmp_path / "models")

    assert _is_empty(tmp_path / "models")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        pytest.param({"name": "a/b"}, "model name 'a/b'", id="name"),
        pytest.param({"version": 0}, "version 0: expected a whole number from 1", id="version zero"),
        pytest.param({"version": -1}, "version -1", id="negative version"),
        pytest.param({"version": 1.5}, "version 1.5", id="half a version"),
        pytest.param({"files": {"../card.html": b""}}, "'../card.html' cannot be the name", id="file elsewhere"),
        pytest.param({"files": {MODEL: b""}}, "'model.joblib' cannot be the name", id="file in the model's place"),
        pytest.param({"files": {MANIFEST: b""}}, "'manifest.json' cannot be", id="file in the manifest's place"),
    ],
)
def test_names_that_cannot_be_are_refused_and_nothing_is_written(
    tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(NameInvalid) as caught:
        export(_FITTED, _X, **{"name": "it", "repository": tmp_path / "models", **options})

    assert told in str(caught.value)
    assert _is_empty(tmp_path / "models")


# What is written


def test_versions_count_on_and_a_given_one_is_taken_once(tmp_path: Path) -> None:
    numbers = [export(_FITTED, _X, name="it", repository=tmp_path, version=v).version for v in (None, 7, None)]

    assert numbers == [1, 7, 8]
    with pytest.raises(VersionExists, match="version 7 of 'it' exists already"):
        export(_FITTED, _X, name="it", repository=tmp_path, version=7)


def test_scores_and_further_files_are_kept(tmp_path: Path) -> None:
    exported = export(
        _FITTED, _X, name="it", repository=tmp_path, y=_AMOUNTS, scores={"r2": 0.5}, files={"card.html": b"<p>"}
    )

    assert exported.manifest.scores == {"r2": 0.5, "score_on_sample": _FITTED.score(_X, _AMOUNTS)}
    assert (exported.path / "card.html").read_bytes() == b"<p>"
    assert sorted(exported.manifest.files) == sorted(["card.html", GOLDEN, MODEL, "onnx.onnx"])
    _load(exported)


def test_further_files_can_be_made_from_the_description(tmp_path: Path) -> None:
    def make(described: Described, proven: Proven) -> dict[str, bytes]:
        return {"columns.txt": ",".join(described.signature.names).encode(), "engines.txt": b"%d" % len(proven.engines)}

    exported = export(_FITTED, _X, name="it", repository=tmp_path, files=make)

    assert (exported.path / "columns.txt").read_bytes() == b"x0,x1,x2,x3"
    assert (exported.path / "engines.txt").read_bytes() == b"%d" % len(exported.manifest.engines)


@pytest.mark.parametrize(
    ("estimator", "outputs"),
    [
        pytest.param(Ridge(), ["predict"], id="cuML has it"),
        pytest.param(RandomForestRegressor(3, random_state=0), None, id="nvForest has it"),
        pytest.param(DecisionTreeClassifier(), None, id="cuML has no such thing"),
    ],
)
def test_what_cuml_could_answer_is_in_the_manifest_unproven(
    tmp_path: Path, estimator: Any, outputs: list[str] | None
) -> None:
    exported = export(estimator.fit(_X, _Y), _X, name="it", repository=tmp_path)

    found = {entry.name: entry for entry in read_manifest(exported.path, "it", 1).engines}
    if outputs is None:
        assert "cuml" not in found
    else:
        assert (found["cuml"].agreement, found["cuml"].options["outputs"]) == ({}, outputs)


def test_rows_that_no_json_can_carry_are_not_recorded(tmp_path: Path) -> None:
    X = np.vstack([_X, np.full((1, 4), np.nan)])

    exported = export(SimpleImputer().fit(X), X, name="it", repository=tmp_path)

    columns = orjson.loads((exported.path / GOLDEN).read_bytes())["request"]["columns"]
    assert columns["x0"][-1] is None  # missing is sent where it may be missing
    assert exported.signature.columns[0].nullable


def test_warnings_of_the_estimator_are_not_those_of_the_export(tmp_path: Path) -> None:
    named = pd.DataFrame(_X, columns=list("abcd"))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(_FITTED, named, name="it", repository=tmp_path)
        export(_NAMED, _X, name="it", repository=tmp_path)


@pytest.mark.parametrize("frame", [False, True], ids=["array", "data frame"])
@pytest.mark.parametrize("columns", [1, 4])
def test_estimator_that_works_in_place_is_served_and_leaves_the_sample_alone(
    frame: bool, columns: int, tmp_path: Path
) -> None:
    values = _X[:, :columns].copy()
    sample = pd.DataFrame(values, columns=list("abcd")[:columns]) if frame else values
    before = np.asarray(sample).copy()
    estimator = make_pipeline(StandardScaler(copy=False), LogisticRegression()).fit(sample.copy(), _Y)

    exported = export(estimator, sample, y=_Y, name="it", repository=tmp_path)

    assert np.array_equal(np.asarray(sample), before)
    assert exported.signature.output_names == ("predict", "predict_proba", "predict_log_proba", "decision_function")
    Loader()(Folder(tmp_path).scan().versions["it"][1])


# How the estimator is kept


@pytest.mark.parametrize("pickle", ["lazy", "always", "never"])
def test_compiled_version_has_no_model_file_and_answers_like_the_estimator(pickle: Pickle, tmp_path: Path) -> None:
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(_X, _Y)

    exported = export(estimator, _X, name="churn", repository=tmp_path, format="compiled")

    assert not {MODEL, SKOPS} & {file.name for file in exported.path.iterdir()}
    assert exported.manifest.trust == []
    found = Folder(tmp_path).scan().versions["churn"][1]
    checked = Loader(rules=lambda _: ModelRules(fidelity="close", pickle=pickle))(found)
    outputs = checked.manifest.signature.output_names
    assert outputs == exported.signature.output_names
    answers = checked.engine.run(Matrix(_X), outputs)
    np.testing.assert_array_equal(answers["predict"], estimator.predict(_X))
    np.testing.assert_allclose(answers["predict_proba"], estimator.predict_proba(_X), rtol=1e-12)


def test_what_does_not_compile_cannot_do_without_its_model_file(tmp_path: Path) -> None:
    estimator = FunctionTransformer(np.cbrt).fit(_X)

    with pytest.raises(EstimatorUnusable, match="no compiled engine computes transform, so it cannot be exported"):
        export(estimator, _X, name="roots", repository=tmp_path, format="compiled")

    assert _is_empty(tmp_path)


def test_estimator_kept_as_a_skops_file_answers_alike(tmp_path: Path) -> None:
    pytest.importorskip("skops.io", reason="skops is an extra")
    estimator = RandomForestClassifier(3, random_state=0).fit(_X, _Y)

    exported = export(estimator, _X, name="churn", repository=tmp_path, format="skops")

    assert (exported.path / SKOPS).read_bytes().startswith(b"PK")
    assert MODEL not in exported.manifest.files
    answers = _load(exported).engine.run(Matrix(_X), ("predict_proba",))
    np.testing.assert_array_equal(answers["predict_proba"], estimator.predict_proba(_X))
