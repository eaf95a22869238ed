"""Settings: read once, from arguments and `TANDEM_*` variables, handed down in slices."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.core.rules import Fidelity, ModelRules, Pickle
from service.repository.allowlist import refused_names

# A path as it is, without parameters and without anything that needs a code.
ROUTE = r"^(/[A-Za-z0-9._~:@!$&'()*+,;=-]+)+$"

DialectName: TypeAlias = Literal["v2", "v1", "mlflow", "sagemaker", "vertex", "torchserve"]


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
    fidelity: Fidelity = Field(
        "close", description="which compiled engines may answer: exact within 1e-12, close within 1e-5 relative"
    )
    pickle: Pickle = Field(
        "lazy",
        description="when model files are opened: lazy, for what no compiled engine covers; never; always, at load",
    )
    engine: Literal["auto", "estimator"] = Field(
        "auto", description="auto is the cheapest that covers the request; estimator leaves the compiled ones out"
    )
    per_model: dict[str, ModelRules] = Field(
        default_factory=dict, description="fidelity, pickle and engine by model, as JSON"
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="auto computes on a GPU where there is one and it is cheaper; gpu refuses to do without"
    )
    isolate: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="models that run in a process of their own, which may crash; * is all of them"
    )
    gpu_socket: Path | None = Field(None, description="of the process that owns the GPU; tandem serve sets it")
    apart_socket: Path | None = Field(None, description="of the process for isolated models; tandem serve sets it")
    workers: int = Field(1, ge=1, le=256, description="processes that share the machine and the queue's limits")
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="threads that compute in each process, engines, BLAS and OpenMP together; "
        "by default the cores, shared out among the processes",
    )
    batch_rows: int = Field(
        1024, ge=1, le=1_000_000, description="requests that wait are merged up to so many rows; 1 merges none"
    )
    queue_rows: int = Field(
        100_000, ge=1, le=10**9, description="rows that may wait, in all processes together; beyond it 503 at once"
    )
    queue_bytes: int = Field(
        256 * 1024 * 1024, ge=1024, le=2**40, description="bytes of rows that may wait, in all processes together"
    )
    dialects: Annotated[tuple[DialectName, ...], NoDecode] = Field(
        get_args(DialectName), description="protocols of other servers that are spoken beside the native one"
    )
    vertex_health_route: str | None = Field(
        None, pattern=ROUTE, description="path at which Vertex AI asks for health; tandem serve takes AIP_HEALTH_ROUTE"
    )
    vertex_predict_route: str | None = Field(
        None, pattern=ROUTE, description="path at which Vertex AI predicts; tandem serve takes AIP_PREDICT_ROUTE"
    )
    model_control: bool = Field(
        False, description="whoever reaches the service may load and unload models by the protocols that can ask for it"
    )
    orders_file: Path | None = Field(
        None, description="where workers tell each other what was loaded and unloaded; tandem serve sets it"
    )
    grpc_port: int | None = Field(None, ge=1, le=65535, description="gRPC is answered there, too")
    grpc_host: str = Field("127.0.0.1", description="address of this machine that gRPC listens on")
    max_body_bytes: int = Field(
        10 * 1024 * 1024, ge=1024, le=2**31, description="larger request bodies are refused with 413"
    )
    max_waiting: int | None = Field(
        None,
        ge=1,
        description="predictions of a Flask process that may hold a thread each; its server needs some threads more",
    )
    timeout_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="a request not answered by then gets 504; X-Request-Timeout-Ms may ask for less",
    )
    log_format: Literal["json", "console"] = Field("json", description="JSON lines, or lines for people")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")

    @field_validator("trust", "isolate", "dialects", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("trust")
    @classmethod
    def _is_spelt(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        refused_names((), value)  # raises where an entry stands for more than one package
        return value

    @property
    def thread_budget(self) -> int:
        """Threads that compute in this process: as many as it has cores for, unless told otherwise."""
        return self.threads or max(1, _cores() // self.workers)

    def rules(self, model: str) -> ModelRules:
        """What holds for `model`: its own rules over those of the server."""
        own = self.per_model.get(model, ModelRules())
        return own.over(
            ModelRules(
                fidelity=self.fidelity, pickle=self.pickle, engine=None if self.engine == "auto" else self.engine
            )
        )

    def as_environment(self) -> dict[str, str]:
        """The variables that make another process read these settings."""
        given = self.model_dump(exclude_none=True)
        for name in ("trust", "isolate", "dialects"):
            given[name] = ",".join(given[name])
        rules = {model: rules.model_dump(exclude_none=True) for model, rules in self.per_model.items()}
        given["per_model"] = json.dumps(rules)
        return {f"TANDEM_{name.upper()}": str(value) for name, value in given.items()}


def _cores() -> int:
    """Cores that this process may use, which a container or `taskset` can make fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
