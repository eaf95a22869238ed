from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeClassifier

from service.core.artefact_errors import (
    ArtefactError,
    ModelFileUnreadable,
    SandboxRefused,
    UntrustedNames,
)
from service.core.table import Matrix
from service.loading import sandbox as module
from service.loading.loader import Loader
from service.loading.sandbox import Sandbox
from service.repository.manifest import GOLDEN, MANIFEST, digest, read_manifest
from service.repository.sources import Folder
from service.runtimes.treelite import TREES
from tests.faults.cases import fault
from tests.service.loading.suspects import Nosy, Sleeper
from tests.service.repository.attacks import Command, array_file, dumped
from training.export import export

_TRUST: Final = ("tests.service.loading.suspects.*",)
_X = np.random.RandomState(0).uniform(size=(40, 3))
_Y = (_X[:, 0] > 0.5).astype(int)


@pytest.fixture(autouse=True)
def _nothing_went_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WENT_WELL", set())


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Shared: a child takes a second or two to start."""
    sandbox = Sandbox(memory_bytes=1 << 30, seconds=60)
    yield sandbox
    sandbox.close()


def _good(slope: float = 1.0) -> bytes:
    return dumped(LinearRegression().fit(_X, slope * _X[:, 0]))


def _pid(sandbox: Sandbox) -> int:
    assert sandbox._child is not None
    return sandbox._child.process.pid


def _tree(damage: Callable[[dict[str, Any]], None]) -> bytes:
    """A fitted tree after `damage` to the state of its native part."""
    tree = DecisionTreeClassifier(random_state=0).fit(_X, _Y)
    state = tree.tree_.__getstate__()
    damage(state)
    tree.tree_.__setstate__(state)
    return dumped(tree)


def test_one_child_tries_one_file_after_the_other(sandbox: Sandbox) -> None:
    sandbox.try_out("model.joblib", _good(), ())
    first = _pid(sandbox)
    sandbox.try_out("model.joblib", _good(2.0), ())

    assert _pid(sandbox) == first


def test_child_of_one_that_rests_ends_with_each_file() -> None:
    sandbox = Sandbox(memory_bytes=1 << 30, seconds=60, rests=True)

    sandbox.try_out("model.joblib", _good(3.0), ())

    assert sandbox._child is None


def test_what_went_well_is_not_tried_again(sandbox: Sandbox) -> None:
    sandbox.try_out("model.joblib", _good(), ())
    sandbox.rest()

    sandbox.try_out("model.joblib", _good(), ())

    assert sandbox._child is None


def test_version_answers_its_golden_rows_there(sandbox: Sandbox, tmp_path: Path) -> None:
    path = export(LinearRegression().fit(_X, _X[:, 0]), _X, name="line", repository=tmp_path).path
    manifest = read_manifest(path, "line", 1)

    sandbox.try_out("model.joblib", _good(), (), (manifest, (path / GOLDEN).read_bytes()))


@fault(
    "M30",
    sent="a tree whose nodes ask for columns that rows do not have",
    expected="the crash stays in the sandbox, the version is refused",
)
def test_crash_stays_in_the_child(sandbox: Sandbox) -> None:
    def damage(state: dict[str, Any]) -> None:
        state["nodes"]["feature"][0] = 1 << 40

    with pytest.raises(SandboxRefused, match=r"was not opened: the process .* ended by SIG(SEGV|BUS)") as refusal:
        sandbox.try_out("model.joblib", _tree(damage), ())

    assert refusal.value.code == "sandbox-refused"
    sandbox.try_out("model.joblib", _good(), ())  # in another child


@fault("M30", sent="XGBoost and LightGBM boosters, damaged or cut", expected="refused; this process lives")
@pytest.mark.parametrize("package", ["xgboost", "lightgbm"])
def test_damaged_booster_is_refused(package: str, sandbox: Sandbox) -> None:
    library = pytest.importorskip(package)
    if package == "xgboost":
        data = dumped(library.XGBClassifier(n_estimators=2, max_depth=2, n_jobs=1).fit(_X, _Y))
        # As the binary JSON of XGBoost spells it; children of the root far beyond its arrays.
        damaged = [data.replace(b"left_children[$l#L", b"left_children[$L#L"), data.replace(b"L\x00", b"L\x7f")]
    else:
        booster = library.LGBMClassifier(n_estimators=2, n_jobs=1, min_child_samples=2, verbosity=-1).fit(_X, _Y)
        data = dumped(booster)
        damaged = [data.replace(b"split_feature=", b"split_feature=9"), data.replace(b"num_leaves=", b"num_leaves=9")]
    for suspect in damaged:
        assert suspect != data
        with pytest.raises(ArtefactError):
            sandbox.try_out("model.joblib", suspect, ())


@fault(
    "M30",
    sent="a Treelite checkpoint whose root has a child far beyond the tree",
    expected="the crash stays in the sandbox; the engine is not used, another one answers",
)
def test_compiled_engine_that_crashes_is_not_used(sandbox: Sandbox, tmp_path: Path) -> None:
    forest = RandomForestClassifier(3, random_state=0).fit(_X, _Y)
    path = export(forest, _X, name="forest", repository=tmp_path).path
    trees, manifest = path / TREES, json.loads((path / MANIFEST).read_bytes())
    root = (1).to_bytes(4, "little") + b"\xff" * 4  # its left child is the next node, which is a leaf
    content = trees.read_bytes().replace(root, (1 << 28).to_bytes(4, "little") + root[4:])
    assert content != trees.read_bytes()
    trees.write_bytes(content)
    manifest["files"][TREES]["sha256"] = digest(content)
    (path / MANIFEST).write_text(json.dumps(manifest))

    checked = Loader(sandbox=sandbox)(Folder(tmp_path).scan().versions["forest"][1])

    reasons = {drop.name: drop.reason for drop in checked.dropped}
    assert "the engine treelite was not opened: the process that tries files out ended by SIG" in reasons["treelite"]
    assert (checked.engine.run(Matrix(_X), ("predict",))["predict"] == forest.predict(_X)).all()


def test_compiled_engine_that_is_sound_is_used(sandbox: Sandbox, tmp_path: Path) -> None:
    export(RandomForestClassifier(3, random_state=0).fit(_X, _Y), _X, name="forest", repository=tmp_path)

    checked = Loader(sandbox=sandbox)(Folder(tmp_path).scan().versions["forest"][1])

    assert "treelite" in {engine["name"] for engine in checked.engine.describe()}


def test_refusals_are_told_as_they_would_be_here(sandbox: Sandbox, tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    with pytest.raises(UntrustedNames) as untrusted:
        sandbox.try_out("model.joblib", dumped(Command(str(canary))), ())
    with pytest.raises(ModelFileUnreadable, match="claims 4294967296 bytes"):
        sandbox.try_out("model.joblib", array_file((2**29,)), ())

    assert untrusted.value.names == ("posix.system",)
    assert not canary.exists()


@fault(
    "M09", sent="a file of a few KB that unpacks to 400 MB", expected="refused in the load sandbox; server unaffected"
)
def test_bomb_fills_the_memory_of_the_child_alone() -> None:
    packer = zlib.compressobj(1)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(400)) + packer.flush()
    small = Sandbox(memory_bytes=350 << 20, seconds=60)

    try:
        with pytest.raises(SandboxRefused, match=r"more than 367001600 bytes of memory.*TANDEM_SANDBOX_BYTES"):
            small.try_out("model.joblib", bomb, ())
    finally:
        small.close()


def test_file_that_cannot_fit_starts_no_child() -> None:
    small = Sandbox(memory_bytes=1000, seconds=60)

    with pytest.raises(SandboxRefused, match="more than 1000 bytes"):
        small.try_out("model.joblib", bytes(400), ())

    assert small._child is None


def test_file_that_takes_too_long_is_refused() -> None:
    hasty = Sandbox(memory_bytes=1 << 30, seconds=4)

    with pytest.raises(SandboxRefused, match="had no answer within 4 s"):
        hasty.try_out("model.joblib", dumped(Sleeper()), _TRUST)

    assert hasty._child is None


def test_no_file_is_written_there(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "written"

    with pytest.raises(ModelFileUnreadable, match="File too large"):
        sandbox.try_out("model.joblib", dumped(Nosy("write", str(path))), _TRUST)

    assert not path.exists() or path.read_bytes() == b""


def test_keys_in_the_environment_are_not_known_there(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hush")
    sandbox.rest()

    with pytest.raises(ModelFileUnreadable, match=r"KeyError\('SECRET'\)"):
        sandbox.try_out("model.joblib", dumped(Nosy("look_up", "SECRET")), _TRUST)


def test_there_is_no_network_where_the_kernel_lets_it_go(sandbox: Sandbox) -> None:
    allowed = subprocess.run(
        [sys.executable, "-c", "import ctypes; u = ctypes.CDLL(None).unshare; exit(bool(u(1 << 30) and u(5 << 28)))"],
        check=False,
    )
    if allowed.returncode != 0:
        pytest.skip("this kernel lets nobody leave the network")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(ModelFileUnreadable, match="unreachable"):
            sandbox.try_out("model.joblib", dumped(Nosy("connect", port)), _TRUST)


@pytest.mark.parametrize(
    ("deed", "how"),
    [(("end", int(signal.SIGABRT)), "ended by SIGABRT"), (("leave", 3), "ended with status 3")],
)
def test_whatever_ends_the_child_is_told(deed: tuple[Any, ...], how: str, sandbox: Sandbox) -> None:
    with pytest.raises(SandboxRefused, match=how):
        sandbox.try_out("model.joblib", dumped(Nosy(*deed)), _TRUST)


def test_closing_ends_a_child_at_work() -> None:
    sandbox = Sandbox(memory_bytes=1 << 30, seconds=60)
    ended: list[str] = []

    def work() -> None:
        try:
            sandbox.try_out("model.joblib", dumped(Nosy("spin")), _TRUST)
        except SandboxRefused as error:
            ended.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    while sandbox._child is None:
        time.sleep(0.01)
    sandbox.rest()  # it is at work, and stays
    sandbox.close()
    thread.join(30)

    assert "ended by SIGKILL" in ended[0]


def test_child_ends_with_its_parent() -> None:
    code = (
        "import sys, os; from service.loading.sandbox import Sandbox, _Child\n"
        "child = _Child(1 << 30, 60)\nprint(child.process.pid, flush=True)\nos._exit(0)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    until = time.monotonic() + 30
    while _is_alive(int(done.stdout)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _is_alive(int(done.stdout))


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False
