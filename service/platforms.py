"""What a platform tells its containers by their environment, as defaults of `tandem serve`: SageMaker and Vertex AI.

An environment and a look at a folder go in, values come out. Options and TANDEM_* variables come before them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from service.core.errors import TandemError
from service.repository.manifest import MANIFEST

# Where SageMaker unpacks the model.
SAGEMAKER_MODEL: Final = Path("/opt/ml/model")
ANY_HOST: Final = "0.0.0.0"
PLATFORM_PORT: Final = 8080


class PlatformUnclear(TandemError):
    """A variable of a platform says something that cannot be followed; the message says what to do."""

    title = "Platform unclear"


@dataclass(frozen=True, slots=True)
class Defaults:
    """`is_container` says that the platform alone reaches this service, and nobody else has an account beside it."""

    host: str = "127.0.0.1"
    port: int = 8000
    is_container: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


def defaults_of(
    environment: Mapping[str, str], *, has_models: bool = False, sagemaker_model: Path = SAGEMAKER_MODEL
) -> Defaults:
    """The defaults for `tandem serve` in this environment.

    Args:
        has_models: what to serve is said elsewhere, so that the platform is not asked.

    Raises:
        PlatformUnclear: no number where one is needed, or models that this service cannot reach.
    """
    has_models = has_models or "TANDEM_MODELS" in environment or "TANDEM_MODEL_FILE" in environment
    if "AIP_HTTP_PORT" in environment:
        port, settings = _number(environment, "AIP_HTTP_PORT"), dict(_vertex(environment, has_models))
    elif "SAGEMAKER_BIND_TO_PORT" in environment or sagemaker_model.is_dir():
        port = _number(environment, "SAGEMAKER_BIND_TO_PORT", PLATFORM_PORT)
        settings = dict(_sagemaker(environment, has_models, sagemaker_model))
    else:
        return Defaults()
    free = {name: value for name, value in settings.items() if f"TANDEM_{name.upper()}" not in environment}
    return Defaults(ANY_HOST, port, True, free)


def _vertex(environment: Mapping[str, str], has_models: bool) -> Iterator[tuple[str, Any]]:
    for kind in ("health", "predict"):
        if path := environment.get(f"AIP_{kind.upper()}_ROUTE"):
            yield f"vertex_{kind}_route", path
    storage = environment.get("AIP_STORAGE_URI", "")
    if storage and not has_models:
        yield models_in(_local(storage))


def _local(storage: str) -> Path:
    place = urlsplit(storage)
    if place.scheme not in ("", "file"):
        raise PlatformUnclear(
            f"AIP_STORAGE_URI is {storage}, and this service downloads nothing: copy the models into the image and "
            "name their folder with TANDEM_MODELS"
        )
    return Path(unquote(place.path) if place.scheme else storage)


def _sagemaker(environment: Mapping[str, str], has_models: bool, model: Path) -> Iterator[tuple[str, Any]]:
    read: Mapping[str, tuple[str, Callable[[int], Any]]] = {
        "SAGEMAKER_MODEL_SERVER_WORKERS": ("workers", int),
        "SAGEMAKER_MODEL_SERVER_TIMEOUT": ("timeout_s", float),
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": ("max_body_bytes", lambda megabytes: megabytes * 2**20),
    }
    for variable, (name, convert) in read.items():
        if variable in environment:
            yield name, convert(_number(environment, variable))
    if environment.get("SAGEMAKER_MULTI_MODEL", "").lower() == "true":
        yield "model_control", True  # it is the platform that loads and unloads
    if model.is_dir() and not has_models:
        yield models_in(model)


def models_in(folder: Path) -> tuple[str, Path]:
    """The setting for what lies in `folder`: exported versions, or else a model file and no other."""
    files = [path for path in folder.iterdir() if path.suffix in (".joblib", ".pkl")] if folder.is_dir() else []
    is_exported = any(next(folder.glob(f"{depth}{MANIFEST}"), None) for depth in ("", "*/", "*/*/"))
    return ("model_file", files[0]) if len(files) == 1 and not is_exported else ("models", folder)


def _number(environment: Mapping[str, str], variable: str, default: int | None = None) -> int:
    text = environment.get(variable)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise PlatformUnclear(f"{variable}: expected a whole number, got {text!r}")
    return int(text)
