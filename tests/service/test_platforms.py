from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.platforms import Defaults, PlatformUnclear, defaults_of, models_in

NOWHERE = Path("/nowhere/at/all")
VERTEX = {"AIP_HTTP_PORT": "8081", "AIP_MODE": "PREDICTION"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file where SageMaker puts it."""
    (tmp_path / "model.joblib").write_bytes(b"")
    return tmp_path


def test_without_a_platform_the_service_is_closed_to_strangers() -> None:
    assert defaults_of({"PATH": "/bin"}, sagemaker_model=NOWHERE) == Defaults("127.0.0.1", 8000, False, {})


def test_vertex_tells_port_and_paths() -> None:
    environment = {
        **VERTEX,
        "AIP_HEALTH_ROUTE": "/health",
        "AIP_PREDICT_ROUTE": "/v1/endpoints/1/deployedModels/2:predict",
    }

    platform = defaults_of({**environment, "AIP_STORAGE_URI": ""}, sagemaker_model=NOWHERE)

    assert (platform.host, platform.port, platform.is_container) == ("0.0.0.0", 8081, True)
    assert platform.settings == {
        "vertex_health_route": "/health",
        "vertex_predict_route": "/v1/endpoints/1/deployedModels/2:predict",
    }


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_models_of_vertex_may_lie_on_this_machine(model: Path, form: str) -> None:
    platform = defaults_of({**VERTEX, "AIP_STORAGE_URI": form.format(model)}, sagemaker_model=NOWHERE)

    assert platform.settings == {"model_file": model / "model.joblib"}


def test_models_that_would_be_downloaded_are_refused_with_what_to_do() -> None:
    environment = {**VERTEX, "AIP_STORAGE_URI": "gs://bucket/model"}

    with pytest.raises(PlatformUnclear, match=r"gs://bucket/model, .* downloads nothing: .* TANDEM_MODELS"):
        defaults_of(environment)


@pytest.mark.parametrize("said", [{"TANDEM_MODELS": "m"}, {"TANDEM_MODEL_FILE": "m"}, {"option": ""}])
def test_models_that_are_named_otherwise_come_first(said: dict[str, str]) -> None:
    environment = {**VERTEX, "AIP_STORAGE_URI": "gs://bucket/model", **said}

    assert defaults_of(environment, has_models="option" in said).settings == {}


def test_sagemaker_is_known_by_the_folder_of_its_model(model: Path) -> None:
    platform = defaults_of({}, sagemaker_model=model)

    assert platform == Defaults("0.0.0.0", 8080, True, {"model_file": model / "model.joblib"})


def test_sagemaker_tells_port_workers_and_limits() -> None:
    environment = {
        "SAGEMAKER_BIND_TO_PORT": "9000",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "3",
        "SAGEMAKER_MODEL_SERVER_TIMEOUT": "60",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "25",
        "SAGEMAKER_MULTI_MODEL": "true",
    }

    platform = defaults_of(environment, sagemaker_model=NOWHERE)

    assert platform.port == 9000
    assert platform.settings == {
        "workers": 3, "timeout_s": 60.0, "max_body_bytes": 25 * 2**20, "model_control": True,
    }  # fmt: skip


def test_variables_of_tandem_come_first() -> None:
    environment = {
        "SAGEMAKER_BIND_TO_PORT": "9000", "SAGEMAKER_MODEL_SERVER_WORKERS": "3", "TANDEM_WORKERS": "1",
    }  # fmt: skip

    assert defaults_of(environment, sagemaker_model=NOWHERE).settings == {}


@pytest.mark.parametrize("variable", ["AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT", "SAGEMAKER_MODEL_SERVER_WORKERS"])
@pytest.mark.parametrize("value", ["", "x", "-1", "1.5", "１"])
def test_what_is_no_number_is_refused_by_name(variable: str, value: str) -> None:
    environment: dict[str, Any] = {"SAGEMAKER_BIND_TO_PORT": "1", variable: value}

    with pytest.raises(PlatformUnclear, match=f"{variable}: expected a whole number"):
        defaults_of(environment)


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        pytest.param([], "models", id="nothing"),
        pytest.param(["a.joblib", "b.joblib"], "models", id="two files"),
        pytest.param(["a.pkl", "requirements.txt"], "a.pkl", id="a file"),
        pytest.param(["model.joblib", "manifest.json"], "models", id="a version"),
        pytest.param(["model.joblib", "1/manifest.json"], "models", id="a model"),
        pytest.param(["model.joblib", "churn/1/manifest.json"], "models", id="models"),
    ],
)
def test_a_folder_holds_versions_or_one_model_file(tmp_path: Path, files: list[str], wanted: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    found = models_in(tmp_path)

    assert found == (("models", tmp_path) if wanted == "models" else ("model_file", tmp_path / wanted))
