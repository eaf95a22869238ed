from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from service.core.artefact_errors import (
    DigestMismatch,
    EstimatorUnusable,
    FileNotPrivate,
    GoldenDisagrees,
    LibraryMismatch,
    ManifestInvalid,
    ModelFileUnreadable,
    SandboxRefused,
    SignatureMissing,
    UntrustedNames,
)
from service.core.rules import Fidelity, ModelRules, Pickle
from service.core.signature import Container
from service.core.table import Matrix
from service.loading.loader import Checked, Loader
from service.loading.options import GOLDEN_RTOL
from service.loading.sandbox import Sandbox
from service.protocols.native import Exchange
from service.repository.manifest import GOLDEN, MANIFEST, MODEL, Manifest, digest, installed_libraries
from service.repository.model_file import SKOPS
from service.repository.signing import create_keys, read_signer, read_trusted_keys, sign_version
from service.repository.sources import BareFile, Folder, Found
from tests.faults.cases import fault
from training.export import export

_X = np.random.RandomState(0).uniform(size=(40, 3))
_Y = np.array(["no", "yes"])[(_X[:, 0] > 0.5).astype(int)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    export(make_pipeline(StandardScaler(), LogisticRegression()).fit(_X, _Y), _X, name="churn", repository=root)
    return root


@pytest.fixture
def version(exported: Path, tmp_path: Path) -> Path:
    """The folder of version 1 of `churn`, which the test may damage."""
    return Path(shutil.copytree(exported, tmp_path / "models")) / "churn" / "1"


def _load(
    version: Path,
    *,
    fidelity: Fidelity = "close",
    pickle: Pickle = "always",
    engine: str | None = None,
    **settings: Any,
) -> Checked:
    """The version as a service has it, with its estimator opened unless the test says otherwise."""
    found = Folder(version.parents[1]).scan().versions[version.parent.name][int(version.name)]
    rules = ModelRules(fidelity=fidelity, pickle=pickle, engine=engine)
    return Loader(rules=lambda _: rules, **settings)(found)


def _change_manifest(version: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((version / MANIFEST).read_bytes())
    change(manifest)
    (version / MANIFEST).write_text(json.dumps(manifest))


def _put(version: Path, file: str, content: bytes) -> None:
    """Replace a file, as somebody who also mends the digest."""
    (version / file).write_bytes(content)
    _change_manifest(
        version, lambda manifest: manifest["files"].update({file: {"sha256": digest(content), "bytes": len(content)}})
    )


def _change_golden(version: Path, change: Callable[[dict[str, Any]], None]) -> None:
    golden = json.loads((version / GOLDEN).read_bytes())
    change(golden)
    _put(version, GOLDEN, json.dumps(golden).encode())


# An exported version


def test_estimator_of_a_version_answers_as_it_did_in_process(exported: Path) -> None:
    checked = _load(exported / "churn" / "1", engine="estimator")

    answers = checked.engine.run(Matrix(_X), ("predict", "predict_proba"))

    own = make_pipeline(StandardScaler(), LogisticRegression()).fit(_X, _Y)
    assert np.array_equal(answers["predict"], own.predict(_X))
    assert np.array_equal(answers["predict_proba"], own.predict_proba(_X))


def test_example_is_one_record_that_the_model_takes(exported: Path) -> None:
    checked = _load(exported / "churn" / "1")

    request = Exchange(orjson.dumps(checked.example)).read(checked.manifest.signature)

    assert request.rows.n_rows == 1
    assert list(checked.example) == ["x0", "x1", "x2"]


@pytest.mark.parametrize("file", [MODEL, GOLDEN])
def test_file_that_differs_from_its_digest_is_refused(version: Path, file: str) -> None:
    content = bytearray((version / file).read_bytes())
    content[-1] ^= 1
    (version / file).write_bytes(content)

    with pytest.raises(DigestMismatch, match=f"churn/1/{file} is not the file that was exported"):
        _load(version)


@pytest.mark.parametrize("file", [MODEL, GOLDEN])
def test_missing_file_is_refused(version: Path, file: str) -> None:
    (version / file).unlink()

    with pytest.raises(DigestMismatch, match=f"churn/1/{file} cannot be read"):
        _load(version)


@pytest.mark.parametrize("change", [{"name": "wine"}, {"version": 2}], ids=["name", "version"])
def test_version_moved_to_another_place_is_refused(version: Path, change: dict[str, Any]) -> None:
    _change_manifest(version, lambda manifest: manifest.update(change))

    with pytest.raises(ManifestInvalid, match=r"churn/1/manifest\.json is that of version"):
        _load(version)


def test_cut_model_file_is_refused_although_its_digest_agrees(version: Path) -> None:
    _put(version, MODEL, (version / MODEL).read_bytes()[:-50])

    with pytest.raises(ModelFileUnreadable):
        _load(version)


@fault("M12", sent="a model that gives other numbers on its stored rows", expected="refused")
def test_model_that_answers_otherwise_is_refused(version: Path) -> None:
    other = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(_X, _Y)
    joblib.dump(other, version.parent / "other")
    _put(version, MODEL, (version.parent / "other").read_bytes())

    with pytest.raises(GoldenDisagrees, match="version 1 of churn does not repeat its golden rows"):
        _load(version)


@fault("M12", sent="a model that fails on its stored rows", expected="refused with the cause")
def test_model_that_fails_on_its_golden_rows_is_refused_with_the_cause(version: Path) -> None:
    joblib.dump(LogisticRegression().fit(_X[:, :2], _Y), version.parent / "narrow")
    _put(version, MODEL, (version.parent / "narrow").read_bytes())

    with pytest.raises(GoldenDisagrees, match="fails on its golden rows: predict: X has 3 features"):
        _load(version)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(lambda replies: replies["predict"]["predictions"].__setitem__(2, "maybe"),
                     r"predict: \[2\] is '\w+' where 'maybe' was recorded", id="label"),
        pytest.param(lambda replies: replies["predict_proba"]["probabilities"][3].pop(),
                     r"predict_proba: number of values of \[3\] is 2 where 1", id="number of classes"),
    ],
)  # fmt: skip
def test_golden_rows_that_disagree_are_told_by_their_place(
    version: Path, change: Callable[[dict[str, Any]], None], told: str
) -> None:
    _change_golden(version, lambda golden: change(golden["replies"]))

    with pytest.raises(GoldenDisagrees, match=told):
        _load(version)


def test_golden_rows_without_an_answer_each_do_not_fit(version: Path) -> None:
    _change_golden(version, lambda golden: golden["replies"]["predict"]["predictions"].pop())

    with pytest.raises(ManifestInvalid, match=r"golden\.json does not fit the signature: .*31 answers for 32 rows"):
        _load(version)


@pytest.mark.parametrize(
    ("factor", "agrees"),
    [
        pytest.param(1 + GOLDEN_RTOL / 10, True, id="last digits"),
        pytest.param(1 + GOLDEN_RTOL * 10, False, id="another number"),
    ],
)
def test_golden_numbers_may_differ_in_their_last_digits_only(version: Path, factor: float, agrees: bool) -> None:
    def scale(golden: dict[str, Any]) -> None:
        scores = golden["replies"]["decision_function"]["decision_function"]
        scores[:] = [score * factor for score in scores]

    _change_golden(version, scale)

    if agrees:
        _load(version)
    else:
        with pytest.raises(GoldenDisagrees):
            _load(version)


def _other_scikit_learn(manifest: dict[str, Any]) -> None:
    manifest["libraries"]["scikit-learn"] = "0.1.2"


@fault("M13", sent="a version of another scikit-learn", expected="refused, naming the option")
def test_model_of_another_minor_version_of_scikit_learn_is_refused(version: Path) -> None:
    _change_manifest(version, _other_scikit_learn)

    with pytest.raises(LibraryMismatch, match="--allow-version-mismatch"):
        _load(version)


def test_model_of_another_minor_version_is_taken_when_allowed_and_its_golden_rows_agree(version: Path) -> None:
    _change_manifest(version, _other_scikit_learn)

    assert _load(version, allow_version_mismatch=True).manifest.libraries["scikit-learn"] == "0.1.2"


def test_model_of_another_minor_version_is_refused_when_its_golden_rows_disagree(version: Path) -> None:
    _change_manifest(version, _other_scikit_learn)
    _change_golden(version, lambda golden: golden["replies"]["predict"]["predictions"].reverse())

    with pytest.raises(GoldenDisagrees):
        _load(version, allow_version_mismatch=True)


def test_code_outside_of_the_allow_list_is_refused_with_the_option_that_trusts_it(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(shutil.which, validate=False), LinearRegression())
    model.steps[0][1].func = np.abs  # fitted and described with a function that numbers can pass
    model.fit(_X, _X[:, 0])
    version = export(model, _X, name="odd", repository=tmp_path).path
    model.steps[0][1].func = shutil.which
    joblib.dump(model, tmp_path / "odd.joblib")
    _put(version, MODEL, (tmp_path / "odd.joblib").read_bytes())

    with pytest.raises(UntrustedNames) as caught:
        _load(version)

    assert caught.value.names == ("shutil.which",)
    assert "--trust shutil.which" in str(caught.value)
    with pytest.raises(GoldenDisagrees):  # trusted, it is opened and asked
        _load(version, trust=["shutil.which"])


@fault("M14", sent="a class that lies in the model's folder", expected="refused; nothing is imported from there")
def test_trust_is_never_taken_from_beside_the_model(version: Path, tmp_path: Path) -> None:
    joblib.dump(FunctionTransformer(shutil.which).fit(_X), tmp_path / "odd.joblib")
    _put(version, MODEL, (tmp_path / "odd.joblib").read_bytes())
    _change_manifest(version, lambda manifest: manifest.update(trust=["shutil.which"]))

    with pytest.raises(UntrustedNames):
        _load(version)


# A bare file


def _bare(path: Path, estimator: Any, **settings: Any) -> Checked:
    joblib.dump(estimator, path)
    found: Found = BareFile(path).scan().versions[path.stem][1]
    return Loader(**settings)(found)


def test_bare_file_gets_its_columns_from_the_number_of_features(tmp_path: Path) -> None:
    checked = _bare(tmp_path / "churn.joblib", LogisticRegression().fit(_X, _Y))

    signature = checked.manifest.signature
    assert signature.container is Container.ARRAY
    assert [(column.name, column.dtype) for column in signature.columns] == [(f"x{i}", "float64") for i in range(3)]
    assert signature.output_names == ("predict", "predict_proba", "predict_log_proba", "decision_function")
    assert checked.manifest.files["churn.joblib"].sha256 == digest((tmp_path / "churn.joblib").read_bytes())
    assert checked.manifest.libraries == installed_libraries()
    answers = checked.engine.run(Matrix(_X), ("predict",))
    assert np.array_equal(answers["predict"], LogisticRegression().fit(_X, _Y).predict(_X))


def test_bare_file_gets_the_names_of_its_columns_from_the_fit(tmp_path: Path) -> None:
    frame = pd.DataFrame(_X, columns=["age", "größe", "x y"])

    checked = _bare(tmp_path / "churn.joblib", LinearRegression().fit(frame, _X[:, 0]))

    assert checked.manifest.signature.container is Container.FRAME
    assert checked.manifest.signature.names == ("age", "größe", "x y")
    assert checked.example == {"age": 0.0, "größe": 0.0, "x y": 0.0}


def test_bare_file_gets_categories_from_its_encoder(tmp_path: Path) -> None:
    frame = pd.DataFrame({"city": ["Graz", "Linz"] * 20, "age": _X[:, 0]})
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough"), LogisticRegression()
    ).fit(frame, _Y)

    checked = _bare(tmp_path / "churn.joblib", model)

    city, age = checked.manifest.signature.columns
    assert (city.dtype, city.categories, city.closed) == ("string", ["Graz", "Linz"], True)
    assert (age.dtype, age.categories, age.low) == ("float64", None, None)


def test_bare_file_of_a_text_model_takes_texts(tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(), MultinomialNB()).fit(["good film", "bad film"], [1, 0])

    checked = _bare(tmp_path / "film.joblib", model)

    assert checked.manifest.signature.container is Container.SERIES
    assert checked.manifest.signature.columns[0].dtype == "string"
    request = Exchange(b'{"instances": ["good film"]}').read(checked.manifest.signature)
    assert checked.engine.run(request.rows, ("predict",))["predict"] == np.array([1])


class Silent:
    """Remembers nothing of its training."""

    def predict(self, X: Any) -> Any:
        return np.zeros(len(X))


def test_bare_file_that_tells_nothing_of_its_input_asks_for_a_sample(tmp_path: Path) -> None:
    with pytest.raises(EstimatorUnusable, match="Silent does not tell its input columns; export it with a sample"):
        _bare(tmp_path / "silent.joblib", Silent(), trust=[f"{Silent.__module__}.Silent"])


def test_bare_file_that_is_not_fitted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EstimatorUnusable, match="LogisticRegression is not fitted yet"):
        _bare(tmp_path / "churn.joblib", LogisticRegression())


def test_bare_file_of_code_outside_of_the_allow_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UntrustedNames):
        _bare(tmp_path / "silent.joblib", Silent())


def test_warnings_of_another_version_are_said_once_by_us_not_by_the_library(version: Path, tmp_path: Path) -> None:
    model = LogisticRegression().fit(_X, _Y)
    state = model.__getstate__()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LogisticRegression, "__getstate__", lambda self: {**state, "_sklearn_version": "0.1"})
        joblib.dump(model, tmp_path / "old.joblib")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Loader()(BareFile(tmp_path / "old.joblib").scan().versions["old"][1])


def test_importing_the_loader_loads_neither_scikit_learn_nor_pandas() -> None:
    code = "import sys, service.loading.loader; sys.exit(bool({'sklearn', 'pandas', 'scipy'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The sandbox


class _Sandbox(Sandbox):
    """Refuses everything, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(memory_bytes=1, seconds=1)
        self.asked: list[tuple[str, bytes, bool]] = []

    def try_out(
        self, name: str, content: bytes, trusted: Sequence[str], proof: tuple[Manifest, bytes] | None = None
    ) -> None:
        self.asked.append((name, content, proof is not None))
        raise SandboxRefused("no")


def test_model_file_is_tried_out_before_it_is_opened_here(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = _Sandbox()
    monkeypatch.setattr("service.loading.loader.open_estimator", lambda *_: pytest.fail("it was opened"))

    with pytest.raises(SandboxRefused):
        _load(version, sandbox=sandbox)

    assert sandbox.asked == [(MODEL, (version / MODEL).read_bytes(), True)]


def test_bare_file_is_tried_out_before_it_is_opened_here(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = _Sandbox()
    monkeypatch.setattr("service.loading.loader.open_estimator", lambda *_: pytest.fail("it was opened"))

    with pytest.raises(SandboxRefused):
        Loader(sandbox=sandbox)(BareFile(version / MODEL).scan().versions["model"][1])

    assert sandbox.asked == [(MODEL, (version / MODEL).read_bytes(), False)]


@pytest.mark.parametrize("pickle", ["lazy", "never"])
def test_model_file_that_stays_closed_is_not_tried_out(version: Path, pickle: Pickle) -> None:
    sandbox = _Sandbox()

    _load(version, pickle=pickle, sandbox=sandbox)

    assert sandbox.asked == []


def test_version_with_two_model_files_is_refused(version: Path) -> None:
    _put(version, SKOPS, b"PK")

    with pytest.raises(ManifestInvalid, match="two model files"):
        _load(version)


# Libraries that differ


@fault("M13", sent="a version of another patch of scikit-learn, or of another Python", expected="served, and told")
def test_libraries_that_differ_are_told_in_the_log_and_of_the_version(
    version: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = installed_libraries()["scikit-learn"]

    def change(manifest: dict[str, Any]) -> None:
        manifest["libraries"]["scikit-learn"] = f"{ours}.post7"
        manifest["python"] = "3.9.1"

    _change_manifest(version, change)

    checked = _load(version)

    told = [
        f"exported with python 3.9.1, opened with {platform.python_version()}",
        f"exported with scikit-learn {ours}.post7, opened with {ours}",
    ]
    assert checked.about()["library_differences"] == told
    assert [record.message for record in caplog.records] == [f"version 1 of churn: {one}" for one in told]


def test_version_of_the_same_libraries_has_no_differences(exported: Path) -> None:
    assert "library_differences" not in _load(exported / "churn" / "1").about()


# Keys and files that others can change


def test_bare_file_is_refused_where_a_key_is_trusted(tmp_path: Path) -> None:
    joblib.dump(LogisticRegression().fit(_X, _Y), tmp_path / "churn.joblib")
    create_keys(tmp_path / "mine")
    found = BareFile(tmp_path / "churn.joblib").scan().versions["churn"][1]

    with pytest.raises(SignatureMissing, match=r"churn\.joblib is a bare file, which nobody can have signed"):
        Loader(keys=read_trusted_keys([tmp_path / "mine.pub"]))(found)


def test_model_file_that_others_can_change_is_opened_where_a_trusted_key_answers_for_it(
    version: Path, tmp_path: Path
) -> None:
    create_keys(tmp_path / "mine")
    sign_version(version, (version / MANIFEST).read_bytes(), read_signer(tmp_path / "mine.key"))
    (version / MODEL).chmod(0o666)

    with pytest.raises(FileNotPrivate):
        _load(version)
    assert _load(version, allow_shared_files=True).manifest.name == "churn"
    assert _load(version, keys=read_trusted_keys([tmp_path / "mine.pub"])).manifest.name == "churn"


def test_estimator_is_open_where_the_compiled_engine_answers_none_of_the_sample(tmp_path: Path) -> None:
    X = np.repeat([[0.0], [1.0]], 20, axis=0)  # whose neighbours are all as near: only the estimator knows its order
    ties = KNeighborsRegressor(n_neighbors=3, algorithm="brute").fit(X, np.arange(40.0))
    export(ties, X, name="ties", repository=tmp_path)

    options = _load(tmp_path / "ties" / "1", pickle="lazy").engine.describe()

    assert [option["name"] for option in options if option["seconds"] is not None] == ["estimator"]
