from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from service.core.errors import UnknownModel, UnknownVersion
from service.core.rules import ModelRules
from service.inspection import as_text, find_version
from service.loading.loader import Loader
from service.repository.labels import promote
from training.export import export

_X = np.random.RandomState(0).uniform(size=(40, 12))
_Y = (_X[:, 0] > 0.5).astype(int)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for _ in range(2):
        export(LogisticRegression().fit(_X, _Y), _X, name="churn", repository=root)
    promote(root, "churn", 1)
    return root


def test_version_that_plain_requests_get_is_found(models: Path) -> None:
    assert find_version(models, "churn", None).version == 1
    assert find_version(models, "churn", 2).version == 2


def test_what_is_not_there_is_told(models: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="no folder"):
        find_version(tmp_path / "nowhere", "churn", None)
    with pytest.raises(UnknownModel, match="no model 'wine'"):
        find_version(models, "wine", None)
    with pytest.raises(UnknownVersion, match="serves no such version; it serves 1, 2"):
        find_version(models, "churn", 3)


def test_engines_are_a_table_with_what_they_cost_here(models: Path) -> None:
    checked = Loader()(find_version(models, "churn", 1))

    lines = as_text(checked).splitlines()

    assert lines[0] == "churn 1"
    assert "  columns    12: x0, x1, x2, x3, x4, x5, x6, x7, …" in lines
    assert "  output     predict_proba: float64, 2 a row" in lines
    (head,) = [line for line in lines if line.startswith("engine ")]
    assert head.split()[-10:] == ["1", "row", "8", "rows", "64", "rows", "512", "rows", "4096", "rows"]
    (onnx,) = [line for line in lines if line.startswith("onnx ")]
    assert "predict (0)" in onnx
    assert onnx.count("µs") == 5
    (estimator,) = [line for line in lines if line.startswith("estimator ")]
    assert estimator.count("closed") == 5
    not_kept = lines[lines.index("not kept:") :]
    assert any(line.startswith("  treelite: ") for line in not_kept)
    assert "  cuml: it needs a GPU, and must repeat the golden rows there before it answers" in not_kept


def test_whether_there_is_a_model_file_is_told(models: Path, tmp_path: Path) -> None:
    export(LogisticRegression().fit(_X, _Y), _X, name="churn", repository=tmp_path, format="compiled")

    assert "  model file model.joblib" in as_text(Loader()(find_version(models, "churn", 1))).splitlines()
    text = as_text(Loader()(find_version(tmp_path, "churn", 1)))
    assert "  model file none: compiled only" in text.splitlines()
    assert "\nestimator " not in text


def test_open_estimator_has_a_cost_too(models: Path) -> None:
    rules = ModelRules(fidelity="close", pickle="always")

    text = as_text(Loader(rules=lambda _: rules)(find_version(models, "churn", 1)))

    assert "closed" not in text


def test_outputs_that_are_not_offered_are_told_with_the_reason(models: Path) -> None:
    rules = ModelRules(fidelity="close", pickle="never")
    checked = Loader(rules=lambda _: rules)(find_version(models, "churn", 1))
    signature = checked.manifest.signature.model_copy(update={"left_out": {"score_samples": "too slow"}})
    object.__setattr__(checked, "manifest", checked.manifest.model_copy(update={"signature": signature}))

    assert "  left out   score_samples: too slow" in as_text(checked).splitlines()
