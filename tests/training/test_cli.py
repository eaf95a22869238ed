from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import joblib
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from sklearn.linear_model import LinearRegression

from training import cli
from training.cli import tandem

SAMPLE = pd.DataFrame({"rooms": [1.0, 2.0, 3.0], "area": [30.0, 50.0, 90.0], "price": [100.0, 180.0, 300.0]})


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(tandem, [str(argument) for argument in arguments])


@pytest.fixture
def fitted(tmp_path: Path) -> Path:
    path = tmp_path / "model.joblib"
    joblib.dump(LinearRegression().fit(SAMPLE[["rooms", "area"]], SAMPLE["price"]), path)
    SAMPLE.to_csv(tmp_path / "data.csv", index=False)
    return path


def test_train_prints_where_the_version_is_and_how_good(tmp_path: Path) -> None:
    result = run("train", "iris", "--name", "iris", "--models", tmp_path, "--set", "n_estimators=10")

    assert result.exit_code == 0
    assert str(tmp_path / "iris" / "1") in result.stdout
    assert "accuracy 0." in result.stdout
    assert "predict, predict_proba" in result.stdout
    assert "Fit RandomForestClassifier on 112 rows" in result.stderr


def test_train_prints_the_columns_it_did_not_use(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    pd.DataFrame({"id": [f"C{i}" for i in range(40)], "a": range(40), "y": [0, 1] * 20}).to_csv(path, index=False)

    result = run("train", path, "--name", "m", "--target", "y", "--estimator", "logistic", "--models", tmp_path)

    assert "not used  id: text with 40 distinct values" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["absent.csv"], "there is no file 'absent.csv'", id="absent file"),
        pytest.param(["iris", "--device", "gpu"], "--device gpu needs", id="gpu"),
        pytest.param(["iris", "--estimator", "magic"], "there is no estimator 'magic'", id="unknown estimator"),
        pytest.param(["iris", "--set", "depth"], "not of the form NAME=VALUE", id="parameter without value"),
    ],
)
def test_train_says_in_a_line_what_is_wrong(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run("train", *arguments, "--name", "m", "--models", tmp_path)

    assert result.exit_code != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_train_names_the_libraries_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == "rich" else object())

    result = run("train", "iris", "--name", "m")

    assert result.exit_code == 1
    assert "training needs rich: pip install 'tandem-serving[train]'" in result.stderr


def test_values_of_parameters_are_python_literals_or_else_text(tmp_path: Path) -> None:
    given = ["--set", "kernel=poly", "--set", "degree=2", "--set", "shrinking=False"]

    run("train", "iris", "--name", "m", "--estimator", "svm", *given, "--models", tmp_path)

    svm = joblib.load(tmp_path / "m" / "1" / "model.joblib")[-1]
    assert (svm.kernel, svm.degree, svm.shrinking) == ("poly", 2, False)


def test_export_publishes_a_fitted_estimator_with_a_card(fitted: Path, tmp_path: Path) -> None:
    result = run("export", fitted, "--name", "flats", "--sample", tmp_path / "data.csv", "--target", "price",
                 "--models", tmp_path, "--version", "3")  # fmt: skip

    assert result.exit_code == 0
    assert "flats 3" in result.stdout
    assert "outputs   predict" in result.stdout
    assert "engine    cuml: predict; on a GPU, once it is proven there" in result.stdout
    assert (tmp_path / "flats" / "3" / "card.html").exists()


@pytest.mark.parametrize(
    ("format", "told", "card"),
    [
        ("joblib", "model.joblib", "The estimator itself is kept as a joblib file."),
        ("skops", "model.skops", "The estimator itself is kept as a skops file."),
        ("compiled", "none: compiled only", "Compiled only: the estimator itself is not in this folder"),
    ],
)
def test_export_keeps_the_estimator_as_it_is_told(
    format: str, told: str, card: str, fitted: Path, tmp_path: Path
) -> None:
    pytest.importorskip("skops.io", reason="skops is an extra")

    result = run("export", fitted, "--name", "flats", "--sample", tmp_path / "data.csv", "--target", "price",
                 "--models", tmp_path, "--format", format)  # fmt: skip

    assert result.exit_code == 0, result.output
    assert f"file      {told}" in result.stdout
    assert card in (tmp_path / "flats" / "1" / "card.html").read_text()
    kept = {path.name for path in (tmp_path / "flats" / "1").iterdir()} & {"model.joblib", "model.skops"}
    assert kept == {told} - {"none: compiled only"}


def test_export_signs_with_the_key_that_it_is_given(fitted: Path, tmp_path: Path) -> None:
    run("keys", "create", tmp_path / "mine")

    exported = run("export", fitted, "--name", "flats", "--sample", tmp_path / "data.csv", "--target", "price",
                   "--models", tmp_path / "models", "--sign", tmp_path / "mine.key")  # fmt: skip
    verified = run("verify", "flats", "--trusted-key", tmp_path / "mine.pub", "--models", tmp_path / "models")

    assert (exported.exit_code, verified.exit_code) == (0, 0)
    assert "flats 1: signed by" in verified.stdout


def test_export_with_what_is_no_key_writes_nothing(fitted: Path, tmp_path: Path) -> None:
    result = run("export", fitted, "--name", "flats", "--sample", tmp_path / "data.csv", "--target", "price",
                 "--models", tmp_path / "models", "--sign", tmp_path / "data.csv")  # fmt: skip

    assert result.exit_code == 1
    assert "data.csv is no private key" in result.stderr
    assert not (tmp_path / "models").exists()


def test_export_needs_a_sample(fitted: Path) -> None:
    result = run("export", fitted, "--name", "flats")

    assert result.exit_code == 2
    assert "--sample is needed" in result.stderr


def test_export_opens_no_code_that_is_not_trusted(tmp_path: Path) -> None:
    joblib.dump(subprocess.Popen, tmp_path / "model.joblib")

    result = run("export", tmp_path / "model.joblib", "--name", "m", "--sample", "data.csv")

    assert result.exit_code == 1
    assert "--trust subprocess.Popen" in result.stderr


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    code = (
        "import sys, training.cli; "
        "print([n for n in ('sklearn', 'pandas', 'matplotlib', 'rich', 'pyarrow') if n in sys.modules])"
    )

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert out.strip() == "[]"


def test_the_module_is_the_train_command(tmp_path: Path) -> None:
    out = subprocess.run(
        [sys.executable, "-m", "training", "--help"], capture_output=True, text=True, check=True
    ).stdout

    assert out.startswith("Usage: tandem train")
