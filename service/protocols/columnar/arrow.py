"""Tables as Arrow IPC streams and as Parquet files.

Strangers send them, so nothing is believed before it was looked at: what is packed in the body is added up before
any of it is unpacked (`columnar/sizes.py`), only flat columns of plain types are read, and their offsets and
indices are validated before anything follows them. pyarrow is imported when the first such body comes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from service.core.errors import (
    InvalidRequest,
    NotAcceptable,
    RequestError,
    RequestTooLarge,
    UnreadableRequest,
    UnsupportedMediaType,
)
from service.core.messages import InferReply
from service.core.plain import plain_label
from service.core.signature import Column, Signature
from service.core.table import Table
from service.protocols.arrays import decode_arrays, decode_matrix
from service.protocols.columnar.arrow_arrays import (
    DTYPES,
    arrow_array,
    has_layout,
    is_moment,
    is_plain,
    is_text,
    numpy_array,
    viewed_bytes,
)
from service.protocols.columnar.reply_table import table_of
from service.protocols.columnar.sizes import Malformed, message_bytes, parquet_bytes
from service.protocols.native import refuse_repeats
from service.protocols.values import Problems, expected

T = TypeVar("T")

# Rows that are turned from columns at a time.
_BLOCK_ROWS: Final = 65_536
# Of any list in the footer of a Parquet file, columns and row groups among them: pyarrow makes room for what is said.
_MOST_ENTRIES: Final = 100_000


def read_stream(body: bytes, signature: Signature, parameters: Mapping[str, str], limit: int) -> Table:
    """The record batches of an IPC stream. Columns of fixed width are views of `body`, nothing is copied.

    Raises:
        UnsupportedMediaType: pyarrow is not installed.
        UnreadableRequest: not a stream, or columns of types that hold no values of a model.
        RequestTooLarge: more than `limit` bytes come out of it.
        InvalidRequest, InvalidRows: a table, but wrong for this model.
    """
    pa = arrow_library()

    def read() -> Any:
        whole = pa.py_buffer(body)
        with pa.ipc.open_stream(whole, options=pa.ipc.IpcReadOptions(use_threads=False)) as reader:
            check_schema(reader.schema, signature)
            batches = []
            rows = packed = 0
            for message in pa.ipc.MessageReader.open_stream(whole):
                packed += message_bytes(message.metadata, message.body)
                check_size(packed, limit)
            for batch in reader:
                rows += batch.num_rows
                check_size(rows * batch.num_columns, limit)  # of nulls and truths, more rows than bytes may come
                batch.validate(full=True)
                batches.append(batch)
            return pa.Table.from_batches(batches, reader.schema)

    return decode_table(pa, reading("Arrow stream", pa, read), signature, limit)


def read_parquet(body: bytes, signature: Signature, parameters: Mapping[str, str], limit: int) -> Table:
    """All row groups of a file. Raises what `read_stream` does."""
    pa = arrow_library()
    from pyarrow import parquet

    def read() -> Any:
        check_size(parquet_bytes(body), limit)
        whole = pa.py_buffer(body)
        limits = {"thrift_string_size_limit": len(body) + 1, "thrift_container_size_limit": _MOST_ENTRIES}
        with parquet.ParquetFile(whole, **limits) as file:
            schema = file.schema_arrow
        check_schema(schema, signature)
        # Texts stay coded: a dictionary of one long text and a million rows would be a million long texts.
        texts = [field.name for field in schema if is_text(field.type)]
        with parquet.ParquetFile(whole, read_dictionary=texts, **limits) as file:
            table = file.read(use_threads=False)
        table.validate(full=True)
        return table

    return decode_table(pa, reading("Parquet file", pa, read), signature, limit)


def arrow_library(refusal: type[RequestError] = UnsupportedMediaType) -> Any:
    """pyarrow. Raises `refusal` where it is not installed."""
    try:
        import pyarrow
    except ImportError:
        raise refusal(
            "Arrow and Parquet need pyarrow, which this service does not have: pip install 'tandem-serving[arrow]'"
        ) from None
    return pyarrow


def reading(what: str, pa: Any, read: Callable[[], T]) -> T:
    """What `read` returns; whatever its bytes make pyarrow say is the caller's fault."""
    try:
        return read()
    # Of these pyarrow's own errors are made, but for those of names that are no UTF-8 and of too much memory.
    except (pa.ArrowException, Malformed, OSError, ValueError, KeyError, IndexError, MemoryError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise UnreadableRequest(f"the body is not a readable {what}: {reason}") from None


def check_size(size: int, limit: int, what: str = "the table") -> None:
    """Raises RequestTooLarge."""
    if size > limit:
        raise RequestTooLarge(f"{what} is larger than {limit} bytes once it is unpacked")


# -- from Arrow's columns to arrays --------------------------------------------------------------


def check_schema(schema: Any, signature: Signature) -> None:
    """Raises InvalidRequest where a name comes twice, or InvalidRows for types that the columns do not take."""
    refuse_repeats(schema.names)
    kinds = schema.types
    # Compared by their names, which takes microseconds each, and most columns of a table are alike.
    names = list(map(str, kinds))
    plain = {name for name, kind in dict(zip(names, kinds, strict=True)).items() if is_plain(kind)}
    problems = Problems()
    columns = {column.name: column for column in signature.columns}
    for column_name, name, kind in zip(schema.names, names, kinds, strict=True):
        column = columns.get(column_name)
        if name not in plain:
            what = "no such column" if column is None else expected(column)
            problems.add(None, column_name[:60], what, name[:60])
        elif column is not None and column.dtype == "datetime" and _is_elsewhere(kind, column):
            problems.add(None, column_name[:60], expected(column), name[:60])
    problems.raise_if_any()


def _is_elsewhere(kind: Any, column: Column) -> bool:
    """Whether these are moments with a time zone for a column without one, or the other way round."""
    kind = getattr(kind, "value_type", kind)
    return is_moment(kind) and (getattr(kind, "tz", None) is None) != (column.timezone is None)


def decode_table(pa: Any, table: Any, signature: Signature, limit: int) -> Table:
    index = _index_of(table.schema.metadata) - set(signature.names)
    if index:
        table = table.drop_columns([name for name in table.column_names if name in index])
    if table.num_rows == 0:
        raise InvalidRequest("expected at least one row")
    if (matrix := _matrix(pa, table, signature)) is not None:
        return decode_matrix(matrix, signature)
    check_size(sum(viewed_bytes(chunk) for column in table.columns for chunk in column.chunks), limit)
    arrays = {name: _array(column) for name, column in zip(table.column_names, table.columns, strict=True)}
    return decode_arrays(arrays, signature)


def _index_of(metadata: Mapping[bytes, bytes] | None) -> set[str]:
    """Columns that pandas keeps the index of a frame in: they are no columns to it, nor to a model."""
    try:
        names = orjson.loads((metadata or {})[b"pandas"])["index_columns"]
        return {name for name in names if isinstance(name, str)}
    except (KeyError, TypeError, ValueError):
        return set()


def _matrix(pa: Any, table: Any, signature: Signature) -> NDArray[Any] | None:
    """All columns side by side, of shape (rows, columns), where they are of one type and nothing is lost."""
    if signature.matrix_dtype is None or set(table.column_names) != set(signature.names):
        return None
    kind = table.schema.types[0]
    has_nulls = any(column.null_count for column in table.columns)
    # Integers with missing values would be floats of fewer digits, and halves are no type of tensors.
    is_fit = pa.types.is_float32(kind) or pa.types.is_float64(kind) or (pa.types.is_integer(kind) and not has_nulls)
    if not is_fit or any(other != kind for other in table.schema.types):
        return None
    matrix = np.empty((table.num_rows, table.num_columns), DTYPES[str(kind)])
    start = 0
    for batch in table.select(list(signature.names)).to_batches(max_chunksize=_BLOCK_ROWS):
        end = start + batch.num_rows
        # Column by column first: from there numpy turns a block faster than pyarrow does the whole.
        matrix[start:end] = batch.to_tensor(null_to_nan=has_nulls, row_major=False).to_numpy()
        start = end
    return matrix


def _array(column: Any) -> NDArray[Any]:
    parts = [numpy_array(chunk) for chunk in column.chunks]
    if len(parts) == 1:
        return parts[0]
    concatenate = np.ma.concatenate if any(hasattr(part, "mask") for part in parts) else np.concatenate
    joined: NDArray[Any] = concatenate(parts)
    return joined


# -- answers -------------------------------------------------------------------------------------


def write_stream(reply: InferReply) -> bytes:
    """One record batch, a column per output, class, feature or target (`columnar/reply_table.py`)."""
    pa = arrow_library(NotAcceptable)
    table = _written(pa, reply)
    content = io.BytesIO()
    with pa.ipc.new_stream(content, table.schema) as writer:
        writer.write_table(table)
    return content.getvalue()


def write_parquet(reply: InferReply) -> bytes:
    """The same columns as `write_stream`, in one file."""
    pa = arrow_library(NotAcceptable)
    from pyarrow import parquet

    content = io.BytesIO()
    parquet.write_table(_written(pa, reply), content)
    return content.getvalue()


def _written(pa: Any, reply: InferReply) -> Any:
    columns = arrow_columns(pa, reply)
    return pa.Table.from_arrays(list(columns.values()), list(columns))


def arrow_columns(pa: Any, reply: InferReply) -> dict[str, Any]:
    """A pyarrow.Array for each column of the answer."""
    return {name: arrow_array(pa, _plain(values)) for name, values in table_of(reply).items()}


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """What Arrow has no type for as texts, as JSON has it: labels of several kinds, bytes, dates by the day."""
    if has_layout(values.dtype):
        return values
    texts = np.empty(len(values), dtype=object)
    texts[:] = [_text(plain_label(value)) for value in values]
    return texts


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
