"""The columns of a signature as inputs of a graph: numbers, and codes for what has finitely many values.

Text never enters the graph. A column that goes to an encoder can hold one of the categories that the
encoder knows, nothing, or something unseen; the runtime looks its code up, and in the graph the code is
the row of a table. The table holds what the fitted steps themselves answered for each of these values, so
that rare, dropped, missing and unknown categories need no rules of ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.core.signature import Column, Container, Signature
from service.core.table import Frame, Matrix, Table, column_arrays, take
from service.runtimes.estimator_input import input_builder
from training.compile.onnx_formulas import NoFormula, kind_of
from training.compile.onnx_graph import Graph, Lookup, Tensor

NUMBERS: Final = "numbers"
CODES: Final = "codes"
# Each answers for a column from that column alone.
COLUMN_BY_COLUMN: Final = frozenset(
    {"SimpleImputer", "OneHotEncoder", "OrdinalEncoder", "TargetEncoder", "LabelEncoder", "LabelBinarizer"}
)
UNSEEN: Final = "\u2003no such category"


@dataclass(eq=False)
class Inputs:
    """What of a signature's columns a graph takes; grows while formulas ask."""

    graph: Graph
    signature: Signature
    sample: Table
    number_columns: list[int] = field(default_factory=list)
    codes: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.is_matrix = self.signature.matrix_dtype is not None
        if self.is_matrix:
            self.number_columns = list(range(len(self.signature.columns)))
        self._numbers = self.graph.input(NUMBERS, "double", (None, None))
        self._codes = self.graph.input(CODES, "int64", (None, None))

    def everything(self) -> Block:
        return Block(self, tuple(range(len(self.signature.columns))))

    def numbers(self, positions: Sequence[int]) -> Tensor:
        """Shape (rows, len(positions)).

        Raises:
            NoFormula: one of them holds text, or dates, or pandas categories.
        """
        for position in positions:
            column = self.signature.columns[position]
            if column.dtype in ("string", "datetime") or column.pandas == "category":
                raise NoFormula(
                    f"column {column.name!r} is used as a number, and holds {column.pandas or column.dtype}"
                )
            if position not in self.number_columns:
                self.number_columns.append(position)
        places = [self.number_columns.index(position) for position in positions]
        if self.is_matrix and places == list(range(len(self.number_columns))):
            return self._numbers
        return self._numbers.columns(places)

    def lookup(self, entries: list[dict[str, Any]], table: NDArray[np.float64]) -> Tensor:
        """The rows of `table` for these codes, added up; an entry says how a column's values become codes."""
        for entry in entries:
            if entry not in self.codes:
                self.codes.append(entry)
        places = [self.codes.index(entry) for entry in entries]
        chosen = self.graph.op("Gather", self._codes, np.array(places), dtype="int64", axis=0)
        return Lookup(chosen, table)

    def finish(self) -> None:
        """Choosing all columns in order is no choice: such nodes go."""
        for name, columns in ((NUMBERS, self.number_columns), (CODES, self.codes)):
            self.graph.drop_choices(name, np.arange(len(columns)))


@dataclass(frozen=True, eq=False)
class Block:
    """Columns as they came, by their positions in the signature."""

    inputs: Inputs
    positions: tuple[int, ...]

    @property
    def columns(self) -> list[Column]:
        return [self.inputs.signature.columns[position] for position in self.positions]

    def numbers(self) -> Tensor:
        return self.inputs.numbers(self.positions)

    def select(self, chosen: Sequence[int]) -> Block:
        return Block(self.inputs, tuple(self.positions[index] for index in chosen))

    def needs_codes(self) -> bool:
        return any(c.dtype in ("string", "datetime") or c.pandas == "category" for c in self.columns)


def is_column_by_column(step: Any) -> bool:
    return kind_of(step) in COLUMN_BY_COLUMN


def is_encoder(step: Any) -> bool:
    return is_column_by_column(step) and (hasattr(step, "categories_") or hasattr(step, "classes_"))


def tabulate(steps: Sequence[Any], block: Block, method: str = "transform") -> Tensor:
    """What `steps`, one after another, make of the block's columns: shape (rows, width), or (rows,).

    Raises:
        NoFormula: the steps do not answer column by column, or with too many numbers.
    """
    values = [_values(steps, index, column) for index, column in enumerate(block.columns)]
    asker = _Asker(steps, block, method)
    base = asker.answer({})[0]
    tables, entries, first = [], [], 0
    taken = np.zeros(len(base), dtype=bool)
    for index, column in enumerate(block.columns):
        entry, table = _table(asker, index, values[index])
        varies = ~_same(table, base).all(axis=0)
        if (varies & taken).any():
            raise NoFormula("an output depends on two columns at once")
        if index == len(block.positions) - 1:
            varies |= ~taken  # what never changes is looked up with the last
        taken |= varies
        tables.append(np.where(varies, table, 0.0))
        codes = {key: entry[key] + first if entry[key] >= 0 else -1 for key in ("missing", "unseen")}
        entries.append({"column": column.name, "values": entry["values"], "first": first, **codes})
        first += len(table)
    result = block.inputs.lookup(entries, np.concatenate(tables))
    return result if asker.is_two_dimensional else result.squeeze()


def _table(asker: _Asker, index: int, values: list[Any]) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """How values of one column become codes, and the answers by code."""
    column = asker.block.columns[index]
    rows = list(asker.answer({index: values})) if values else []
    entry: dict[str, Any] = {"values": values, "missing": -1, "unseen": -1}
    for special, value in (("missing", None), ("unseen", _unseen(column, values))):
        if special == "unseen" and value is None:
            continue
        try:
            answer = asker.answer({index: [value]})[0]
        except Exception:  # whatever it raised, the estimator answers such a row itself
            continue
        entry[special] = len(rows)
        rows.append(answer)
    if not rows:
        raise NoFormula(f"no value of column {column.name!r} is known")
    return entry, np.stack(rows).reshape(len(rows), -1)


def _values(steps: Sequence[Any], index: int, column: Column) -> list[Any]:
    """The values of a column that some step may tell apart, without those that mean missing."""
    found: list[Any] = list(column.categories or [])
    for step in steps:
        if hasattr(step, "categories_"):
            if index >= len(step.categories_):
                raise NoFormula("an encoder after columns were dropped")
            found += np.asarray(step.categories_[index], dtype=object).tolist()
        elif kind_of(step) in ("LabelEncoder", "LabelBinarizer"):
            found += np.asarray(step.classes_).tolist()
        if isinstance(marker := getattr(step, "missing_values", None), str):
            found.append(marker)
    if column.dtype == "bool":
        found += [False, True]
    kept = [value for value in found if value is not None and value == value and type(value).__name__ != "NAType"]
    if column.dtype not in ("bool", "string"):
        kept = [float(value) if column.dtype.startswith("float") else int(value) for value in kept]
    if any(isinstance(value, str) != (column.dtype == "string") for value in kept):
        raise NoFormula(f"categories of another type than column {column.name!r}")
    return list(dict.fromkeys(kept))


def _unseen(column: Column, values: list[Any]) -> Any:
    if column.dtype == "bool":
        return None
    if column.dtype == "string":
        return UNSEEN
    return type(values[0])(max(map(abs, values)) + 1) if values else None


def _same(table: NDArray[np.float64], base: NDArray[np.float64]) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (table == base) | (np.isnan(table) & np.isnan(base))
    return same


class _Asker:
    """Asks the fitted steps about rows that differ from a row of the sample in one column."""

    def __init__(self, steps: Sequence[Any], block: Block, method: str) -> None:
        self.steps, self.block, self._method = steps, block, method
        inputs = block.inputs
        self._row = take(inputs.sample, np.arange(1))
        self._build = input_builder(inputs.signature)
        self.is_two_dimensional = True

    def answer(self, changed: dict[int, list[Any]]) -> NDArray[np.float64]:
        """Shape (values, width): the answers where column `index` of the block takes each of the values."""
        signature = self.block.inputs.signature
        n = max((len(values) for values in changed.values()), default=1)
        arrays = {
            column.name: np.repeat(array, n)
            for column, array in zip(signature.columns, column_arrays(self._row), strict=True)
        }
        for index, values in changed.items():
            column = self.block.columns[index]
            arrays[column.name] = _array(column, values)
        frame: Table = Frame(arrays)
        if isinstance(self._row, Matrix) and all(a.dtype == self._row.values.dtype for a in arrays.values()):
            frame = Matrix(np.stack(list(arrays.values()), axis=1))
        data = self._build(frame)
        positions = list(self.block.positions)
        if signature.container is Container.FRAME:
            data = data.iloc[:, positions]
        elif signature.container is Container.ARRAY:
            data = data[:, positions]
        elif signature.container is Container.SPARSE:
            raise NoFormula("an encoder of a sparse matrix")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for step in self.steps:
                data = getattr(step, self._method)(data)
        data = data.toarray() if hasattr(data, "toarray") else np.asarray(data)
        self.is_two_dimensional = data.ndim == 2
        if data.dtype.kind not in "fiub":
            raise NoFormula("steps that answer with text")
        return np.asarray(data, dtype=np.float64).reshape(n, -1)


def _array(column: Column, values: list[Any]) -> NDArray[Any]:
    if column.dtype in ("bool", "string"):
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array.astype(bool) if column.dtype == "bool" and None not in values else array
    if None in values:
        return np.full(len(values), np.nan)
    return np.asarray(values, dtype=column.dtype)
