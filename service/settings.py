"""Settings: read once, from arguments and `TANDEM_*` variables, handed down in slices."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.repository.allowlist import refused_names


class Settings(BaseSettings):
    """Every field is also a variable: `models` is `TANDEM_MODELS`. Defaults suit a laptop, closed to strangers."""

    model_config = SettingsConfigDict(env_prefix="TANDEM_", frozen=True, extra="forbid")

    models: Path = Field(Path("models"), description="folder of models: <name>/<version>/manifest.json")
    model_file: Path | None = Field(None, description="one joblib file to serve instead of a folder")
    default_model: str | None = Field(None, description="what POST /predict asks, where there are several models")
    keep_versions: int = Field(
        2, ge=1, le=1000, description="newest versions of a model kept in memory, beside the labelled ones"
    )
    poll_s: float = Field(
        1.0,
        ge=0.05,
        le=3600,
        description="seconds between looks at the folder; smaller sees a version sooner",
    )
    trust: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="names beyond the allow-list that model files may use, as package.module.Name or package.*",
    )
    allow_version_mismatch: bool = Field(
        False,
        description="load models of another minor version of scikit-learn if their golden rows still agree",
    )
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto and cpu compute on the CPU")
    threads: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        le=1024,
        description="threads that compute predictions",
    )
    max_body_bytes: int = Field(
        10 * 1024 * 1024, ge=1024, le=2**31, description="larger request bodies are refused with 413"
    )
    timeout_s: float = Field(30.0, gt=0, le=3600, description="a request not answered by then gets 504")
    log_format: Literal["json", "console"] = Field("json", description="JSON lines, or lines for people")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")

    @field_validator("trust", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("trust")
    @classmethod
    def _is_spelt(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        refused_names((), value)  # raises where an entry stands for more than one package
        return value

    @field_validator("device")
    @classmethod
    def _no_gpu_yet(cls, value: str) -> str:
        if value == "gpu":
            raise ValueError("there is no GPU engine in this version of Tandem; use auto or cpu")
        return value

    def as_environment(self) -> dict[str, str]:
        """The variables that make another process read these settings."""
        given = self.model_dump(exclude_none=True)
        given["trust"] = ",".join(self.trust)
        return {f"TANDEM_{name.upper()}": str(value) for name, value in given.items()}
