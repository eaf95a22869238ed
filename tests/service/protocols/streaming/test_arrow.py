from __future__ import annotations

import sys
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import InvalidRows, NotReceived, UnsupportedMediaType
from service.core.signature import Column
from service.protocols.streaming.arrow import ROWS, ArrowStream
from tests.service.protocols.fake_server import signature_of
from tests.service.protocols.streaming.bodies import pieces, stream_of
from tests.service.protocols.streaming.held import DEADLY, REFUSED, FakeHeld, adult, asked, said, waited

LABELLED = signature_of(Column(name="age", dtype="int64"), Column(name="city", dtype="string", nullable=True))


def people(*ages: Any) -> Any:
    return pa.record_batch({"age": pa.array(ages, pa.int64()), "city": pa.nulls(len(ages), pa.string())})


def stream(held: FakeHeld | None = None, outputs: tuple[str, ...] = ("predict",), **more: Any) -> ArrowStream:
    return ArrowStream(held or FakeHeld(), outputs, asked(**more))


def batches(content: bytes) -> list[dict[str, list[Any]]]:
    return [batch.to_pydict() for batch in pa.ipc.open_stream(content)]


def statuses(batch: dict[str, list[Any]]) -> list[Any]:
    """Of each row: its prediction, or of its error the row and the status."""
    found = []
    for prediction, error in zip(batch.get("predict", [None] * len(batch["error"])), batch["error"], strict=True):
        problem = None if error is None else orjson.loads(error)
        found.append(prediction if problem is None else (problem.get("row"), problem["status"]))
    return found


def test_batch_is_answered_with_a_batch() -> None:
    held = FakeHeld()

    got = batches(said(stream(held, ("predict", "predict_proba")), stream_of(people(25, 75), people(10))))

    assert got == [
        {"predict": ["yes", "yes"], "predict_proba_no": [0.75, 0.25], "predict_proba_yes": [0.25, 0.75],
         "error": [None, None]},
        {"predict": ["no"], "predict_proba_no": [0.9], "predict_proba_yes": [0.1], "error": [None]},
    ]  # fmt: skip
    assert held.sizes == [1, 2, 1]  # the example, and the batches


def test_answer_begins_with_a_schema_though_no_rows_come() -> None:
    content = said(stream(), stream_of(people()))

    assert pa.ipc.open_stream(content).schema.equals(pa.schema([("predict", pa.string()), ("error", pa.string())]))
    assert [batch.num_rows for batch in pa.ipc.open_stream(content)] == [0]


def test_schema_is_there_before_the_first_row() -> None:
    duplex = stream()
    sent = stream_of(people(41))
    first = next(
        size for size in range(8, len(sent), 8) if any(answer.result(0) for answer in stream().feed(sent[:size]))
    )

    answered = b"".join(answer.result(0) for answer in duplex.feed(sent[:first]))

    assert first == len(sent) - 8  # with the batch; before that nothing is to be said
    assert pa.ipc.open_stream(answered).read_next_batch().num_rows == 1


def test_wrong_rows_are_null_and_say_why() -> None:
    (got,) = batches(said(stream(), stream_of(people(41, None, 3, REFUSED, 20, DEADLY))))

    assert statuses(got) == ["yes", (1, 422), "no", (3, 422), "yes", (5, 500)]
    assert orjson.loads(got["error"][1])["errors"] == [
        {"row": 1, "column": "age", "expected": "an integer (int64)", "got": "null"}
    ]


def test_rows_are_counted_over_batches() -> None:
    got = batches(said(stream(), stream_of(people(41, 1), people(None))))

    assert statuses(got[1]) == [(2, 422)]


@given(cuts=st.lists(st.integers(0, 3000), max_size=8))
def test_answers_are_the_same_however_the_body_comes(cuts: list[int]) -> None:
    content = stream_of(people(41, None), people(), people(REFUSED, 3))

    assert said(stream(), *pieces(content, cuts)) == said(stream(), content)


def test_long_batch_is_answered_in_several() -> None:
    held = FakeHeld()

    got = batches(said(stream(held), stream_of(people(*[1] * (ROWS + 2)))))

    assert [len(batch["error"]) for batch in got] == [ROWS, 2]
    assert held.sizes == [1, ROWS, 2]


def test_batch_whose_rows_matter_to_each_other_is_computed_as_it_came() -> None:
    held = FakeHeld(merges=False)

    said(stream(held), stream_of(people(*[1] * (ROWS + 2))))

    assert held.sizes == [1, ROWS + 2]


def test_dictionaries_are_kept_added_to_and_replaced() -> None:
    seen: list[Any] = []

    def compute(request: Any) -> Any:
        seen.extend(request.rows.columns["city"])
        return adult(request)

    def batch(*cities: str) -> Any:
        return pa.record_batch({"age": [1] * len(cities), "city": pa.array(cities).dictionary_encode()})

    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    first, more, others = batch("Graz", "Linz"), batch("Graz", "Linz", "Wien"), batch("Wels")
    duplex = stream(FakeHeld(LABELLED, compute))

    got = batches(said(duplex, stream_of(first, first, more, others, options=options)))

    assert duplex.error is None
    assert seen[1:] == ["Graz", "Linz", "Graz", "Linz", "Graz", "Linz", "Wien", "Wels"]
    assert sum(len(one["error"]) for one in got) == 8


def test_dictionaries_that_grow_beyond_the_limit_end_the_stream() -> None:
    words = [f"{number:0100}" for number in range(40)]
    steps = [
        pa.record_batch({"age": [1], "city": pa.DictionaryArray.from_arrays(pa.array([0]), words[:end])})
        for end in (10, 20, 40)
    ]
    content = stream_of(*steps, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True))

    got = batches(said(stream(max_bytes=3_000), content))

    assert [statuses(batch) for batch in got] == [["no"], ["no"], [(None, 413)]]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        pytest.param(b"", 400, id="nothing"),
        pytest.param(b'{"age": 41}\n', 413, id="JSON, whose letters are a length"),
        pytest.param(stream_of(people(41))[:40], 400, id="a part of the schema"),
        pytest.param(b"\xff\xff\xff\xff\x08\x00\x00\x00" + bytes(8), 400, id="an empty message"),
        pytest.param(stream_of(pa.record_batch({"age": pa.array([[1]])})), 422, id="a list in a column"),
    ],
)
def test_what_is_no_stream_for_this_model_is_told_in_a_stream(content: bytes, status: int) -> None:
    duplex = stream(max_bytes=1_000_000)

    (got,) = batches(said(duplex, content))

    assert statuses(got) == [(None, status)]
    assert duplex.is_over
    assert list(duplex.feed(stream_of(people(41)))) == []


def test_stream_that_breaks_off_is_answered_as_far_as_it_came() -> None:
    content = stream_of(people(41), people(3))

    got = batches(said(stream(), content[:-40]))

    assert [statuses(batch) for batch in got] == [["yes"], [(None, 400)]]


@pytest.mark.parametrize("read", [0.0, 0.99], ids=["before the first row", "between two rows"])
def test_stream_that_is_failed_says_so_at_its_end(read: float) -> None:
    duplex = stream()
    content = stream_of(people(41), people(3))

    answered = b"".join(waited(duplex.feed(content[: int(len(content) * read)])))
    got = batches(answered + b"".join(waited(duplex.fail(NotReceived("body", 30)))))

    assert [statuses(batch) for batch in got] == [*([["yes"], ["no"]] if read else []), [(None, 408)]]
    assert duplex.is_over


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("columns", [("age", "colour"), ("city",)], ids=["unknown", "missing"])
def test_wrong_columns_end_the_stream(columns: tuple[str, ...], rows: int) -> None:
    batch = pa.record_batch({name: pa.array([1] * rows) for name in columns})

    got = batches(said(stream(), stream_of(batch, batch)))

    assert [statuses(batch) for batch in got] == [[(None, 422)]]


def test_message_that_unpacks_to_more_than_it_may_ends_the_stream() -> None:
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    content = stream_of(people(*[7] * 100_000), options=options)
    assert len(content) < 50_000

    (got,) = batches(said(stream(max_bytes=50_000), content))

    assert statuses(got) == [(None, 413)]
    assert "a message of the Arrow stream is larger than 50000 bytes once it is unpacked" in got["error"][0]


def test_batch_of_offsets_that_lead_outside_is_refused() -> None:
    content = stream_of(pa.record_batch({"age": [1, 2], "city": ["abc", "defgh"]}))
    offsets = np.array([0, 3, 8], np.int32).tobytes()
    assert content.count(offsets) == 1

    got = batches(said(stream(), content.replace(offsets, np.array([0, 3, 1_000_000], np.int32).tobytes())))

    assert [statuses(batch) for batch in got] == [[(None, 400)]]


@pytest.mark.parametrize("seed", range(60))
def test_changed_bytes_are_answered_by_a_sound_stream(seed: int) -> None:
    random = np.random.default_rng(seed)
    content = bytearray(stream_of(people(41, 3), people(1)))
    for place in random.integers(0, len(content), 3):
        content[place] = random.integers(256)

    got = batches(said(stream(max_bytes=100_000), bytes(content)))

    assert all("error" in batch for batch in got)


def test_answers_have_the_types_of_the_schema() -> None:
    def compute(request: Any) -> Any:
        values = adult(request)["predict_proba"]
        return {"predict_proba": values if request.rows.n_rows == 1 else np.asarray(values, np.float32)}

    got = batches(said(stream(FakeHeld(compute=compute), ("predict_proba",)), stream_of(people(25, 75))))

    assert got[0]["predict_proba_no"] == [0.75, 0.25]


def test_model_that_cannot_answer_its_example_has_no_columns_to_tell() -> None:
    duplex = stream(FakeHeld(compute=lambda request: (_ for _ in ()).throw(InvalidRows([]))))

    (got,) = batches(said(duplex, stream_of(people(41))))

    assert list(got) == ["error"]
    assert statuses(got) == [(None, 500)]


def test_without_pyarrow_there_is_no_such_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(UnsupportedMediaType, match="tandem-serving"):
        stream()
