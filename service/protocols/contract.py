"""The pydantic models of a served model's requests and replies, made from its signature.

They are the published contract: the OpenAPI document is their JSON schema. Requests are
decoded by `native.py`, which is faster and names row and column; a property test holds
the two together: what the contract accepts is decoded, what it refuses is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, Union

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    WithJsonSchema,
    create_model,
    model_validator,
)

from service.core.signature import EXACT_INTEGERS, FLOATS, INTS, Column, Container, Output, Signature
from service.protocols.native import BY_CLASS, PLURAL, SINGULAR, has_record_form
from service.protocols.values import accept_datetime, float_limit, int_limits

# JSON schema has a format for datetimes with an offset only. That February has no 30th is beyond a pattern.
NAIVE_DATETIME: Final = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?)?$"
)


class NonFiniteNumber(BaseModel):
    """What a null in an output stands for: a number that JSON lacks."""

    output: str
    at: list[int | str] = Field(description="indices into the output")
    value: Literal["NaN", "Infinity", "-Infinity"]


class SparseRow(BaseModel):
    """One row of a sparse matrix: `data[i]` stands in column `indices[i]`."""

    shape: tuple[int]
    indices: list[int]
    data: list[float | int | bool | None]


class SparseRows(BaseModel):
    """A sparse matrix by compressed rows: row i owns positions indptr[i] up to indptr[i + 1]."""

    shape: tuple[int, int]
    indptr: list[int]
    indices: list[int]
    data: list[float | int | bool | None]


# -- requests ------------------------------------------------------------------------------------


def request_types(name: str, signature: Signature) -> list[type[BaseModel]]:
    """The forms of a request to model `name`: one record, instances, columns.

    A model with a column called `instances`, `columns` or `outputs` has no flat form.
    """
    cells = [cell_type(column) for column in signature.columns]
    names: Any = Literal.__getitem__(signature.output_names)
    outputs = {"outputs": (Annotated[list[names], Field(min_length=1)] | None, None)}
    fields = _by_alias(signature, cells)
    instances: Any = Union[_some(_model(f"{name}-Row", fields)), _some(_row_type(cells))]
    if signature.container is Container.SERIES:
        instances = Union[instances, _some(cells[0])]
    table = _model(
        f"{name}-Table",
        _by_alias(signature, [_some(cell) for cell in cells]),
        {"same_length": model_validator(mode="after")(_same_length)},
    )
    forms = [
        _model(f"{name}-Instances", {"instances": (instances, ...), **outputs}),
        _model(f"{name}-Columns", {"columns": (table, ...), **outputs}),
    ]
    if has_record_form(signature):
        forms.insert(0, _model(f"{name}-Record", {**fields, **outputs}))
    return forms


def _some(kind: Any) -> Any:
    """A list of at least one. (Of a union of lists, JSON Schema would be told the length that texts have.)"""
    return Annotated[list[kind], Field(min_length=1)]


def cell_type(column: Column) -> Any:
    """The type of one value of `column`, exactly as strict as the decoder."""
    kind: Any = _kind_of(column)
    if column.closed:
        enum = WithJsonSchema({"enum": list(column.categories or [])})
        kind = Annotated[kind, AfterValidator(_member_of(column)), enum]
    elif column.categories:
        kind = Annotated[kind, Field(json_schema_extra={"x-known-categories": column.categories})]
    return Union[kind, None] if column.nullable else kind


def _kind_of(column: Column) -> Any:
    if column.dtype in FLOATS:
        limit = float_limit(column)
        bounds: dict[str, Any] = {} if limit == np.finfo(np.float64).max else {"ge": -limit, "le": limit}
        return Annotated[
            float, Strict(), Field(allow_inf_nan=False, **bounds), BeforeValidator(_exact_in(column.dtype, limit))
        ]
    if column.dtype in INTS:
        low, high = int_limits(column)
        return Annotated[int, Strict(), Field(ge=low, le=high), BeforeValidator(_whole)]
    if column.dtype == "bool":
        return Annotated[bool, Strict()]
    if column.dtype == "datetime":
        schema = {"type": "string", **({"format": "date-time"} if column.timezone else {"pattern": NAIVE_DATETIME})}
        return Annotated[str, Strict(), AfterValidator(_datetime_in(column)), WithJsonSchema(schema)]
    return Annotated[str, Strict()]


def _exact_in(dtype: str, limit: float) -> Callable[[Any], Any]:
    """Refuses integers that floats of `dtype` can only round."""

    def check(value: Any) -> Any:
        if type(value) is int and (abs(value) > limit or int(np.dtype(dtype).type(value)) != value):
            raise ValueError(f"{dtype} cannot hold this integer exactly")
        return value

    return check


def _whole(value: Any) -> Any:
    """1.0 is an integer: JSON does not tell it from 1."""
    return int(value) if type(value) is float and value.is_integer() and abs(value) <= EXACT_INTEGERS else value


def _datetime_in(column: Column) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not accept_datetime(value, column)[0]:
            raise ValueError("not an ISO 8601 date and time of this column")
        return value

    return check


def _member_of(column: Column) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value not in column.known:
            raise ValueError("not one of the categories")
        return value

    return check


def _same_length(table: BaseModel) -> BaseModel:
    lengths = {len(values) for values in table.__dict__.values() if values is not None}
    if len(lengths) != 1:
        raise ValueError("the columns differ in length")
    return table


def _by_alias(signature: Signature, types: list[Any]) -> dict[str, Any]:
    """Fields named by position, since a column may be called anything; its name is the alias."""
    return {
        f"column_{index}": (kind, Field(None if column.nullable else ..., alias=column.name))
        for index, (column, kind) in enumerate(zip(signature.columns, types, strict=True))
    }


def _row_type(cells: list[Any]) -> Any:
    if all(cell == cells[0] for cell in cells):
        return Annotated[list[cells[0]], Field(min_length=len(cells), max_length=len(cells))]  # type: ignore[valid-type]
    return tuple[tuple(cells)]  # type: ignore[misc]


def _model(name: str, fields: dict[str, Any], validators: dict[str, Any] | None = None) -> type[BaseModel]:
    made: type[BaseModel] = create_model(
        name, __config__=ConfigDict(extra="forbid"), __validators__=validators, **fields
    )
    return made


# -- replies -------------------------------------------------------------------------------------


def reply_types(name: str, signature: Signature) -> list[type[BaseModel]]:
    """The replies of model `name`: to one record, and to many rows."""
    by_class = any(output.name in BY_CLASS and output.classes for output in signature.outputs)
    about: dict[str, Any] = {
        **({"classes": (list[Any], _absent())} if by_class else {}),
        "non_finite": (list[NonFiniteNumber], _absent("what each null stands for")),
        "model": (str, ...),
        "version": (int, ...),
    }
    one: dict[str, Any] = {
        SINGULAR.get(o.name, o.name): (SparseRow if o.sparse else _value_type(o), _absent()) for o in signature.outputs
    }
    many: dict[str, Any] = {
        PLURAL.get(o.name, o.name): (SparseRows if o.sparse else list[_value_type(o)], _absent())  # type: ignore[misc]
        for o in signature.outputs
    }
    return [
        create_model(f"{name}-Prediction", **one, **about),
        create_model(f"{name}-Predictions", **many, **about),
    ]


def _absent(description: str | None = None) -> Any:
    """A field that a reply may lack; it is never null, so null is no default that a reader should see."""

    def without_default(schema: dict[str, Any]) -> None:
        schema.pop("default")

    return Field(None, description=description, json_schema_extra=without_default)


def _value_type(output: Output) -> Any:
    """The type of one row of an output."""
    value: Any = Any
    if output.dtype.startswith("float"):
        value = float | None
    elif output.dtype.startswith(("int", "uint")):
        value = int
    elif output.dtype == "bool":
        value = bool
    elif output.dtype == "string":
        value = str
    for _ in range(len(output.shape) + (1 if output.targets else 0)):
        value = list[value]
    return value
