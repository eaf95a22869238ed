"""What a person types: one file served in one command, and names that end up in files and commands."""

from __future__ import annotations

import hashlib
import itertools
import shlex
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx
import joblib
import numpy as np
import pytest
from packaging.requirements import Requirement
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeRegressor

from service.core.artefact_errors import NameInvalid
from service.core.names import check_name
from tests.conformance.servers import free_port, tandem, tandem_serve
from tests.faults.cases import Came, fault
from training.export import export

_X = np.arange(12.0).reshape(6, 2)
_ODD = ("a\nb", "a b", "$(reboot)", "`id`", "a;b", "a'b", 'a"b', "a\\b", "a|b", "{a}", "../a", "a/b", "%n", "a\x00", "")


@fault("L01", sent="tandem serve churn.joblib", expected="it answers; digest, versions and a warning are printed")
def test_file_is_served_in_one_command(tmp_path: Path, came: Came) -> None:
    path = tmp_path / "churn.joblib"
    joblib.dump(LinearRegression().fit(_X, _X[:, 0]), path)

    with tandem_serve(str(path), log=tmp_path / "log", environment={"TANDEM_SANDBOX": "true"}) as server:
        reply = httpx.post(f"{server.url}/predict", json={"instances": [[1.0, 2.0]]}, timeout=20, trust_env=False)
        told = server.told()

    came(reply.status_code)
    assert reply.json()["predictions"] == pytest.approx([1.0])
    assert f"churn: sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}, scikit-learn " in told
    assert "Warning: a joblib file is code that runs when it is opened" in told


@fault(
    "M30", sent="tandem serve FILE whose tree crashes at its first row", expected="refused; the command ends by itself"
)
def test_file_that_crashes_is_not_served(tmp_path: Path, came: Came) -> None:
    tree = DecisionTreeRegressor().fit(_X, _X[:, 0])
    state = tree.tree_.__getstate__()
    state["nodes"]["feature"][0] = 1 << 40
    tree.tree_.__setstate__(state)
    joblib.dump(tree, tmp_path / "churn.joblib")

    command = ("serve", str(tmp_path / "churn.joblib"), "--port", str(free_port()))
    done = tandem(*command, environment={"TANDEM_SANDBOX": "true"})

    came(done.stderr.strip())
    assert done.returncode == 1
    assert "Error: churn.joblib was not opened: the process that tries files out ended by SIG" in done.stderr


@fault("L06", sent="names of models with newlines, spaces, quotes and shell characters", expected="refused")
@pytest.mark.parametrize("name", _ODD)
def test_odd_name_never_reaches_a_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(NameInvalid):
        check_name(name)
    with pytest.raises(NameInvalid):
        export(LinearRegression().fit(_X, _X[:, 0]), _X, name=name, repository=tmp_path / "models")

    assert not (tmp_path / "models").exists()


@fault("L06", sent="further files of a version called ../x, a/b, or like one of its own", expected="refused")
@pytest.mark.parametrize("file", ["../x", "a/b", "manifest.json", "model.joblib", "model.skops", "golden.json"])
def test_odd_file_is_not_written(file: str, tmp_path: Path) -> None:
    with pytest.raises(NameInvalid, match="cannot be the name of a further file"):
        export(
            LinearRegression().fit(_X, _X[:, 0]), _X, name="churn", repository=tmp_path / "models", files={file: b"x"}
        )

    assert not (tmp_path / "models").exists()


@fault("L06", sent="a folder with quotes, spaces and $() in its name", expected="the command that is printed is quoted")
def test_printed_command_is_what_a_shell_reads_back(tmp_path: Path, came: Came) -> None:
    folder, file, sample = tmp_path / "it's $(reboot) `id`", tmp_path / "m.joblib", tmp_path / "sample.npy"
    joblib.dump(LinearRegression().fit(_X, _X[:, 0]), file)
    np.save(sample, _X)

    done = tandem("export", str(file), "--name", "churn", "--sample", str(sample), "--models", str(folder))

    assert done.returncode == 0, done.stderr
    command = next(line for line in done.stdout.splitlines() if line.startswith("serve it"))
    came(command.removeprefix("serve it").strip().replace(str(tmp_path), "…"))
    assert shlex.split(command.removeprefix("serve it"))[-1] == str(folder)


def _requirements() -> list[Requirement]:
    """Of the service and its extras, by library: a library may be asked for twice, with a floor and with a ceiling."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *itertools.chain.from_iterable(project["optional-dependencies"].values())]
    found: dict[str, Requirement] = {}
    for some in map(Requirement, listed):
        if some.marker is None or some.marker.evaluate():
            found.setdefault(some.name, some).specifier &= some.specifier
    return list(found.values())


@fault("L04", sent="the libraries that are installed", expected="each has a floor, and none is below it")
@pytest.mark.parametrize("requirement", _requirements(), ids=str)
def test_library_is_not_below_its_floor(requirement: Requirement) -> None:
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        pytest.skip(f"{requirement.name} is not installed")

    assert any(specifier.operator in (">=", "==", "~=") for specifier in requirement.specifier), requirement
    assert requirement.specifier.contains(installed, prereleases=True), f"{requirement}: {installed}"
