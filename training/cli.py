"""The command line: what `service.cli` has, and `train` and `export`.

Libraries are imported where a command needs them, so that `tandem --help` answers at once.
"""

from __future__ import annotations

import ast
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli import main, tandem

if TYPE_CHECKING:
    from service.core.rules import Fidelity
    from service.repository.manifest import DroppedEngine, EngineEntry
    from service.repository.model_file import Format
    from training.export import ExportedModel

__all__ = ["export", "main", "tandem", "to_mlflow", "train"]


def parameters(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """`("n_estimators=200", "kernel=rbf")` as a dict: a value that is no Python literal is text."""
    parsed = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{pair!r} is not of the form NAME=VALUE", context, option)
        try:
            parsed[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parsed[name] = value
    return parsed


MODELS = click.option(
    "--models", type=click.Path(path_type=Path), default=Path("models"), show_default=True, help="Where versions go."
)
NAME = click.option("--name", required=True, help="Of the model, as it stands in URLs.")
FIDELITY = click.option(
    "--fidelity",
    type=click.Choice(["close", "exact"]),
    default="close",
    show_default=True,
    help="Keep compiled engines that agree within 1e-5, or only those within 1e-12.",
)
FORMAT = click.option(
    "--format",
    type=click.Choice(["joblib", "skops", "compiled"]),
    default="joblib",
    show_default=True,
    help="How the estimator is kept beside what is compiled: skops builds no type that nobody trusts, compiled leaves "
    "it out.",
)
VERSION = click.option("--version", type=click.IntRange(1), help="[default: the next free number]")


@tandem.command()
@click.argument("data")
@click.option("--target", metavar="COLUMN", help="The column to predict. Built-in sets have one of their own.")
@NAME
@click.option(
    "--estimator",
    default="auto",
    show_default=True,
    help="logistic, random-forest, hist-boosting, …, or any scikit-learn class. "
    "auto is a random forest, from 10 000 rows on histogram gradient boosting.",
)
@click.option(
    "--set",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    callback=parameters,
    help="A parameter of the estimator. Repeatable.",
)
@click.option("--drop", multiple=True, metavar="COLUMN", help="A column the model shall not see. Repeatable.")
@click.option(
    "--test-size",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.25,
    show_default=True,
    help="Share of rows held out for the score.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "gpu"]),
    default="auto",
    show_default=True,
    help="gpu fits the last step with cuML, which gives another model than scikit-learn; auto fits on the CPU.",
)
@FIDELITY
@MODELS
@VERSION
def train(data: str, device: str, models: Path, **options: Any) -> None:
    """Fit a pipeline to DATA, score it, and export it.

    DATA is iris, wine, breast_cancer, digits or diabetes, or a CSV, TSV or Parquet file.
    """
    if missing := [name for name in ("rich", "matplotlib", "jinja2") if find_spec(name) is None]:
        raise click.ClickException(f"training needs {', '.join(missing)}: pip install 'tandem-serving[train]'")
    with progress() as step:
        from training.train import train as run

        trained = run(data, repository=models, step=step, device="gpu" if device == "gpu" else "cpu", **options)
    lines = [("not used", f"{column}: {reason}") for column, reason in trained.dropped.items()]
    lines += [("note", note) for note in trained.notes]
    scores = ", ".join(f"{name} {value:.4g}" for name, value in trained.scores.items())
    tell(trained.exported, models, [("scores", scores), *lines])


@tandem.command()
@click.argument("model_file", type=click.Path(exists=True, path_type=Path))
@NAME
@FORMAT
@click.option(
    "--sample",
    type=click.Path(path_type=Path),
    help="Rows of its input (CSV, TSV, Parquet or NPY): column types, categories and golden rows come from them. "
    "Of an MLflow model the input example, where there is one, will do.",
)
@click.option("--target", metavar="COLUMN", help="Column of the sample that is the target, not an input.")
@click.option("--trust", multiple=True, metavar="NAME", help="Code beyond the allow-list that the file may use.")
@click.option("--sign", type=click.Path(path_type=Path), metavar="KEYFILE", help="Sign the version with this key.")
@FIDELITY
@MODELS
@VERSION
def export(
    model_file: Path,
    name: str,
    sample: Path | None,
    target: str | None,
    trust: tuple[str, ...],
    sign: Path | None,
    fidelity: Fidelity,
    format: Format,
    models: Path,
    version: int | None,
) -> None:
    """Export the fitted estimator or pipeline in MODEL_FILE: joblib, pickle, skops, or an MLflow model's folder."""
    from service.repository.model_file import open_estimator
    from service.repository.signing import read_signer
    from service.runtimes.structure import estimator_name
    from training.data import load_sample
    from training.export import export as run
    from training.mlflow_folder import read_mlflow
    from training.report import CARD, Facts, card

    X = y = None
    signer = read_signer(sign) if sign is not None else None
    if model_file.is_dir():
        estimator, X = read_mlflow(model_file, trust)
    else:
        estimator = open_estimator(model_file.name, model_file.read_bytes(), trust)
    if sample is not None:
        X, y = load_sample(sample, estimator, target)
    if X is None:
        raise click.UsageError("--sample is needed: column types, categories and golden rows come from it")
    facts = Facts(name, estimator_name(estimator), f"Fitted elsewhere, read from {model_file.name}.", format=format)
    exported = run(
        estimator,
        X,
        name=name,
        repository=models,
        y=y if hasattr(estimator, "score") else None,
        version=version,
        files=lambda described, proven: {CARD: card(facts, described, proven)},
        fidelity=fidelity,
        format=format,
        signer=signer,
    )
    tell(exported, models)


@tandem.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--version", type=click.IntRange(1), help="[default: the one that plain requests get]")
@click.option("--trust", multiple=True, metavar="NAME", help="A name beyond the allow-list, as for serve.")
@click.option("--models", type=click.Path(path_type=Path), default=Path("models"), show_default=True)
def to_mlflow(name: str, folder: Path, version: int | None, trust: tuple[str, ...], models: Path) -> None:
    """Write a version of model NAME as an MLflow model: FOLDER is what `mlflow models serve -m` takes."""
    from service.inspection import find_version
    from training.mlflow_folder import write_mlflow

    manifest = write_mlflow(find_version(models, name, version), folder, trust)
    click.echo(f"{folder} is {manifest.name} {manifest.version}")


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """One line for each step on stderr, with a bar that moves and a clock that runs, also during a long fit."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}", markup=False))
    with Progress(*columns, BarColumn(24), TimeElapsedColumn(), console=Console(stderr=True)) as shown:

        def step(said: str) -> None:
            finish()
            shown.add_task(said, total=None)

        def finish() -> None:
            for task in shown.task_ids[-1:]:
                shown.update(task, total=1, completed=1)

        yield step
        finish()


def tell(exported: ExportedModel, models: Path, more: list[tuple[str, str]] | None = None) -> None:
    """What was written, for a person: one fact a line."""
    from service.repository.model_file import model_file

    signature, trust = exported.signature, exported.manifest.trust
    trusted = "".join(f" --trust {shlex.quote(name)}" for name in trust)
    lines = [
        ("version", f"{exported.name} {exported.version}"),
        ("folder", str(exported.path)),
        *(more or []),
        ("outputs", ", ".join(signature.output_names)),
        ("file", model_file(exported.manifest) or "none: compiled only"),
        *(("engine", _engine(some)) for some in exported.manifest.engines),
        *(("no engine", _dropped(some)) for some in exported.manifest.dropped),
        *(("left out", f"{name}: {reason}") for name, reason in (signature.left_out or {}).items()),
        ("serve it", f"tandem serve --models {shlex.quote(str(models))}{trusted}"),
    ]
    for label, text in lines:
        click.echo(f"{label:<10}{text}")


def _engine(some: EngineEntry) -> str:
    from service.loading.engines import unproven

    if outputs := unproven(some):
        return f"{some.name}: {', '.join(outputs)}; on a GPU, once it is proven there"
    return f"{some.name}: {', '.join(some.agreement)}"


def _dropped(some: DroppedEngine) -> str:
    return f"{some.name}{', ' + some.output if some.output else ''}: {some.reason}"
