"""Golden rows: questions with the estimator's own answers, asked again of whatever is to answer in its place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from service.core.agreement import Difference, largest_difference
from service.core.contracts import Engine
from service.core.errors import CannotAnswer
from service.core.signature import Signature
from service.core.table import Table, Values, take
from service.protocols.native import PLURAL, Exchange, first_record, write_columns, write_outputs

# Fidelity `exact`: what two correct ways to add up float64 numbers may differ by.
EXACT_RTOL: Final = 1e-12
# Fidelity `close`: single precision, with room for sums.
CLOSE_RTOL: Final = 1e-5


@dataclass(frozen=True, slots=True)
class Asked:
    """Rows and, per output, one recorded answer a row, in the form JSON has it."""

    rows: Table
    answers: dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Golden:
    """Rows of the data scientist's sample, which whoever loads the model must repeat, and hard ones.

    Those were made to tell engines apart, and lie where rounding decides. They are a request of their own:
    a missing value among them makes another array of its column.
    """

    sample: Asked
    hard: Asked | None
    example: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Recorded:
    """Rows, and what the estimator answered: `outputs` hold values for these rows."""

    rows: Table
    outputs: dict[str, Values]


def write_golden(sample: Recorded, hard: Recorded | None, signature: Signature) -> bytes:
    """`golden.json`: a request as a client would send it, the reply for each output; and the same for the hard rows."""
    content = _write(sample, signature)
    if hard is not None:
        content["hard"] = _write(hard, signature)
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _write(recorded: Recorded, signature: Signature) -> dict[str, Any]:
    return {
        "request": {"columns": write_columns(recorded.rows, signature)},
        "replies": {name: write_outputs({name: values}, signature) for name, values in recorded.outputs.items()},
    }


def read_golden(content: bytes, signature: Signature) -> Golden:
    """Raises ValueError, KeyError or TandemError where the file does not fit the signature."""
    recorded = orjson.loads(content)
    hard = recorded.get("hard")
    return Golden(
        sample=_read(recorded, signature),
        hard=None if hard is None else _read(hard, signature),
        example=first_record(recorded["request"]["columns"]),
    )


def _read(recorded: dict[str, Any], signature: Signature) -> Asked:
    rows = Exchange(orjson.dumps({"columns": recorded["request"]["columns"]})).read(signature).rows
    answers = {name: by_row(recorded["replies"][name], name) for name in signature.output_names}
    for name, said in answers.items():
        if len(said) != rows.n_rows:
            raise ValueError(f"{name} has {len(said)} answers for {rows.n_rows} rows")
    return Asked(rows, answers)


def compare(
    engine: Engine, golden: Golden, signature: Signature, output: str, *, sample_only: bool = False
) -> Difference:
    """Ask `engine` for `output` of the golden rows; the largest difference from what was recorded.

    Rows that it passes on to another engine (CannotAnswer) count as equal: it will not answer them.
    What else it raises is raised.
    """
    parts = [golden.sample] if sample_only or golden.hard is None else [golden.sample, golden.hard]
    return max((_compare(engine, part, signature, output) for part in parts), key=lambda found: found.size)


def answered(engine: Engine, rows: Table, output: str) -> tuple[NDArray[np.intp], dict[str, Values]]:
    """Which rows `engine` answers rather than passes on (CannotAnswer), and its answers for those.

    The rows are as they were. What else it raises is raised.
    """
    wanted = np.arange(rows.n_rows)
    try:
        # Taken anew: an estimator may work in place on its rows (copy=False).
        return wanted, engine.run(take(rows, wanted), (output,))
    except CannotAnswer as error:
        wanted = np.flatnonzero(~error.rows)
    return wanted, engine.run(take(rows, wanted), (output,)) if wanted.size else {}


def _compare(engine: Engine, asked: Asked, signature: Signature, output: str) -> Difference:
    wanted, values = answered(engine, asked.rows, output)
    if not wanted.size:
        return Difference(0.0)
    written = orjson.dumps(write_outputs(values, signature), option=orjson.OPT_SERIALIZE_NUMPY)
    expected = [asked.answers[output][row] for row in wanted]
    found = largest_difference(expected, by_row(orjson.loads(written), output))
    if found.size and output == "predict" and signature.output(output).classes is not None:
        return Difference(math.inf, found.where)  # a label that is a number is still a label
    return found


def by_row(reply: dict[str, Any], output: str) -> list[Any]:
    """What a reply of many rows says of each row, with the words for what its nulls were put back."""
    key = PLURAL.get(output, output)
    content = reply[key]
    for lost in reply.get("non_finite", ()):
        if lost["output"] == key:
            _put(content, lost["at"], lost["value"])
    if not isinstance(content, dict):
        return list(content)
    ends: Sequence[int] = content["indptr"]
    width = content["shape"][1]
    return [[width, content["indices"][start:end], content["data"][start:end]] for start, end in pairwise(ends)]


def _put(content: Any, path: Sequence[int | str], value: str) -> None:
    for step in path[:-1]:
        content = content[step]
    content[path[-1]] = value
