from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from service.core.artefact_errors import EstimatorUnusable, ManifestInvalid, ModelFileUnreadable
from service.repository.manifest import MODEL, FileEntry, Manifest, file_entry, read_manifest
from service.repository.model_file import SKOPS, model_file, open_estimator, required_model_file, trust_for
from service.repository.skops_file import dump_skops
from tests.faults.cases import fault
from tests.service.repository.attacks import Command, dumped, model
from training.export import export

pytest.importorskip("skops.io", reason="skops is an extra")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    X = np.arange(12.0).reshape(6, 2)
    exported = export(LinearRegression().fit(X, X[:, 0]), X, name="line", repository=tmp_path_factory.mktemp("models"))
    return read_manifest(exported.path, "line", 1)


def _with(manifest: Manifest, *names: str) -> Manifest:
    entry = file_entry(b"x")
    files: dict[str, FileEntry] = dict.fromkeys(names, entry)
    return manifest.model_copy(update={"files": files})


def test_the_listed_file_is_the_model_file(manifest: Manifest) -> None:
    assert model_file(_with(manifest, "golden.json", MODEL)) == MODEL
    assert model_file(_with(manifest, SKOPS)) == SKOPS
    assert model_file(_with(manifest, "golden.json", "onnx.onnx")) is None


def test_two_model_files_are_one_too_many(manifest: Manifest) -> None:
    with pytest.raises(ManifestInvalid, match=r"line/1 has two model files: model\.joblib and model\.skops"):
        model_file(_with(manifest, MODEL, SKOPS))


def test_who_needs_the_model_file_of_a_compiled_version_is_told(manifest: Manifest) -> None:
    with pytest.raises(EstimatorUnusable, match="line/1 has no model file: it is compiled only"):
        required_model_file(_with(manifest, "golden.json"))


@pytest.mark.parametrize("name", [MODEL, "churn.pkl", "churn"])
def test_joblib_and_pickle_files_open_under_any_other_name(name: str) -> None:
    assert open_estimator(name, dumped(model())).n_features_in_ == 2
    assert open_estimator(name, pickle.dumps(model())).n_features_in_ == 2
    assert trust_for(name, dumped(model())) == []


def test_skops_file_opens_under_its_name() -> None:
    assert open_estimator(SKOPS, dump_skops(model())).n_features_in_ == 2
    assert trust_for(SKOPS, dump_skops(model())) == []


@fault(
    "M11",
    sent="a pickle called .skops, a skops file called .joblib; harmless ones, and ones that run a command",
    expected="refused: the content must be what the name declares, and no other loader is tried",
)
def test_content_must_be_what_the_name_declares(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    for content in (dumped(model()), pickle.dumps(model()), dumped(Command(str(canary)))):
        with pytest.raises(ModelFileUnreadable, match="is not a skops file"):
            open_estimator(SKOPS, content)
    with pytest.raises(ModelFileUnreadable, match="is a zip archive, not a joblib file"):
        open_estimator(MODEL, dump_skops(model()))

    assert not canary.exists()
