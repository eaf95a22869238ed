"""How large a request and its answer may be, whatever dialect they come and go in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from service.core.errors import ReplyTooLarge, RequestTooLarge
from service.core.table import Matrix, SparseRows, Table, Values


@dataclass(frozen=True, slots=True)
class Limits:
    """`cells` are rows times columns. `reply_bytes` hold for an answer in memory; `Api` looks at what is written."""

    rows: int
    cells: int
    reply_bytes: int

    def check_rows(self, table: Table) -> None:
        """Raises RequestTooLarge."""
        rows, width = _shape(table)
        if rows > self.rows:
            raise RequestTooLarge(f"the request has {rows} rows; one request may have {self.rows}")
        if rows * width > self.cells:
            raise RequestTooLarge(f"the request has {rows} x {width} values; one request may have {self.cells}")

    def max_rows(self, width: int) -> int:
        """Rows of `width` columns that one request may have; at least 1."""
        return max(1, min(self.rows, self.cells // width))

    def check_answer(self, outputs: Mapping[str, Values]) -> None:
        """Raises ReplyTooLarge. Of texts only their places are counted."""
        size = sum(map(_size, outputs.values()))
        if size > self.reply_bytes:
            raise ReplyTooLarge(size, self.reply_bytes)


UNLIMITED: Final = Limits(2**63, 2**63, 2**63)


def _shape(table: Table) -> tuple[int, int]:
    if isinstance(table, Matrix):
        rows, width = table.values.shape
        return rows, width
    return table.n_rows, len(table.columns)


def _size(values: Values) -> int:
    """Bytes in memory."""
    if isinstance(values, SparseRows):
        return values.indptr.nbytes + values.indices.nbytes + values.data.nbytes
    return sum(target.nbytes for target in values) if isinstance(values, list) else values.nbytes
