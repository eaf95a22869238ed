"""From the JSON of version 1 to rows: lists, objects and columns, as TensorFlow Serving and KServe write them.

The values are read by the decoders of the native protocol; only their arrangement differs.

    [[1.0, 2.0], …]                     a list per row; of a model with one column, a value per row
    [{"age": 41, "city": "Graz"}, …]    an object per row; a value may stand in a list of one
    [{"age": [41, 23]}, …]              KServe's data frames: as many rows as the lists are long
    [[{"age": 41}, {"age": 23}], …]     KServe's lists of objects: a row each
    [{"input-0": [1.0, 2.0]}, …]        the matrix of a model of numbers, by the name of its tensor
    {"age": [41, 23], "city": […]}      columns, of shape [n] or [n, 1]
    {"input-0": [[1.0, 2.0], …]}        the matrix again
"""

from __future__ import annotations

from typing import Any

from service.core.errors import InvalidRequest, shorten
from service.core.signature import Signature
from service.core.table import Table
from service.protocols import native


def decode_instances(instances: Any, signature: Signature, *, exact: bool = False) -> Table:
    """Rows as lists, values or objects. Raises InvalidRequest, InvalidRows."""
    return _decode_rows(instances, "instances", signature, exact)


def decode_inputs(inputs: Any, signature: Signature, *, exact: bool = False) -> Table:
    """Columns by name, or one tensor, which is a list of rows. Raises InvalidRequest, InvalidRows."""
    if not isinstance(inputs, dict):
        return _decode_rows(inputs, "inputs", signature, exact)
    if not inputs:
        raise InvalidRequest('"inputs": expected tensors by name; got an empty object')
    if (name := _matrix_name([inputs], signature)) is not None:
        return _decode_rows(inputs[name], f"inputs: {name[:60]}", signature, exact)
    return native.decode_columns(
        {name: native.as_column(values) for name, values in inputs.items()}, signature, exact=exact
    )


def decode_examples(examples: Any, context: Any, signature: Signature, *, exact: bool = False) -> Table:
    """Objects with a value per column, one row each; those of `context` belong to every one.

    Raises:
        InvalidRequest: no examples, a feature both in an example and in the context, several values of one feature.
        InvalidRows: values that the columns do not take.
    """
    if not isinstance(examples, list) or not examples or not all(isinstance(example, dict) for example in examples):
        raise InvalidRequest(f'"examples": expected a list of at least one object; got {shorten(examples)}')
    if context is not None:
        if not isinstance(context, dict):
            raise InvalidRequest(f'"context": expected an object; got {shorten(context)}')
        twice = next((name for example in examples for name in example if name in context), None)
        if twice is not None:
            raise InvalidRequest(f"feature {shorten(twice)} is in the context and in an example")
        examples = [context | example for example in examples]
    rows = _decode_rows(examples, "examples", signature, exact)
    if rows.n_rows != len(examples):
        raise InvalidRequest('"examples": expected one value per feature')
    return rows


def has_objects(rows: Any) -> bool:
    """Whether `rows` is a list of objects, or of lists of objects."""
    if not isinstance(rows, list) or not rows:
        return False
    first = rows[0]
    return isinstance(first, dict) or (isinstance(first, list) and bool(first) and isinstance(first[0], dict))


def _decode_rows(rows: Any, what: str, signature: Signature, exact: bool) -> Table:
    if not isinstance(rows, list) or not rows:
        raise InvalidRequest(f'"{what}": expected a list of at least one row; got {shorten(rows)}')
    if isinstance(rows[0], dict) and (name := _matrix_name(rows, signature)) is not None:
        rows = [row[name] for row in rows]
    if has_objects(rows) and (records := _records(rows)) is not None:
        return native.decode_records(records, signature, exact=exact)
    if len(signature.columns) == 1 and not {list, dict} & set(map(type, rows)):
        rows = [[value] for value in rows]
    return native.decode_instances(rows, signature, exact=exact)


def _matrix_name(objects: list[Any], signature: Signature) -> str | None:
    """What all objects call their only value, where that is no column but all of them, side by side."""
    if signature.matrix_dtype is None or len(objects[0]) != 1:
        return None
    (name,) = objects[0]
    is_matrix = name not in signature.names and all(
        isinstance(one, dict) and one.keys() == {name} and not isinstance(one[name], dict) for one in objects
    )
    return str(name) if is_matrix else None


def _records(rows: list[Any]) -> list[dict[str, Any]] | None:
    """A flat object per row, or None where something in the list is no object."""
    records: list[dict[str, Any]] = []
    for row in rows:
        parts = row if isinstance(row, list) else [row]
        if not parts or not all(isinstance(part, dict) for part in parts):
            return None
        for part in parts:
            records += _spread(part)
    return records


def _spread(frame: dict[str, Any]) -> list[dict[str, Any]]:
    """An object of values as it is; of lists, an object per element of theirs."""
    if list not in set(map(type, frame.values())):
        return [frame]
    sizes = {len(value) if isinstance(value, list) else 1 for value in frame.values()}
    if len(sizes) != 1 or 0 in sizes:
        raise InvalidRequest(f"an object of {len(frame)} holds lists that differ in length, or are empty")
    return [
        {name: value[row] if isinstance(value, list) else value for name, value in frame.items()}
        for row in range(sizes.pop())
    ]
