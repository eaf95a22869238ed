"""Settings: read once, from arguments and `TANDEM_*` variables, handed down in slices."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from service.core.limits import Limits
from service.core.rules import Fidelity, ModelRules, Pickle
from service.guards.guard import AccessRules
from service.guards.peers import networks_of
from service.guards.rates import parse_rate
from service.repository.allowlist import refused_names
from service.upstream_settings import UpstreamSettings

# A path as it is, without parameters and without anything that needs a code.
ROUTE = r"^(/[A-Za-z0-9._~:@!$&'()*+,;=-]+)+$"

# As a browser writes the origin of a page: small letters, no path, no port where it is the usual one.
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.ASCII)

# Fields that are written with commas in a variable.
_LISTS = (
    "trust", "isolate", "dialects", "allowed_hosts", "cors_origins", "trusted_proxies", "trusted_keys",
    "upstream_parameters",
)  # fmt: skip

DialectName: TypeAlias = Literal["v2", "v1", "mlflow", "sagemaker", "vertex", "torchserve"]


class Settings(UpstreamSettings):
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
    sandbox: bool = Field(
        True, description="model files are opened in a process apart first, which may crash; compiled ones need none"
    )
    sandbox_bytes: int = Field(
        4 * 1024**3,
        ge=256 * 1024**2,
        le=2**44,
        description="memory that a model file may take there; too small refuses large models",
    )
    sandbox_s: float = Field(
        60.0, ge=1, le=3600, description="seconds that a model file may take there, the start of Python included"
    )
    trusted_keys: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="files of public keys; with any, only versions that one of them signed are served"
    )
    allow_rollback: bool = Field(
        False, description="with trusted keys, serve older versions where newer ones that were served are gone"
    )
    versions_file: Path | None = Field(
        None,
        description="with trusted keys, where the highest versions ever served are remembered between two runs; it "
        "belongs where nobody who writes models can write. Without it they are remembered while the process lives",
    )
    allow_shared_files: bool = Field(
        False, description="open model files that other users of this machine own or can change"
    )
    max_model_bytes: int = Field(
        16 * 1024**3,
        ge=1024,
        le=2**50,
        description="a version whose files are larger, all together, is skipped; reading them takes a second per GB",
    )
    scan_timeout_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="a look at the folder that takes longer is given up, and what serves serves on; too small for slow "
        "network file systems leaves new versions unseen",
    )
    load_timeout_s: float = Field(
        300.0,
        gt=0,
        le=86_400,
        description="a version that is not loaded and checked by then is refused; too small refuses large models",
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
    queue_s: float = Field(
        0.5,
        gt=0,
        le=3600,
        description="seconds that a request may wait, by prediction, or 16 times as long as it takes itself; beyond it "
        "503 at once. Too small turns bursts away, too large lets every caller wait as long under overload",
    )
    measure_s: float = Field(
        0.15, ge=0, le=60, description="seconds that timing an engine may take, for each engine of a version, at load"
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
    metrics_folder: Path | None = Field(
        None, description="where workers add up their metrics, one folder for each service; tandem serve sets it"
    )
    grpc_port: int | None = Field(None, ge=1, le=65535, description="gRPC is answered there, too")
    grpc_host: str = Field("127.0.0.1", description="address of this machine that gRPC listens on")
    grpc_idle_s: float = Field(
        300.0, ge=0.1, le=86_400, description="a gRPC connection without a call is closed after so many seconds"
    )
    grpc_age_s: float = Field(
        3600.0,
        ge=0.1,
        le=864_000,
        description="a gRPC connection is closed after so many seconds, once its calls are answered; clients connect "
        "anew, to whichever process has room",
    )
    keys_file: Path | None = Field(
        None, description="API keys, by their hashes; with it nobody asks without one. Read again when it changes"
    )
    jwks_file: Path | None = Field(
        None, description="public keys of those who sign tokens (JWT); with it nobody asks without one"
    )
    jwt_issuer: str | None = Field(None, description="what iss of a token must be")
    jwt_audience: str | None = Field(
        None, description="what aud of a token must be or hold; without it tokens must have none"
    )
    allow_anonymous: bool = Field(
        False, description="tandem serve answers everybody beyond loopback, too, without keys or tokens"
    )
    rate_limit: str | None = Field(
        None, description="requests of one caller, by key or else by address, such as 100/minute; beyond it 429"
    )
    wrong_keys_limit: str = Field(
        "100/minute", description="wrong keys from one address that get 401; beyond it 429. The right key always passes"
    )
    limit_store: str | None = Field(
        None,
        description="redis://… where processes and machines count together; without it each process of this service "
        "lets its share of a limit through",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="names by which this service may be asked; others get 421. tandem serve on loopback sets them"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="origins whose pages may ask, exactly as a browser writes them: https://app.example"
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="addresses or CIDR blocks of proxies whose X-Forwarded-For is true"
    )
    max_body_bytes: int = Field(
        10 * 1024 * 1024, ge=1024, le=2**31, description="larger request bodies are refused with 413"
    )
    max_rows: int = Field(1_000_000, ge=1, le=2**31, description="rows of one request; more are refused with 413")
    max_cells: int = Field(
        32_000_000,
        ge=1,
        le=2**40,
        description="rows times columns of one request, 256 MiB as float64; more are refused with 413",
    )
    max_reply_bytes: int = Field(
        50 * 1024 * 1024, ge=1024, le=2**31, description="an answer that would be larger is refused with 413"
    )
    max_url_bytes: int = Field(
        4096, ge=256, le=8000, description="longer paths with their queries are refused with 414; servers read no more"
    )
    max_headers_bytes: int = Field(
        16 * 1024, ge=8192, le=64 * 1024, description="larger headers, all together, are refused with 431"
    )
    headers_timeout_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="a connection whose next request has not come with all its headers by then is closed; too small "
        "turns slow networks away, too large lets silent callers hold connections",
    )
    body_timeout_s: float = Field(
        30.0, gt=0, le=3600, description="a request whose body has not come by then gets 408, and its connection ends"
    )
    write_timeout_s: float = Field(
        60.0, gt=0, le=3600, description="a connection whose caller has not taken an answer by then is closed"
    )
    max_connections: int = Field(
        800,
        ge=16,
        le=1_000_000,
        description="connections of each process; beyond it the one that has been silent longest is closed, or the new "
        "one waits. Each takes an open file, of which many systems allow 1024",
    )
    max_waiting: int | None = Field(
        None,
        ge=1,
        description="predictions of a Flask process that may hold a thread each; its server needs some threads more",
    )
    max_streams: int = Field(
        64,
        ge=1,
        le=100_000,
        description="answers in pieces and WebSockets of each process at a time; beyond it 503. Under Flask each holds "
        "a thread",
    )
    max_streams_per_caller: int | None = Field(
        None, ge=1, description="of one key, or else of one address; beyond it 429. By default one may hold all"
    )
    max_message_bytes: int = Field(
        1024 * 1024, ge=1024, le=2**31, description="a WebSocket that brings a larger message is closed with 1009"
    )
    ping_s: float = Field(
        20.0,
        gt=0,
        le=3600,
        description="seconds between two questions whether the caller of a WebSocket is still there; whoever does not "
        "answer one until the next is closed. Proxies cut what is silent, many after a minute",
    )
    timeout_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="a request not answered by then gets 504; X-Request-Timeout-Ms may ask for less",
    )
    drain_s: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="seconds after SIGTERM during which requests are still taken, while ready says 503; too small, and "
        "requests of a load balancer that has not noticed are refused. 0 stops at once, as Ctrl-C does",
    )
    grace_s: float = Field(
        25.0,
        gt=0,
        le=3600,
        description="seconds after SIGTERM, the drain among them, after which what is still under way is given up; "
        "orchestrators kill after 30 by default",
    )
    load_first: bool = Field(
        False,
        description="a worker takes connections only once its models are loaded; tandem serve sets it for workers that "
        "follow others",
    )
    log_format: Literal["json", "console"] = Field("json", description="JSON lines, or lines for people")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")

    @field_validator(*_LISTS, mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("trust")
    @classmethod
    def _is_spelt(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        refused_names((), value)  # raises where an entry stands for more than one package
        return value

    @field_validator("rate_limit", "wrong_keys_limit")
    @classmethod
    def _is_rate(cls, value: str | None) -> str | None:
        if value is not None:
            parse_rate(value)
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(host.lower().strip("[]") for host in value)

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"expected an origin such as https://app.example, got {origin!r}")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        networks_of(value)
        return value

    @property
    def access(self) -> AccessRules:
        """Who may ask, and how often."""
        return AccessRules(
            keys_file=self.keys_file,
            jwks_file=self.jwks_file,
            jwt_issuer=self.jwt_issuer,
            jwt_audience=self.jwt_audience,
            rate=parse_rate(self.rate_limit) if self.rate_limit is not None else None,
            wrong_keys=parse_rate(self.wrong_keys_limit),
            limit_store=self.limit_store,
            hosts=self.allowed_hosts,
            origins=self.cors_origins,
            proxies=networks_of(self.trusted_proxies),
            processes=self.workers,
        )

    @property
    def thread_budget(self) -> int:
        """Threads that compute in this process: as many as it has cores for, unless told otherwise."""
        return self.threads or max(1, _cores() // self.workers)

    @property
    def limits(self) -> Limits:
        """How large one request and its answer may be."""
        return Limits(self.max_rows, self.max_cells, self.max_reply_bytes)

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
        for name in _LISTS:
            given[name] = ",".join(map(str, given[name]))
        if self.upstream_key is not None:
            given["upstream_key"] = self.upstream_key.get_secret_value()
        rules = {model: rules.model_dump(exclude_none=True) for model, rules in self.per_model.items()}
        given["per_model"] = json.dumps(rules)
        return {f"TANDEM_{name.upper()}": str(value) for name, value in given.items()}


def _cores() -> int:
    """Cores that this process may use, which a container or `taskset` can make fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
