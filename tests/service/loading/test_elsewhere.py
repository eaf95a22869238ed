"""Engines in another process, for real: the process is started, asked, and killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from service.core.artefact_errors import GoldenDisagrees
from service.core.errors import Unavailable
from service.core.rules import ModelRules
from service.core.table import Matrix
from service.hosting import OPENER
from service.loading.elsewhere import Elsewhere
from service.loading.golden import read_golden
from service.loading.loader import Checked, Loader
from service.loading.sandbox import Sandbox
from service.repository.manifest import GOLDEN, MANIFEST, file_entry, read_manifest
from service.repository.sources import Folder
from service.runtimes.device_process import DeviceProcess
from service.runtimes.remote import DeviceClient, RemoteEngine
from tests.faults.cases import fault
from training.export import export

_PATIENCE_S = 60.0
_X = np.random.RandomState(0).normal(size=(60, 4))
_Y = np.where(_X[:, 0] + _X[:, 1] > 0, "yes", "no")
_FOREST = RandomForestClassifier(7, random_state=0).fit(_X, _Y)
_SCORES = make_pipeline(StandardScaler(), LogisticRegression()).fit(_X, _Y)
# Nothing is compiled from it: what is not on the GPU, the estimator computes.
_NEIGHBOURS = KNeighborsClassifier(3, p=3).fit(_X, _Y)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name, estimator in {"forest": _FOREST, "scores": _SCORES, "neighbours": _NEIGHBOURS}.items():
        export(estimator, _X, name=name, repository=root)
    return root


@contextmanager
def _started(opener: str) -> Iterator[DeviceProcess]:
    process = DeviceProcess(opener, first_pause_s=0.01)
    process.start()
    assert process.wait_until_ready(_PATIENCE_S)
    yield process
    process.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Callable[[str], DeviceProcess]]:
    """One process for each opener: it takes two seconds to start."""
    with ExitStack() as stack:
        yield cache(lambda opener: stack.enter_context(_started(opener)))


@pytest.fixture
def process(request: pytest.FixtureRequest, shared: Callable[[str], DeviceProcess]) -> DeviceProcess:
    """Shared with other tests: leave it as it was."""
    return shared(getattr(request, "param", OPENER))


@pytest.fixture
def own_process(request: pytest.FixtureRequest) -> Iterator[DeviceProcess]:
    """For a test that ends it."""
    with _started(getattr(request, "param", OPENER)) as process:
        yield process


@pytest.fixture
def load(models: Path) -> Iterator[Callable[[Elsewhere], Checked]]:
    """Loads a model, and lets go of it afterwards."""
    loaded: list[Checked] = []

    def load(elsewhere: Elsewhere, name: str = "forest", **rules: Any) -> Checked:
        said = ModelRules(**{"fidelity": "close", "pickle": "lazy", **rules})
        loaded.append(Loader(elsewhere=elsewhere, rules=lambda _: said)(Folder(models).scan().versions[name][1]))
        return loaded[-1]

    yield load
    for checked in loaded:
        checked.close()


def _asked(checked: Checked, output: str = "predict_proba") -> NDArray[Any]:
    return np.asarray(checked.engine.run(Matrix(_X.copy()), (output,))[output])


def _kill(process: DeviceProcess) -> None:
    pid = process.status.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_isolated_model_answers_with_its_own_numbers(process: DeviceProcess, load: Any) -> None:
    checked = load(Elsewhere(apart=DeviceClient(process.path), isolated=["forest"]))

    assert [row["name"] for row in checked.engine.describe()] == ["isolated"]
    assert np.array_equal(_asked(checked), _FOREST.predict_proba(_X))
    assert np.array_equal(_asked(checked, "predict"), _FOREST.predict(_X))


@fault("B13", sent="kill -9 of the process of an isolated model", expected="its requests 503 at once; it comes back")
def test_isolated_model_that_crashes_fails_its_requests_at_once_and_comes_back(
    own_process: DeviceProcess, load: Any
) -> None:
    checked = load(Elsewhere(apart=DeviceClient(own_process.path), isolated=["*"]))

    _kill(own_process)
    with pytest.raises(Unavailable):
        _ask_until_it_fails(checked)

    assert own_process.wait_for_restart(1, _PATIENCE_S)
    assert np.array_equal(_until_it_answers(checked), _FOREST.predict_proba(_X))


@fault(
    "M30",
    sent="a tree that crashes native code, as the file of an isolated model",
    expected="refused by the sandbox there; the process, with all other isolated models, lives on",
)
def test_file_that_would_end_the_process_of_isolated_models_is_refused_there(
    process: DeviceProcess, tmp_path: Path
) -> None:
    tree = DecisionTreeClassifier(random_state=0).fit(_X, _Y)
    export(tree, _X, name="tree", repository=tmp_path)
    folder = tmp_path / "tree" / "1"
    state = tree.tree_.__getstate__()
    state["nodes"]["feature"][0] = 1 << 40
    tree.tree_.__setstate__(state)
    joblib.dump(tree, folder / "model.joblib")
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["files"]["model.joblib"] = file_entry((folder / "model.joblib").read_bytes()).model_dump()
    (folder / MANIFEST).write_text(json.dumps(manifest))
    pid = process.status.pid
    sandbox = Sandbox(memory_bytes=1 << 30, seconds=60)
    rules = ModelRules(pickle="always")
    elsewhere = Elsewhere(apart=DeviceClient(process.path), isolated=["*"])
    load = Loader(elsewhere=elsewhere, rules=lambda _: rules, sandbox=sandbox)

    with pytest.raises(GoldenDisagrees, match=r"model\.joblib was not opened: the process .* ended by SIG(SEGV|BUS)"):
        load(Folder(tmp_path).scan().versions["tree"][1])

    assert process.status.pid == pid


def _ask_until_it_fails(checked: Checked) -> None:
    """A connection knows of the end of the other side soon, and not at once."""
    while True:
        _asked(checked)


def _until_it_answers(checked: Checked) -> NDArray[Any]:
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return _asked(checked)
        except Unavailable:
            assert time.monotonic() < give_up
            os.sched_yield()


def test_other_models_stay_in_this_process(process: DeviceProcess, load: Any) -> None:
    checked = load(Elsewhere(apart=DeviceClient(process.path), isolated=["another"]))

    assert "isolated" not in [row["name"] for row in checked.engine.describe()]


def test_isolated_model_that_cannot_be_opened_is_refused_with_the_reason(
    process: DeviceProcess, models: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(models, tmp_path / "models"))
    path = copied / "forest" / "1" / MANIFEST
    manifest = json.loads(path.read_bytes())
    manifest["libraries"]["scikit-learn"] = "0.1.2"
    path.write_text(json.dumps(manifest))
    rules = ModelRules(fidelity="close", pickle="lazy", engine="estimator")
    elsewhere = Elsewhere(apart=DeviceClient(process.path), isolated=["*"])

    with pytest.raises(GoldenDisagrees, match=r"own: on this host, exported with scikit-learn 0\.1\.2"):
        Loader(elsewhere=elsewhere, rules=lambda _: rules)(Folder(copied).scan().versions["forest"][1])


def _engines(checked: Checked) -> dict[str, Any]:
    return {row["name"]: row for row in checked.about()["engines"]}


def _dropped(checked: Checked, name: str) -> list[tuple[str | None, str]]:
    drops = checked.about()["dropped_engines"]
    return [(drop.get("output"), drop["reason"]) for drop in drops if drop["name"] == name]


_ON_A_DEVICE = "tests.service.loading.on_a_device:open_hosted"
_WRONG = "tests.service.loading.on_a_device:open_wrong"
_WORSE_AFTER_A_RESTART = "tests.service.loading.on_a_device:open_worse_after_a_restart"


@pytest.mark.parametrize("process", [_ON_A_DEVICE], indirect=True)
def test_engine_on_the_device_is_one_more_option_with_its_own_cost(process: DeviceProcess, load: Any) -> None:
    checked = load(Elsewhere(gpu=DeviceClient(process.path)), engine="nvforest")

    rows = {row["name"]: row for row in checked.engine.describe()}
    assert set(rows) == {"nvforest", "onnx", "treelite", "estimator"}
    assert rows["nvforest"]["seconds"]
    assert np.array_equal(_asked(checked), _FOREST.predict_proba(_X))


@fault("G03", sent="the device's process gone", expected="the CPU answers")
@pytest.mark.parametrize("own_process", [_ON_A_DEVICE], indirect=True)
def test_while_the_device_is_away_the_cpu_answers(own_process: DeviceProcess, load: Any) -> None:
    checked = load(Elsewhere(gpu=DeviceClient(own_process.path)), engine="nvforest")

    _kill(own_process)
    answers = [_asked(checked) for _ in range(50)]

    assert all(np.array_equal(answer, _FOREST.predict_proba(_X)) for answer in answers)


@pytest.mark.parametrize("own_process", [_ON_A_DEVICE], indirect=True)
def test_where_only_the_device_may_answer_its_absence_is_told(own_process: DeviceProcess, load: Any) -> None:
    checked = load(Elsewhere(gpu=DeviceClient(own_process.path), is_strict=True), engine="nvforest")
    own_process.close()

    with pytest.raises(Unavailable):
        _ask_until_it_fails(checked)


@fault("G06", sent="an engine that cannot be opened on the device", expected="dropped with the reason; the CPU serves")
def test_engine_that_does_not_open_on_the_device_is_dropped_and_the_cpu_serves(
    process: DeviceProcess, load: Any
) -> None:
    checked = load(Elsewhere(gpu=DeviceClient(process.path)))  # which has no nvForest

    assert np.array_equal(_asked(checked), _FOREST.predict_proba(_X))
    assert [drop.name for drop in checked.dropped if "nvforest cannot open it" in drop.reason] == ["nvforest"]


@pytest.mark.parametrize("own_process", [_WORSE_AFTER_A_RESTART], indirect=True)
def test_engine_that_was_exact_must_be_so_after_a_restart_too(
    own_process: DeviceProcess, models: Path, tmp_path: Path
) -> None:
    found = Folder(Path(shutil.copytree(models, tmp_path / "models"))).scan().versions["forest"][1]
    manifest = read_manifest(found.path, found.name, found.version)
    golden = read_golden((found.path / GOLDEN).read_bytes(), manifest.signature)
    rules = {
        "trust": [], "allow_version_mismatch": False, "allow_shared_files": False, "rules": {"fidelity": "close"},
        "measure_s": 0.15, "sandbox": None,
    }  # fmt: skip
    (trial,) = Elsewhere(gpu=DeviceClient(own_process.path)).on_gpu(found, manifest, golden, rules)
    assert trial.option is not None and isinstance(trial.option.engine, RemoteEngine)
    assert "predict_proba" in trial.option.exact

    _kill(own_process)
    assert own_process.wait_for_restart(1, _PATIENCE_S)

    with pytest.raises(GoldenDisagrees, match=r"forest/1: predict_.* where .* was recorded"):
        trial.option.engine.open()


@pytest.mark.parametrize("process", [_ON_A_DEVICE], indirect=True)
def test_engine_that_no_export_could_prove_is_proven_on_the_device(process: DeviceProcess, load: Any) -> None:
    checked = load(Elsewhere(gpu=DeviceClient(process.path)), "scores", engine="cuml")

    cuml = _engines(checked)["cuml"]
    assert set(cuml["outputs"]) == set(checked.manifest.signature.output_names)
    assert cuml["exact"] == []
    assert cuml["seconds"]
    assert _dropped(checked, "cuml") == []
    np.testing.assert_allclose(_asked(checked), _SCORES.predict_proba(_X), rtol=1e-12)
    assert np.array_equal(_asked(checked, "predict"), _SCORES.predict(_X))


@fault(
    "G04",
    sent="an engine whose golden rows disagree on the device",
    expected="its outputs dropped, with the reason",
)
@pytest.mark.parametrize("process", [_WRONG], indirect=True)
def test_outputs_that_disagree_on_the_device_are_dropped_and_told(process: DeviceProcess, load: Any) -> None:
    checked = load(Elsewhere(gpu=DeviceClient(process.path)), "scores")

    # Labels are right, whatever the scores.
    assert _engines(checked)["cuml"]["outputs"] == ["predict"]
    told = dict(_dropped(checked, "cuml"))
    assert set(told) == {"predict_proba", "predict_log_proba", "decision_function"}
    assert all(reason.startswith("on this host, it does not repeat the golden rows: [") for reason in told.values())
    np.testing.assert_allclose(_asked(checked), _SCORES.predict_proba(_X), rtol=1e-12)


def test_engine_that_is_not_installed_on_the_device_is_dropped_with_the_reason(
    process: DeviceProcess, load: Any
) -> None:
    checked = load(Elsewhere(gpu=DeviceClient(process.path)), "scores")

    assert "cuml" not in _engines(checked)
    ((_, reason),) = _dropped(checked, "cuml")
    assert reason.startswith("on this host, the engine cannot be opened: ModuleNotFoundError: No module named 'cuml")


def test_without_a_gpu_its_engine_is_told_to_be_unproven_and_no_file_is_opened(
    load: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        "service.loading.loader.open_estimator", lambda *_, **__: pytest.fail("the model file was opened")
    )

    checked = load(Elsewhere(), "scores")

    assert set(_engines(checked)) == {"onnx", "estimator"}
    assert _dropped(checked, "cuml") == [
        (None, "it needs a GPU, and must repeat the golden rows there before it answers")
    ]
    assert caplog.records == []


@pytest.mark.parametrize("process", [_ON_A_DEVICE], indirect=True)
@pytest.mark.parametrize(
    ("rules", "why"),
    [
        pytest.param({"pickle": "never"}, "none may be opened (pickle: never)", id="the file stays closed"),
        pytest.param({"fidelity": "exact"}, "none of its outputs is exact (fidelity: exact)", id="only the exact"),
    ],
)
def test_rules_that_keep_an_engine_from_the_device_are_told(
    process: DeviceProcess, load: Any, rules: dict[str, str], why: str
) -> None:
    checked = load(Elsewhere(gpu=DeviceClient(process.path)), "scores", **rules)

    assert "cuml" not in _engines(checked)
    ((_, reason),) = _dropped(checked, "cuml")
    assert why in reason


@pytest.mark.parametrize("process", [_ON_A_DEVICE], indirect=True)
def test_what_only_the_device_covers_finds_the_estimator_open_when_it_is_away(
    process: DeviceProcess, load: Any
) -> None:
    checked = load(Elsewhere(gpu=DeviceClient(process.path)), "neighbours")

    assert _engines(checked)["cuml"]["outputs"] == ["predict", "predict_proba"]
    assert _engines(checked)["estimator"]["seconds"]
