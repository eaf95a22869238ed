from __future__ import annotations

import http.client
import io
import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest

from benchmarks.processes import ServerFailed
from benchmarks.streaming import forms, table, within


class Answer:
    """As much of an HTTPResponse as is read."""

    closed = False

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)
        self.read = self._content.read
        self.read1 = self._content.read1


def answer(content: bytes) -> http.client.HTTPResponse:
    found: Any = Answer(content)
    return found  # type: ignore[no-any-return]


def batch(*errors: str | None) -> bytes:
    content = io.BytesIO()
    rows = pa.record_batch({"predict": [1] * len(errors), "error": pa.array(errors, pa.string())})
    with pa.ipc.new_stream(content, rows.schema) as writer:
        writer.write(rows)
        writer.write(rows)
    return content.getvalue()


def test_blocks_have_the_rows_that_they_say() -> None:
    known = forms()

    assert known["NDJSON"].block.count(b"\n") == known["NDJSON"].rows
    arrow = known["Arrow"]
    with pa.ipc.open_stream(arrow.head + 2 * arrow.block + arrow.tail) as reader:
        assert [len(rows) for rows in reader] == [0, arrow.rows, arrow.rows]


@pytest.mark.parametrize(
    ("form", "sound", "wrong"),
    [
        ("NDJSON", b'{"prediction":1}\n' * 4, b'{"prediction":1}\n{"error":{}}\n'),
        ("Arrow", batch(None, None), batch(None, "{}")),
    ],
)
def test_rows_are_counted_and_none_may_have_an_error(form: str, sound: bytes, wrong: bytes) -> None:
    count = forms()[form].count

    assert count(answer(sound)) == 4
    with pytest.raises(ServerFailed):
        count(answer(wrong))


@pytest.mark.parametrize(("mib", "exit_code"), [(10, 0), (300, 1)])
def test_process_gets_no_more_memory_than_it_may_have(mib: int, exit_code: int) -> None:
    takes = f"import sys\ntry: bytearray({mib} << 20)\nexcept MemoryError: sys.exit(1)"

    assert subprocess.run(within(256, [sys.executable, "-c", takes])).returncode == exit_code


def test_table_has_a_line_for_each_form_of_each_server() -> None:
    told = {"rows_per_s": 55000, "sent_mib": 591, "pss_mib": {"before": 94.1, "highest": 95.4}}

    assert table({"uvicorn": {"NDJSON": told}}).splitlines()[2:] == [
        "| uvicorn | NDJSON | 55,000 | 591 MiB | 94.1 MiB | 95.4 MiB |"
    ]
