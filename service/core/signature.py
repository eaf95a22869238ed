"""What a model takes and what it gives: columns in order, and outputs.

A signature is read off the fitted estimator and a sample (`runtimes/sklearn/describe.py`),
stored in the manifest, and shown to callers by `GET /models/{name}`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cached_property
from operator import itemgetter
from typing import Any, Final, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

FLOATS: Final = ("float64", "float32", "float16")
INTS: Final = ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")

# Every integer up to here is a float64, and no other number rounds to it: 2^53 may have been 2^53 + 1.
EXACT_INTEGERS: Final = 2**53 - 1

DType = Literal[
    "float64", "float32", "float16",
    "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8",
    "bool", "string", "datetime",
]  # fmt: skip


class Container(StrEnum):
    """What the estimator was given at fit, and is given again: the answer can depend on it."""

    ARRAY = "array"  # numpy array of shape (rows, columns)
    FRAME = "frame"  # pandas DataFrame
    SPARSE = "sparse"  # scipy CSR matrix of shape (rows, columns)
    SERIES = "series"  # one-dimensional numpy array: texts for a vectorizer, labels for an encoder


class Frozen(BaseModel):
    """Immutable, strict about its fields, and silent about the ones that are not set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A changed copy, built anew: pydantic's own would keep cached properties of the original.

        `deep` makes no difference, because nothing in it is ever changed.
        """
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**fields, **(update or {})})

    @model_serializer(mode="wrap")
    def _without_nones(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


class Column(Frozen):
    """One input column.

    `categories` are the values known from training. Others are accepted too, unless
    `closed`: then the estimator was seen to fail on them. `low` and `high` are the range
    seen in the sample, for people; nothing is refused for lying outside of it.
    """

    name: str
    dtype: DType
    nullable: bool = Field(False, description="null is accepted and means a missing value")
    categories: list[Any] | None = None
    closed: bool | None = Field(None, description="only the listed categories are accepted")
    max_abs: float | None = Field(None, description="the estimator fails on larger numbers")
    low: float | None = None
    high: float | None = None
    timezone: str | None = Field(None, description="set for datetimes that carry an offset")
    pandas: str | None = Field(None, description="dtype of this column in the data frame of the training")
    ordered: bool | None = Field(None, description="of a pandas category")
    missing: Literal["nan", "none"] | None = Field(None, description="what stands for null in the data frame")

    @cached_property
    def known(self) -> frozenset[Any]:
        """The categories, for looking up."""
        return frozenset(self.categories or ())


class Output(Frozen):
    """One output: `shape` is that of one row, () for a scalar.

    `classes` belong to the last axis of probabilities and scores; with several targets it is
    a list of lists, and `targets` says how many.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    classes: list[Any] | None = None
    columns: list[str] | None = None
    sparse: bool | None = None
    targets: int | None = None


class Signature(Frozen):
    container: Container
    columns: tuple[Column, ...]
    outputs: tuple[Output, ...]
    order: Literal["F"] | None = Field(
        None, description="the matrix lay column by column in memory; the last digits of linear algebra depend on it"
    )
    left_out: dict[str, str] | None = Field(None, description="outputs not offered, and why")

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @cached_property
    def in_order(self) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
        """Takes a record's values in the order of the columns. Raises KeyError where one is absent."""
        if len(self.names) == 1:
            only = self.names[0]
            return lambda record: (record[only],)
        return itemgetter(*self.names)

    @cached_property
    def output_names(self) -> tuple[str, ...]:
        return tuple(output.name for output in self.outputs)

    def output(self, name: str) -> Output:
        """Raises KeyError where there is no such output."""
        for output in self.outputs:
            if output.name == name:
                return output
        raise KeyError(name)

    @property
    def default_output(self) -> str:
        """`predict` where there is one; a transformer transforms."""
        names = self.output_names
        return next((name for name in ("predict", "transform") if name in names), names[0])

    @cached_property
    def matrix_dtype(self) -> np.dtype[Any] | None:
        """The dtype of all columns where they form one plain matrix of numbers, else None.

        Such a model takes the short way through decoding: one array for the whole body.
        """
        first = self.columns[0].dtype
        if first in ("string", "datetime"):
            return None
        uniform = all(
            column.dtype == first
            and column.pandas in (None, first)
            and column.categories is None
            and (first in FLOATS or not column.nullable)
            for column in self.columns
        )
        return np.dtype(first) if uniform else None

    @cached_property
    def alike(self) -> tuple[tuple[Column, tuple[int, ...]], ...]:
        """Groups of columns that take the same values, and make the same arrays of them: one column, the places of all.

        What integers and truth values that may be missing become depends on whether some are.
        """
        groups: dict[object, list[int]] = {}
        for place, column in enumerate(self.columns):
            depends = column.nullable and column.dtype in (*INTS, "bool")
            is_alone = depends or column.closed or column.dtype == "datetime"
            key = place if is_alone else (column.dtype, column.nullable, column.max_abs)
            groups.setdefault(key, []).append(place)
        return tuple((self.columns[places[0]], tuple(places)) for places in groups.values())

    @cached_property
    def takes_nulls(self) -> bool:
        """Every column may be missing."""
        return all(column.nullable for column in self.columns)

    @cached_property
    def max_abs(self) -> float:
        """The least of the columns' limits; infinity where there is none."""
        return min((c.max_abs for c in self.columns if c.max_abs is not None), default=math.inf)
