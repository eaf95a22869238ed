"""What `tandem inspect` shows: a version as this machine would serve it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.core.errors import UnknownModel, UnknownVersion
from service.loading.loader import Checked
from service.repository.model_file import model_file
from service.repository.policy import served_version
from service.repository.sources import Folder, Found


def find_version(models: Path, name: str, version: int | None) -> Found:
    """A version on disk; None means the one that plain requests get.

    Raises:
        UnknownModel, UnknownVersion: it is not there.
    """
    if not models.is_dir():
        raise UnknownModel(f"there is no folder {str(models)!r}; name another with --models")
    snapshot = Folder(models).scan()
    versions = snapshot.versions.get(name, {})
    number = served_version(versions, snapshot.labels.get(name, {})) if version is None else version
    if number is None:
        raise UnknownModel(f"there is no model {name!r} in {str(models)!r}")
    if number not in versions:
        raise UnknownVersion(name, sorted(versions))
    return versions[number]


def as_text(checked: Checked) -> str:
    """Facts, outputs, and the engines with their cost on this machine, for a person."""
    manifest, about = checked.manifest, checked.about()
    signature = manifest.signature
    lines = [
        f"{manifest.name} {manifest.version}",
        f"  estimator  {manifest.estimator}",
        f"  exported   {manifest.created} by {manifest.exporter}",
        f"  model file {model_file(manifest) or 'none: compiled only'}",
        f"  columns    {len(signature.columns)}: {_listed(signature.names)}",
        *(f"  output     {output.name}: {_shape(output.dtype, output.shape)}" for output in signature.outputs),
        *(f"  left out   {name}: {reason}" for name, reason in (signature.left_out or {}).items()),
        "",
        *_table(about["engines"]),
    ]
    if about["dropped_engines"]:
        lines += ["", "not kept:"]
        for drop in about["dropped_engines"]:
            output = f", {drop['output']}" if "output" in drop else ""
            lines.append(f"  {drop['name']}{output}: {drop['reason']}")
    return "\n".join(lines)


def _table(engines: Sequence[dict[str, Any]]) -> list[str]:
    """A line per engine: outputs, how far they are from the estimator's, and microseconds by number of rows."""
    sizes = sorted({int(rows) for engine in engines for rows in engine.get("seconds") or {}})
    head = ["engine", "outputs (largest relative difference)", *(f"{rows} row{'s' * (rows > 1)}" for rows in sizes)]
    body = [
        [
            engine["name"],
            ", ".join(_agreement(name, engine) for name in engine["outputs"]),
            *(_microseconds(engine, rows) for rows in sizes),
        ]
        for engine in engines
    ]
    widths = [max(len(row[column]) for row in [head, *body]) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *body]
    ]


def _agreement(name: str, engine: dict[str, Any]) -> str:
    size = engine.get("agreement", {}).get(name)
    return name if size is None else f"{name} ({size:.1g})"


def _microseconds(engine: dict[str, Any], rows: int) -> str:
    seconds = engine.get("seconds")
    if not seconds:
        return "closed"
    return f"{seconds[str(rows)] * 1e6:,.0f} µs" if str(rows) in seconds else "-"


def _shape(dtype: str, shape: Sequence[int]) -> str:
    return f"{dtype}, {' × '.join(map(str, shape))} a row" if shape else dtype


def _listed(names: Sequence[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
