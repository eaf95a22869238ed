"""Model files that are attacks, each as a version of a running server beside a good one."""

from __future__ import annotations

import io
import json
import pickle
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from joblib.numpy_pickle_compat import NDArrayWrapper
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeRegressor

from service.repository.manifest import GOLDEN, MANIFEST, MODEL, digest
from service.repository.model_file import SKOPS
from service.repository.skops_file import dump_skops
from tests.conformance.servers import CLIENT, Running, tandem_serve
from tests.faults.cases import Came, fault
from tests.service.repository.attacks import Command, array_file, attacks, dumped, model, unreadable
from training.export import export

_X: Final = np.arange(12.0).reshape(6, 2)
_GOOD: Final = {"instances": [[1.0, 2.0]]}


@dataclass(frozen=True, slots=True)
class Attacked:
    """A server whose repository holds a good model and `codes`: why each version was refused, by model."""

    server: Running
    canary: Path
    codes: Mapping[str, str]

    def is_well(self) -> None:
        assert self.server.process.poll() is None, self.server.told()
        reply = CLIENT.post(f"{self.server.url}/models/good/predict", json=_GOOD, timeout=20)
        assert reply.status_code == 200, reply.text
        assert reply.json()["predictions"] == pytest.approx([1.0])
        assert not self.canary.exists()


def _files(canary: str) -> dict[str, dict[str, bytes]]:
    """By name, the model file of a version that attacks, under its name; some with a file beside it."""
    packer = zlib.compressobj(1)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(500)) + packer.flush()
    tree = DecisionTreeRegressor().fit(_X, _X[:, 0])
    state = tree.tree_.__getstate__()
    state["nodes"]["feature"][0] = 1 << 40
    tree.tree_.__setstate__(state)
    command = io.BytesIO()
    np.save(command, np.array([Command(canary)], dtype=object), allow_pickle=True)
    beside = {
        MODEL: pickle.dumps(NDArrayWrapper("model.joblib_01.npy", np.ndarray)),
        "model.joblib_01.npy": command.getvalue(),
    }
    return {
        **{f"foreign {name}": {MODEL: data} for name, data in attacks(canary).items()},
        **{f"odd {name}": {MODEL: data} for name, data in unreadable(canary).items()},
        "side file with a command": beside,
        "zlib bomb": {MODEL: bomb},
        "tree out of bounds": {MODEL: dumped(tree)},
        "pickle called skops": {SKOPS: dumped(Command(canary))},
        "harmless pickle called skops": {SKOPS: dumped(model())},
        "skops called joblib": {MODEL: dump_skops(model())},
        "pickle called onnx": {"onnx.onnx": dumped(Command(canary))},
    }  # fmt: skip


def _publish(repository: Path, good: Path, name: str, files: Mapping[str, bytes]) -> None:
    """A copy of the good version under another name with `files` in place of its engines and model file."""
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    manifest: dict[str, Any] = json.loads((good / MANIFEST).read_bytes())
    contents = {GOLDEN: (good / GOLDEN).read_bytes(), **files}
    engines = manifest["engines"] if "onnx.onnx" in files else []
    manifest |= {
        "name": name,
        "engines": engines,
        "files": {file: {"sha256": digest(content), "bytes": len(content)} for file, content in contents.items()},
    }
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    pytest.importorskip("skops.io", reason="skops is an extra")
    repository, canary = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("canary") / "canary"
    estimator = LinearRegression().fit(_X, _X[:, 0])
    good = export(estimator, _X, name="good", repository=repository).path
    names = {}
    for number, (attack, files) in enumerate(_files(str(canary)).items()):
        names[f"attack-{number}"] = attack
        _publish(repository, good, f"attack-{number}", files)
    log = tmp_path_factory.mktemp("log") / "log"
    with tandem_serve(
        *("--models", str(repository)),
        log=log,
        environment={"TANDEM_SANDBOX": "true", "TANDEM_SANDBOX_BYTES": str(400 << 20)},
    ) as server:
        listed = CLIENT.get(f"{server.url}/models", timeout=20).json()["models"]
        codes = {names[row["name"]]: row["codes"]["1"] for row in listed if row["name"] in names}
        yield Attacked(server, canary, codes)


@fault(
    "M07",
    sent="a forbidden global at the start, after an array, in object arrays, nested, as a key, by way of the memo, "
    "under each compression and protocol, by joblib's old side files",
    expected="refused before any side effect; the canary never appears",
)
def test_forbidden_globals_are_refused(attacked: Attacked, came: Came) -> None:
    found = {name: code for name, code in attacked.codes.items() if name.startswith("foreign ")}

    came(f"{len(found)} files: {', '.join(sorted(set(found.values())))}")
    assert set(found) == {f"foreign {name}" for name in attacks("")}
    assert set(found.values()) == {"untrusted-names"}
    assert attacked.codes["side file with a command"] == "model-file-unreadable"
    attacked.is_well()


@fault(
    "M08",
    sent="INST, OBJ, EXT, persistent ids, two pickles, trailing bytes, damaged dtypes, deep and shared tuples",
    expected="refused",
)
def test_tricks_of_pickles_are_refused(attacked: Attacked, came: Came) -> None:
    found = {name: code for name, code in attacked.codes.items() if name.startswith("odd ")}

    came(f"{len(found)} files: {', '.join(sorted(set(found.values())))}")
    assert set(found) == {f"odd {name}" for name in unreadable("")}
    assert set(found.values()) == {"model-file-unreadable"}
    attacked.is_well()


@fault(
    "M09",
    sent="a file of some 300 bytes that claims a 4 GB array, zero-size and negative shapes, a zlib bomb of 500 MB",
    expected="refused in the load sandbox; server unaffected",
)
def test_bombs_are_refused(attacked: Attacked, came: Came) -> None:
    assert len(array_file((2**29,))) < 512
    kinds = ("odd 4 GB array", "odd overflowing array", "odd negative shape", "odd zero-size values", "zlib bomb")

    came(*(attacked.codes[kind] for kind in kinds))
    assert [attacked.codes[kind] for kind in kinds] == ["model-file-unreadable"] * 4 + ["sandbox-refused"]
    attacked.is_well()


@fault(
    "M11",
    sent="a pickle called model.skops or onnx.onnx, a zip archive called model.joblib",
    expected="refused: content decides and must be what the name declares",
)
def test_content_must_be_of_the_declared_format(attacked: Attacked, came: Came) -> None:
    kinds = ("pickle called skops", "harmless pickle called skops", "skops called joblib")

    came(*(attacked.codes[kind] for kind in kinds), attacked.codes["pickle called onnx"])
    assert [attacked.codes[kind] for kind in kinds] == ["model-file-unreadable"] * 3
    assert attacked.codes["pickle called onnx"] == "engine-missing"
    attacked.is_well()


@fault(
    "M30",
    sent="a tree whose nodes ask for a column that is not there, which reads beyond the rows",
    expected="the crash stays in the load sandbox; the version is refused",
)
def test_crash_of_native_code_stays_in_the_sandbox(attacked: Attacked, came: Came) -> None:
    came(attacked.codes["tree out of bounds"])
    assert attacked.codes["tree out of bounds"] == "sandbox-refused"
    attacked.is_well()


@fault("M07", sent="joblib's own reader on the same files", expected="the canary appears: the attacks are real")
def test_the_attacks_would_work_on_a_careless_reader(tmp_path: Path, came: Came) -> None:
    import joblib

    canary = tmp_path / "canary"
    joblib.load(io.BytesIO(attacks(str(canary))["inside an object array"]))

    came("the canary appeared")
    assert canary.exists()
