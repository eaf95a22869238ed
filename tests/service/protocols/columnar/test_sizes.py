from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.protocols.columnar.sizes import Compact, Malformed, body_bytes, dictionary_of, message_bytes, parquet_bytes
from tests.service.protocols.columnar.bodies import mixed_table, parquet_file, stream

ROWS = 10_000
ZEROS = pa.table({"x": np.zeros(ROWS)})


def messages(body: bytes) -> list[int]:
    return [message_bytes(message.metadata, message.body) for message in pa.ipc.MessageReader.open_stream(body)]


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_a_batch_takes_what_it_takes_unpacked(compression: str | None) -> None:
    sizes = messages(stream(ZEROS, compression))

    assert sum(sizes) == 8 * ROWS


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_dictionaries_count_too(compression: str | None) -> None:
    coded = pa.table({"x": pa.array(["x" * 1000] * 50).dictionary_encode()})

    assert 1000 + 50 * 4 <= sum(messages(stream(coded, compression))) < 2000


def test_a_buffer_that_declares_a_negative_size_is_malformed() -> None:
    (_, batch) = pa.ipc.MessageReader.open_stream(stream(ZEROS, "zstd"))
    body = bytearray(batch.body.to_pybytes())
    body[:8] = (-2).to_bytes(8, "little", signed=True)

    with pytest.raises(Malformed, match="negative"):
        message_bytes(batch.metadata, bytes(body))


@given(metadata=st.binary(max_size=80), body=st.binary(max_size=16))
def test_any_metadata_are_a_size_or_malformed(metadata: bytes, body: bytes) -> None:
    with contextlib.suppress(Malformed):
        assert message_bytes(metadata, body) >= 0


def test_metadata_say_how_long_the_body_is() -> None:
    messages = list(pa.ipc.MessageReader.open_stream(stream(mixed_table())))

    assert [body_bytes(message.metadata) for message in messages] == [
        0 if message.body is None else len(message.body) for message in messages
    ]


@given(metadata=st.binary(max_size=64))
def test_any_metadata_have_a_body_or_are_malformed(metadata: bytes) -> None:
    with contextlib.suppress(Malformed):
        assert body_bytes(metadata) >= 0


def test_dictionaries_say_which_they_are_and_whether_they_add() -> None:
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    content = io.BytesIO()
    first, more = (pa.array(texts).dictionary_encode() for texts in (["a"], ["a", "b"]))
    with pa.ipc.new_stream(content, pa.schema({"x": first.type, "y": first.type}), options=options) as writer:
        for column in (first, more):
            writer.write(pa.record_batch([column, first.take(pa.array([0] * len(column)))], ["x", "y"]))

    messages = pa.ipc.MessageReader.open_stream(content.getvalue())
    found = [dictionary_of(message.metadata) for message in messages if message.type == "dictionary"]

    assert found == [(0, False), (1, False), (0, True)]


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zstd", "use_dictionary": False}, {"data_page_version": "2.0", "use_dictionary": False}],
)
def test_pages_take_what_they_take_unpacked(options: dict[str, Any]) -> None:
    noise = pa.table({"x": np.random.default_rng(0).normal(size=ROWS)})

    size = parquet_bytes(parquet_file(noise, **options))

    assert 8 * ROWS <= size < 11 * ROWS  # what is in a dictionary is followed by codes of two bytes


def test_values_that_are_repeated_count_as_often_as_they_come() -> None:
    body = parquet_file(pa.table({"x": np.zeros(ROWS), "truth": np.zeros(ROWS, dtype=bool)}))

    assert len(body) < ROWS
    assert parquet_bytes(body) >= 9 * ROWS


def test_every_column_row_group_and_page_counts() -> None:
    whole = parquet_bytes(parquet_file(mixed_table(400), use_dictionary=False))
    parts = parquet_bytes(parquet_file(mixed_table(400), use_dictionary=False, row_group_size=50, data_page_size=64))

    assert whole <= parts < 2 * whole


@pytest.mark.parametrize("body", [b"", b"PAR1" * 2, b"PAR1" + b"\xff" * 4 + b"PAR1", b"PAR1\x00\x00\x00\x00PAR2"])
def test_what_does_not_end_as_parquet_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        parquet_bytes(body)


def test_more_pages_than_anybody_writes_are_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.protocols.columnar.sizes._MOST_PAGES", 10)

    with pytest.raises(Malformed, match="more than 10 pages"):
        parquet_bytes(parquet_file(ZEROS, row_group_size=100))


@given(content=st.binary(max_size=100))
def test_any_struct_is_read_within_its_bounds(content: bytes) -> None:
    reader = Compact(content, 0, len(content))

    try:
        reader.struct()
    except Malformed:
        return

    assert reader.at <= len(content)


def test_a_struct_is_read_field_by_field() -> None:
    # 1: 16-bit -3, 2: true, 4: a struct {1: 64-bit 300}, 20: a list of two 32-bit numbers, 21: a text
    content = bytes([0x14, 5, 0x11, 0x2C, 0x16, 0xD8, 0x04, 0, 0x09, 40, 0x25, 2, 4, 0x18, 2, 65, 66, 0])

    assert Compact(content, 0, len(content)).struct() == {1: -3, 2: True, 4: {1: 300}, 20: [1, 2], 21: None}
