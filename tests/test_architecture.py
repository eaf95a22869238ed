"""The arrows between packages, as `service/__init__.py` draws them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
MODULES: Final = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("service", "training")
    for path in sorted((ROOT / package).rglob("*.py"))
}

# Below `service`: what each part may import of ours, besides itself.
ALLOWED: Final = {
    "core": set[str](),
    "repository": {"core"},
    "runtimes": {"core"},
    "scheduling": {"core"},
    "guards": {"core"},
    "protocols": {"core", "guards"},
    "generation": {"core", "protocols", "runtimes"},  # of the runtimes, their breaker
    "observability": {"core"},
    "upstream_settings": {"generation"},
    "settings": {"core", "guards", "repository", "upstream_settings"},  # how rules and names to trust are spelt
    "loading": {"core", "protocols", "repository", "runtimes", "scheduling"},
    "server": {"core", "repository"},
    "assembly": {
        "core", "figures", "generation", "guards", "hosting", "loading", "observability", "protocols", "repository",
        "runtimes", "scheduling", "server", "settings",
    },
    "entrypoints": {"core", "assembly", "guards", "observability", "protocols", "settings"},
    "device": {"core", "observability", "runtimes", "scheduling"},
    "figures": {"core", "observability", "protocols", "repository", "scheduling", "settings"},
    "hosting": {"core", "runtimes", "settings"},
    "inspection": {"core", "loading", "repository"},
    "signatures": {"inspection", "repository"},  # commands
    "platforms": {"core", "repository"},  # what a version on disk looks like
    "preflight": {"core", "entrypoints", "generation", "guards", "loading", "protocols", "repository", "settings"},
    "cli": {
        "core", "entrypoints", "guards", "hosting", "inspection", "loading", "observability", "platforms", "preflight",
        "repository", "settings", "signatures",
    },
}  # fmt: skip

FRAMEWORKS: Final = frozenset({"fastapi", "starlette", "uvicorn", "flask", "werkzeug", "granian", "gunicorn", "gevent"})
MODELS: Final = frozenset({"sklearn", "pandas", "scipy", "xgboost", "lightgbm", "joblib"})
REPORTS: Final = frozenset({"matplotlib", "rich", "pyarrow", "jinja2"})
GRPC: Final = frozenset({"grpc", "google"})  # which only a service with a port for it needs
CLIENTS: Final = frozenset({"httpcore", "httpx"})  # which only a service with a language model behind it needs
LOGGING: Final = (REPORTS | MODELS | GRPC | CLIENTS) - {"rich"}


def imports(module: str) -> Iterator[str]:
    """Full names that `module` imports, at its top or inside a function."""
    path = MODULES[module]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(name: str) -> str | None:
    """`repository` for `service.repository.catalog`; None outside of `service`, and for its version."""
    parts = name.split(".")
    return parts[1] if parts[0] == "service" and len(parts) > 1 and parts[1] != "__version__" else None


def roots(module: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(module)}


def modules_of(*parts: str) -> list[str]:
    return [module for module in MODULES if part_of(module) in parts]


SERVICE: Final = [module for module in MODULES if module.startswith("service")]


def test_every_part_of_the_service_has_its_arrows() -> None:
    assert {part for module in SERVICE if (part := part_of(module))} == set(ALLOWED)


@pytest.mark.parametrize("part", ALLOWED)
def test_part_imports_only_what_its_charter_allows(part: str) -> None:
    wrong = [
        f"{module} imports {name}"
        for module in modules_of(part)
        for name in imports(module)
        if (other := part_of(name)) is not None and other != part and other not in ALLOWED[part]
    ]

    assert wrong == []


def test_service_never_imports_training() -> None:
    assert [module for module in SERVICE if "training" in roots(module)] == []


def test_entry_points_do_not_know_each_other() -> None:
    entry_points = tuple(f"service.entrypoints.{name}" for name in ("fastapi_app", "flask_app", "grpc_"))
    wrong = [
        f"{module} imports {name}"
        for module in modules_of("entrypoints")
        for name in imports(module)
        if name.startswith(entry_points)
        # gunicorn is given the app as an object, in the worker that it forked.
        and (module, name) != ("service.entrypoints.servers", "service.entrypoints.flask_app")
        # gRPC is several modules, and beside either framework where the settings ask for it.
        and not module.startswith("service.entrypoints.grpc_")
        and name != "service.entrypoints.grpc_server.GrpcServer"
    ]

    assert wrong == []


@pytest.mark.parametrize(
    ("libraries", "places"),
    [
        pytest.param(FRAMEWORKS, ["entrypoints"], id="web frameworks"),
        # The signature read off an estimator, and its input: nobody else needs to know what a model is.
        # Files are opened by rules of our own, so that not even joblib is imported to read one.
        pytest.param(MODELS, ["runtimes"], id="libraries of models"),
        pytest.param({"onnxruntime", "nvforest", "cuml", "cupy"}, ["runtimes"], id="libraries that compute"),
        pytest.param({"grpc"}, ["entrypoints"], id="gRPC"),
        pytest.param(CLIENTS, ["generation"], id="clients of HTTP"),
        pytest.param({"google"}, ["protocols"], id="protobuf"),
        pytest.param({"skl2onnx", "onnx"}, [], id="compilers"),
        pytest.param(REPORTS - {"pyarrow"}, [], id="libraries of reports"),
        # Within functions: whoever sends Arrow or Parquet pays for it.
        pytest.param({"pyarrow"}, ["protocols"], id="tables of others"),
        # Within functions: whoever has tokens, or counts in a store, pays for it.
        pytest.param({"jwt", "limits"}, ["guards"], id="tokens and limits"),
        pytest.param({"click"}, ["cli", "signatures"], id="command line"),
        pytest.param({"structlog"}, ["observability"], id="logs"),
        pytest.param({"prometheus_client", "pynvml"}, ["observability"], id="metrics"),
        pytest.param({"pydantic_settings"}, ["settings", "upstream_settings"], id="settings"),
    ],
)
def test_library_is_imported_only_where_it_belongs(libraries: set[str], places: list[str]) -> None:
    wrong = {module: found for module in SERVICE if (found := roots(module) & libraries)}

    assert {part_of(module) for module in wrong} <= set(places), wrong


def test_protobuf_is_imported_in_one_folder() -> None:
    found = {module for module in SERVICE if "google" in roots(module)}

    assert found == {"service.protocols.protos.pool"}


def test_training_knows_no_web_framework() -> None:
    training = [module for module in MODULES if module.startswith("training")]

    assert [module for module in training if roots(module) & FRAMEWORKS] == []


def test_core_and_protocols_touch_neither_files_nor_threads() -> None:
    blocking = {"threading", "socket", "asyncio", "subprocess", "multiprocessing"}

    assert [module for module in modules_of("core", "protocols") if roots(module) & blocking] == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        # flask itself comes with jinja2, and structlog takes rich along where it is installed.
        pytest.param("service.entrypoints.flask_app", LOGGING - {"jinja2"} | {"fastapi", "starlette"}, id="flask"),
        pytest.param("service.entrypoints.fastapi_app", LOGGING | {"flask", "werkzeug"}, id="fastapi"),
        pytest.param("service.assembly", LOGGING | FRAMEWORKS, id="assembly"),
        pytest.param("service.cli", REPORTS | MODELS | GRPC | FRAMEWORKS, id="command line of the service"),
        pytest.param("training.cli", REPORTS | MODELS | FRAMEWORKS, id="command line"),
    ],
)  # fmt: skip
def test_import_pulls_in_nothing_that_serving_does_not_need(module: str, absent: frozenset[str]) -> None:
    code = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert absent & set(done.stdout.split()) == set()
