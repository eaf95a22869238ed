"""What is sent in each protocol, and what is made of the figures."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.protocols import (
    AGAINST,
    PROTOCOLS,
    arrow,
    engine_seconds,
    from_arrow,
    from_v2_binary,
    load,
    native_json,
    npy,
    report,
    rows_of,
    summary,
    targets,
    times_json,
    v2_binary,
    v2_json,
)

ROWS = rows_of(3)
FOUND = {
    10: {
        AGAINST: [100.0, 200.0, 100.0], "V2 JSON": [100.0] * 3, "V2 binary": [1000.0, 2400.0, 1100.0],
        "Arrow": [500.0] * 3, "npy": [1000.0] * 3, "V2 gRPC": [1000.0] * 3,
    }
}  # fmt: skip


def test_every_protocol_sends_the_same_rows() -> None:
    (tensor,) = json.loads(v2_json(ROWS)[0])["inputs"]
    body, headers = v2_binary(ROWS)
    sent = {
        "native": json.loads(native_json(ROWS)[0])["instances"],
        "v2": np.reshape(tensor["data"], tensor["shape"]),
        "binary": np.frombuffer(body, "<f4", offset=int(headers["Inference-Header-Content-Length"])).reshape(
            ROWS.shape
        ),
        "arrow": pa.ipc.open_stream(arrow(ROWS)[0]).read_all().to_pandas().to_numpy(),
        "npy": np.load(io.BytesIO(npy(ROWS)[0])),
    }

    for name, values in sent.items():
        assert np.array_equal(np.asarray(values, dtype="f4"), ROWS), name


def test_labels_are_read_out_of_every_reply() -> None:
    content = io.BytesIO()
    table = pa.table({"predict": [1, 0]})
    with pa.ipc.new_stream(content, table.schema) as writer:
        writer.write_table(table)

    assert from_arrow(content.getvalue(), {}).tolist() == [1, 0]
    tensor = b"{}" + np.array([1, 0]).tobytes()
    assert from_v2_binary(tensor, {"inference-header-content-length": "2"}).tolist() == [1, 0]


@pytest.mark.parametrize(("rows", "seconds"), [(1, 1.0), (2, 1.5), (3, 2.0), (30, 20.0)])
def test_the_engines_time_is_read_off_and_in_proportion_beyond(rows: int, seconds: float) -> None:
    engines = [{"seconds": {"1": 1.0, "3": 2.0}}, {"seconds": {"1": 5.0, "3": 60.0}}, {"seconds": None}]

    assert engine_seconds(engines)(rows) == seconds


def test_requests_of_all_connections_are_counted() -> None:
    calls: list[int] = []

    def ask() -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        calls.append(1)
        return np.zeros(1, dtype=np.int64)

    rate = load([ask, ask], 0.05)

    assert 0 < rate <= len(calls) / 0.05


def test_one_failure_fails_the_run() -> None:
    def ask() -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        raise RuntimeError("503")

    with pytest.raises(RuntimeError, match="503"):
        load([ask], 0.05)


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    assert times_json(FOUND[10], "V2 binary") == 11.0


def test_targets_are_told_whether_or_not_they_hold() -> None:
    told = targets(FOUND, lambda rows: rows / 3000)

    assert [(target["what"].partition(":")[0], target["holds"]) for target in told] == [
        ("V2 binary", True), ("V2 binary", True), ("Arrow", False), ("Arrow", False),
    ]  # fmt: skip
    assert told[1]["reached"] == pytest.approx(3000 / 1100)


def test_report_holds_every_round_and_the_summary_every_protocol() -> None:
    told = report(FOUND, lambda rows: 0.001)

    assert told["rows_per_second"]["10"]["Arrow"] == [500.0] * 3
    text = summary(FOUND, lambda rows: 0.001)
    assert all(f"| {protocol.name} |" in text for protocol in PROTOCOLS) and "**no**" in text
