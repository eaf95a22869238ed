"""Rows as text: CSV with a header (RFC 4180), and JSON lines, one row per line."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from service.core.errors import InvalidRequest, UnreadableRequest
from service.core.messages import InferReply
from service.core.plain import NonFinite, plain, plain_label
from service.core.signature import EXACT_INTEGERS, FLOATS, INTS, Column, Signature
from service.core.table import SparseRows, Table, Values
from service.protocols.columnar.reply_table import n_rows, rows_between, table_of
from service.protocols.json_body import OutOfRange, read_json
from service.protocols.native import SINGULAR, classes_of, decode_columns, decode_instances, refuse_repeats
from service.protocols.values import NeedsExactParse, Problems

T = TypeVar("T")

# Rows that are turned into text at a time: what a reply takes beyond its own size stays small.
ROWS: Final = 16_384


# -- CSV -----------------------------------------------------------------------------------------


def read_csv(body: bytes, signature: Signature, parameters: Mapping[str, str], limit: int) -> Table:
    """Rows under a header of column names, in any order; with `header=absent` in the order of the signature.

    An empty cell is a missing value where the column may have one, and in a column of texts without missing
    values an empty text. `nan` in a column of floats is missing, too. Truths are true and false.

    Raises:
        UnreadableRequest: no CSV in UTF-8.
        InvalidRequest, InvalidRows: CSV, but wrong for this model.
    """
    rows = csv_rows(body)
    if parameters.get("header", "present").lower() == "absent":
        names: Sequence[str] = signature.names
    elif rows:
        names = rows.pop(0)
    else:
        raise UnreadableRequest("the body is empty; CSV with a header was expected")
    return decode_cells(names, rows, signature)


def csv_rows(body: bytes) -> list[list[str]]:
    """The cells of each line that is not blank. Raises UnreadableRequest."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableRequest("the body is not valid CSV: it is not UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return [row for row in reader if row]
    except csv.Error as error:
        raise UnreadableRequest(f"the body is not valid CSV: line {reader.line_num}: {error}") from None


def decode_cells(names: Sequence[str], rows: Sequence[Sequence[str]], signature: Signature) -> Table:
    """Rows of text cells, one per name, by the types of the columns.

    Raises:
        InvalidRequest: a name twice, or no rows.
        InvalidRows: unknown or missing columns, rows of another length, or cells that the columns do not take.
    """
    refuse_repeats(names)
    if not rows:
        raise InvalidRequest("expected at least one row")
    if set(map(len, rows)) != {len(names)}:
        problems = Problems()
        for index, row in enumerate(rows):
            if len(row) != len(names):
                problems.add(index, None, f"{len(names)} cells", str(len(row)))
        problems.raise_if_any()
    columns = {column.name: column for column in signature.columns}
    cells = zip(names, zip(*rows, strict=True), strict=True)
    return decode_columns({name: _values(some, columns.get(name)) for name, some in cells}, signature, exact=True)


def _values(cells: Sequence[str], column: Column | None) -> list[Any]:
    """The cells as JSON would have brought them; what does not read as the column's type stays text."""
    if column is None:
        return list(cells)
    if column.dtype in FLOATS or column.dtype in INTS:
        return _numbers(cells)
    if column.dtype == "bool":
        return [_TRUTHS.get(cell.strip().lower(), cell) for cell in cells]
    is_missing = column.nullable or column.dtype == "datetime"
    return [cell or None for cell in cells] if is_missing else list(cells)


_TRUTHS: Final = {"true": True, "false": False, "": None}
_INTEGER: Final = re.compile(r"[+-]?\d{1,4000}", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INFINITE: Final = re.compile(r"[+-]?inf(inity)?", re.ASCII | re.IGNORECASE)
_NUMERIC: Final = b"0123456789+-.eE \t"
_FRACTIONAL: Final = re.compile(r"[.eE]")


def _numbers(cells: Sequence[str]) -> list[Any]:
    """All at once where that loses nothing, else cell by cell."""
    text = "".join(cells)
    # `float` and `int` also read 1_0, １ and nan.
    if text.isascii() and not text.encode().translate(None, _NUMERIC):
        try:
            if not _FRACTIONAL.search(text):
                return list(map(int, cells))
            floats = list(map(float, cells))
        except ValueError:  # an empty cell, for one
            return list(map(_number, cells))
        # Beyond that, a number without a fraction may have lost digits.
        if max(floats) <= EXACT_INTEGERS and min(floats) >= -EXACT_INTEGERS:
            return floats
    return list(map(_number, cells))


def _number(cell: str) -> Any:
    text = cell.strip()
    if not text or text.lower() == "nan":
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        value = float(text)
        return value if math.isfinite(value) else OutOfRange(text)
    return OutOfRange(text) if _INFINITE.fullmatch(text) else cell


def write_csv(reply: InferReply, *, header: bool = True) -> bytes:
    """A column per output, class, feature or target (`columnar/reply_table.py`), by default under a header.

    Floats have as many digits as tell them from every other; what is missing or NaN is empty.
    """
    columns = table_of(reply)
    content = io.StringIO(newline="")
    writer = csv.writer(content, lineterminator="\n")
    if header:
        writer.writerow(columns)
    rows = len(next(iter(columns.values())))
    for start in range(0, rows, ROWS):
        part = [_cells(values[start : start + ROWS]) for values in columns.values()]
        writer.writerows(zip(*part, strict=True))
    return content.getvalue().encode()


def _cells(values: NDArray[Any]) -> list[Any]:
    if values.dtype.kind == "f":
        # float32 widens, so that the text is that very number.
        return [None if value != value else value for value in values.astype(np.float64).tolist()]
    if values.dtype.kind in "iuU":
        listed: list[Any] = values.tolist()
        return listed
    return [_cell(plain_label(value)) for value in values]


def _cell(value: Any) -> Any:
    """What is neither number nor text, as JSON has it."""
    return orjson.dumps(value).decode() if isinstance(value, bool | list | dict) else value


# -- JSON lines ----------------------------------------------------------------------------------


def read_lines(body: bytes, signature: Signature, parameters: Mapping[str, str], limit: int) -> Table:
    """One row per line: an object by column name, a list in the order of the columns, or of a series a value.

    Raises:
        UnreadableRequest: a line is not JSON; the message names it.
        InvalidRequest, InvalidRows: JSON, but wrong for this model.
    """
    return parse_lines(body, lambda rows, exact: decode_instances(rows, signature, exact=exact))


def parse_lines(body: bytes, build: Callable[[list[Any], bool], T]) -> T:
    """`build(what the lines hold, exact)`, as `read_json` has it.

    Raises:
        UnreadableRequest: a line is not JSON; the message names it. What `build` raises passes through.
        InvalidRequest: no lines.
    """
    try:
        return build(list(_lines(body, exact=False)) or _no_rows(), False)
    except NeedsExactParse:
        return build(list(_lines(body, exact=True)), True)


def _no_rows() -> list[Any]:
    raise InvalidRequest("expected at least one line")


def _lines(body: bytes, *, exact: bool) -> Iterator[Any]:
    build = _exactly if exact else _as_it_is
    for number, line in enumerate(body.split(b"\n"), 1):
        if line.strip():
            yield read_json(line, build, what=f"line {number}")


def _as_it_is(content: Any, exact: bool) -> Any:
    return content


def _exactly(content: Any, exact: bool) -> Any:
    if not exact:
        raise NeedsExactParse
    return content


def write_lines(reply: InferReply) -> bytes:
    """For each row, what the native reply to its record would be, but for the model and its version."""
    classes = classes_of(reply.outputs, reply.signature)
    rows = n_rows(next(iter(reply.outputs.values())))
    lines: list[bytes] = []
    for start in range(0, rows, ROWS):
        parts = {name: rows_between(values, start, start + ROWS) for name, values in reply.outputs.items()}
        lines += (orjson.dumps(one, option=_LINE) for one in _records(parts, classes))
    return b"".join(lines)


_LINE: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


def _records(outputs: Mapping[str, Values], classes: list[Any] | None) -> Iterator[dict[str, Any]]:
    keys = [SINGULAR.get(name, name) for name in outputs]
    parts = [_by_row(values) for values in outputs.values()]
    for row, values in enumerate(zip(*(listed for listed, _ in parts), strict=True)):
        record: dict[str, Any] = dict(zip(keys, values, strict=True))
        if classes is not None:
            record["classes"] = classes
        lost = [
            {"output": key, "at": list(path), "value": what}
            for key, (_, places) in zip(keys, parts, strict=True)
            for path, what in places.get(row, ())
        ]
        if lost:
            record["non_finite"] = lost
        yield record


def _by_row(values: Values) -> tuple[list[Any], dict[int, NonFinite]]:
    """What each row holds, and by row the places in it where a null stands for NaN or infinity."""
    places: dict[int, NonFinite] = {}
    if isinstance(values, SparseRows):
        rows = [plain(rows_between(values, row, row + 1)) for row in range(n_rows(values))]
        listed = [{"shape": [values.width], "indices": one["indices"], "data": one["data"]} for one, _ in rows]
        return listed, {row: lost for row, (_, lost) in enumerate(rows) if lost}
    content, lost = plain(values)
    for path, what in lost:
        places.setdefault(int(path[0]), []).append((path[1:], what))
    return content.tolist() if isinstance(content, np.ndarray) else content, places
