"""Bodies of streams, and the ways they may be cut up on the way."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import pyarrow as pa


def pieces(content: bytes, cuts: list[int]) -> list[bytes]:
    """`content`, cut at these places, each taken modulo its length."""
    places = sorted({0, len(content), *(cut % (len(content) + 1) for cut in cuts)})
    return [content[start:end] for start, end in pairwise(places)]


def stream_of(*tables: Any, options: Any = None) -> bytes:
    """An Arrow IPC stream of tables or record batches."""
    content = io.BytesIO()
    with pa.ipc.new_stream(content, tables[0].schema, options=options) as writer:
        for table in tables:
            writer.write(table)
    return content.getvalue()
