"""Tandem's own JSON protocol: one record, or many as instances or as columns.

    {"age": 41, "city": "Graz"}                          → {"prediction": …, "model": …, "version": …}
    {"instances": [[41, "Graz"], [23, "Linz"]]}          → {"predictions": […], "model": …, "version": …}
    {"instances": [{"age": 41, "city": "Graz"}]}
    {"columns": {"age": [41, 23], "city": ["Graz", "Linz"]}}

`outputs` beside any of them, or in the query, chooses what is computed. The words
`instances`, `columns` and `outputs` always have this meaning: a column of that name
can be sent in the two forms for many rows, not in a flat record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np

from service.core.errors import InvalidRequest, shorten
from service.core.messages import InferReply, InferRequest
from service.core.plain import NonFinite, plain, plain_label
from service.core.signature import INTS, Container, Signature
from service.core.table import Frame, Matrix, Table, Values, column_arrays
from service.protocols.json_body import read_json
from service.protocols.number_rows import read_number_rows
from service.protocols.values import ABSENT, Problems, decode_column, decode_few, decode_numbers

WORDS: Final = ("instances", "columns", "outputs")

# The key of an output in a reply of many rows, where it is not the output's own name.
PLURAL: Final = {"predict": "predictions", "predict_proba": "probabilities"}
SINGULAR: Final = {"predict": "prediction", "predict_proba": "probabilities"}
# Up to so many rows, columns that are alike are decoded together.
FEW_ROWS: Final = 16

# Outputs whose last axis runs over the classes.
BY_CLASS: Final = ("predict_proba", "predict_log_proba", "decision_function")


class Exchange:
    """One request and the form of its reply: a flat record is answered with a flat record."""

    def __init__(self, body: bytes, query_outputs: str | None = None) -> None:
        self._body = body
        self._query_outputs = query_outputs
        self._one = False

    def read(self, signature: Signature) -> InferRequest:
        """Decode the body against `signature`.

        Raises:
            UnreadableRequest: not JSON.
            InvalidRequest, InvalidRows: JSON, but wrong for this model.
        """
        if (found := read_number_rows(self._body, signature)) is not None:
            values, wanted = found
            return InferRequest(Matrix(values), self._outputs(wanted, signature))
        return read_json(self._body, lambda content, exact: self.build(content, signature, exact))

    def _outputs(self, wanted: Any, signature: Signature) -> tuple[str, ...]:
        """What the body asks for, else the query; both are looked at."""
        outputs = query_outputs(self._query_outputs, signature)
        return outputs if wanted is None else choose_outputs(wanted, signature)

    def build(self, content: Any, signature: Signature, exact: bool) -> InferRequest:
        if not isinstance(content, dict):
            raise InvalidRequest(
                f"the body is {shorten(content)}; expected one record like {{column: value}}, "
                'or an object with "instances" or "columns"'
            )
        outputs = self._outputs(content.get("outputs"), signature)
        forms = [word for word in ("instances", "columns") if word in content]
        self._one = not forms
        if self._one:
            if not has_record_form(signature):
                raise InvalidRequest(
                    f'expected "instances" or "columns": a column of this model is called {" or ".join(WORDS)}, '
                    "so it takes no flat record"
                )
            record = {key: value for key, value in content.items() if key != "outputs"}
            return InferRequest(decode_records([record], signature, exact=exact), outputs)
        if len(forms) == 2:
            raise InvalidRequest('the body has both "instances" and "columns"; expected one of them')
        unknown = next((key for key in content if key not in WORDS), None)
        if unknown is not None:
            raise InvalidRequest(f'unknown field {shorten(unknown)} beside "{forms[0]}"')
        if forms == ["columns"]:
            return InferRequest(decode_columns(content["columns"], signature, exact=exact), outputs)
        return InferRequest(decode_instances(content["instances"], signature, exact=exact), outputs)

    def write(self, reply: InferReply) -> dict[str, Any]:
        """The reply as something orjson writes: outputs first, then the model and its version."""
        content = write_outputs(reply.outputs, reply.signature, one=self._one)
        content["model"] = reply.model
        content["version"] = reply.version
        return content


def has_record_form(signature: Signature) -> bool:
    """Whether a flat record can be told from the forms for many rows: no column is called like their words."""
    return not set(WORDS) & set(signature.names)


def query_outputs(names: str | None, signature: Signature) -> tuple[str, ...]:
    """The outputs that `?outputs=` names, separated by commas. Raises what `choose_outputs` does."""
    return choose_outputs(None if names is None else names.split(","), signature)


def choose_outputs(wanted: Any, signature: Signature) -> tuple[str, ...]:
    """Names of outputs without repeats; the model's default one where nothing is asked for.

    Raises:
        InvalidRequest: not a list of names, empty, or a name that this model does not offer.
    """
    if wanted is None:
        return (signature.default_output,)
    offered = ", ".join(signature.output_names)
    if not isinstance(wanted, list) or not wanted:
        raise InvalidRequest(f'"outputs": expected a list of {offered}; got {shorten(wanted)}')
    for name in wanted:
        if name not in signature.output_names:
            raise InvalidRequest(f'"outputs": this model offers {offered}; got {shorten(name)}')
    return tuple(dict.fromkeys(wanted))


# -- rows ----------------------------------------------------------------------------------------


def decode_instances(instances: Any, signature: Signature, *, exact: bool = False) -> Table:
    """Rows as lists in the order of the columns, or as objects by column name."""
    if not isinstance(instances, list) or not instances:
        raise InvalidRequest(f'"instances": expected a list of at least one row; got {shorten(instances)}')
    kinds = set(map(type, instances))
    if kinds == {dict}:
        return decode_records(instances, signature, exact=exact)
    if kinds == {list}:
        return decode_rows(instances, signature, exact=exact)
    if signature.container is Container.SERIES and not kinds & {dict, list}:
        return decode_rows([[value] for value in instances], signature, exact=exact)
    problems = Problems()
    wanted = dict if kinds & {dict} else list
    for row, value in enumerate(instances):
        if type(value) is not wanted:
            text = "an object like the others" if wanted is dict else f"a list of {len(signature.columns)} values"
            problems.add(row, None, text, shorten(value))
    problems.raise_if_any()
    raise AssertionError("unreachable: some row was neither list nor object")


def decode_rows(rows: list[list[Any]], signature: Signature, *, exact: bool = False) -> Table:
    """`rows` hold one value per column, in the signature's order."""
    width = len(signature.columns)
    if set(map(len, rows)) != {width}:
        problems = Problems()
        for index, row in enumerate(rows):
            if len(row) != width:
                problems.add(index, None, f"{width} values", str(len(row)))
        problems.raise_if_any()
    return _matrix(rows, signature) or _assemble(zip(*rows, strict=True), signature, exact)


def decode_records(records: list[dict[str, Any]], signature: Signature, *, exact: bool = False) -> Table:
    """`records` hold a value per column name; where a column may be missing, so may its key."""
    width = len(signature.columns)
    if all(len(record) == width for record in records):
        try:
            rows = [signature.in_order(record) for record in records]
        except KeyError:
            pass
        else:
            return _matrix(rows, signature) or _assemble(zip(*rows, strict=True), signature, exact)
    known = frozenset(signature.names)
    problems = Problems()
    if not all(record.keys() <= known for record in records):
        wanted = known_columns(signature)
        for index, record in enumerate(records):
            for key in record:
                if key not in known:
                    problems.add(index, key[:60], wanted, shorten(key))
    columns = ([record.get(name, ABSENT) for record in records] for name in signature.names)
    return _assemble(columns, signature, exact, problems)


def as_column(values: Any) -> Any:
    """A column of shape [rows, 1] as one of shape [rows]; anything else as it is."""
    is_column = isinstance(values, list) and all(isinstance(value, list) and len(value) == 1 for value in values)
    return [value for (value,) in values] if is_column else values


def decode_columns(columns: Any, signature: Signature, *, exact: bool = False) -> Table:
    """`columns` holds a list of values per column name, all of one length."""
    if not isinstance(columns, dict) or not columns:
        raise InvalidRequest(f'"columns": expected an object of lists by column name; got {shorten(columns)}')
    problems = Problems()
    lengths = {name: len(values) for name, values in columns.items() if isinstance(values, list)}
    rows = max(lengths.values(), default=0)
    known, wanted = frozenset(signature.names), known_columns(signature)
    for name, values in columns.items():
        if name not in known:
            problems.add(None, name[:60], wanted, shorten(name))
        elif lengths.get(name) != rows or rows == 0:
            problems.add(None, name, f"a list of {max(rows, 1)} values, as in the other columns", shorten(values))
    for column in signature.columns:
        if column.name not in columns and not column.nullable:
            problems.add(None, column.name, "a list of values", "nothing")
    problems.raise_if_any()
    absent = [ABSENT] * rows
    return _assemble((columns.get(name, absent) for name in signature.names), signature, exact)


def _matrix(rows: Sequence[Sequence[Any]], signature: Signature) -> Matrix | None:
    """The short way for rows of numbers; None where something is to be said of a value, column by column."""
    dtype = signature.matrix_dtype
    if dtype is None:
        return None
    flat = list(chain.from_iterable(rows))
    values = decode_numbers(flat, dtype, nullable=signature.takes_nulls, max_abs=signature.max_abs)
    return None if values is None else Matrix(values.reshape(len(rows), len(signature.columns)))


def refuse_repeats(names: Sequence[str]) -> None:
    """Raises InvalidRequest where two columns have the same name."""
    if len(set(names)) < len(names):
        twice, _ = Counter(names).most_common(1)[0]
        raise InvalidRequest(f"two columns are called {shorten(twice)}")


def known_columns(signature: Signature) -> str:
    """What a caller who sent another column may have meant."""
    names = ", ".join(name[:40] for name in signature.names[:8])
    more = f" … ({len(signature.names)} in all)" if len(signature.names) > 8 else ""
    return f"a column of this model: {names}{more}"


def _assemble(
    columns: Iterable[Sequence[Any]], signature: Signature, exact: bool, problems: Problems | None = None
) -> Table:
    problems = problems or Problems()
    columns = list(columns)
    arrays = decode_few(columns, signature, exact=exact) if len(columns[0]) <= FEW_ROWS else None
    if arrays is None:
        arrays = {
            column.name: decode_column(values, column, problems, exact=exact)
            for column, values in zip(signature.columns, columns, strict=True)
        }
    problems.raise_if_any()
    if signature.matrix_dtype is not None:
        return Matrix(np.stack(list(arrays.values()), axis=1))
    return Frame(arrays)


def write_columns(rows: Table, signature: Signature) -> dict[str, list[Any]]:
    """The rows by column, as `decode_columns` reads them: every value exactly, missing as null."""
    written: dict[str, list[Any]] = {}
    for column, array in zip(signature.columns, column_arrays(rows), strict=True):
        if array.dtype.kind == "M":
            offset = "Z" if column.timezone else ""
            values: list[Any] = [None if np.isnat(value) else f"{value}{offset}" for value in array]
        else:
            values = [plain_label(value) for value in array]
        if column.dtype in INTS and array.dtype.kind == "f":  # an integer column with missing values
            values = [value if value is None else int(value) for value in values]
        written[column.name] = values
    return written


def first_record(columns: dict[str, list[Any]]) -> dict[str, Any]:
    """The first row of what `write_columns` wrote, by column name: an example for people."""
    return {name: values[0] for name, values in columns.items()}


def example_body(record: dict[str, Any]) -> dict[str, Any]:
    """A request that asks for `record`: the record itself, where it can be told from the other forms."""
    return {"instances": [record]} if set(WORDS) & set(record) else record


# -- replies -------------------------------------------------------------------------------------


def write_outputs(outputs: dict[str, Values], signature: Signature, *, one: bool = False) -> dict[str, Any]:
    """Outputs under their keys; `classes` where one runs over them; what the nulls were.

    With `one`, each output is that of the only row.
    """
    content: dict[str, Any] = {}
    lost: list[dict[str, Any]] = []
    keys = SINGULAR if one else PLURAL
    for name, values in outputs.items():
        key = keys.get(name, name)
        value, places = plain(values)
        if one:
            value, places = _first(value, places)
        content[key] = value
        lost += [{"output": key, "at": list(path), "value": what} for path, what in places]
    if (classes := classes_of(outputs, signature)) is not None:
        content["classes"] = classes
    if lost:
        content["non_finite"] = lost
    return content


def classes_of(outputs: Collection[str], signature: Signature) -> list[Any] | None:
    """The classes that one of `outputs` runs over, None where none does."""
    return next((o.classes for o in signature.outputs if o.name in outputs and o.name in BY_CLASS and o.classes), None)


def _first(value: Any, places: NonFinite) -> tuple[Any, NonFinite]:
    if isinstance(value, dict):  # sparse rows
        sparse = {"shape": value["shape"][1:], "indices": value["indices"], "data": value["data"]}
        return sparse, places
    first = value[0]
    return first.item() if isinstance(first, np.generic) else first, [(path[1:], what) for path, what in places]
