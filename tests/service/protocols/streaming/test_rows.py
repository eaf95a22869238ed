from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.deadline import Deadline
from service.core.errors import (
    DeadlinePassed,
    InvalidRows,
    ModelFailed,
    NotReceived,
    Overloaded,
    Problem,
    RequestTooLarge,
    RowsRefused,
    Unavailable,
    UnreadableRequest,
)
from service.core.messages import InferReply
from service.protocols.streaming.ndjson import NdjsonStream
from service.protocols.streaming.rows import of_row, woven
from tests.service.protocols.streaming.held import DEADLY, REFUSED, SHOP, FakeHeld, adult, asked, lines_of, said, waited


def stream(held: FakeHeld | None = None, **more: Any) -> NdjsonStream:
    return NdjsonStream(held or FakeHeld(), ("predict",), asked(**more))


def rows(*ages: Any) -> bytes:
    return b"".join(f'{{"age":{age}}}\n'.encode() for age in ages)


def summary(content: bytes) -> list[Any]:
    """Predictions, and of errors row and status."""
    return [
        line["prediction"] if "prediction" in line else (line["error"].get("row"), line["error"]["status"])
        for line in lines_of(content)
    ]


def test_rows_that_come_together_are_computed_together() -> None:
    held = FakeHeld()

    assert summary(said(stream(held), rows(41, 3, 17))) == ["yes", "no", "no"]
    assert held.sizes == [3]


def test_wrong_row_is_answered_in_its_place_and_the_others_are_computed() -> None:
    got = said(stream(), rows(41, '"x"', 17), rows("null", 20))

    assert summary(got) == ["yes", (1, 422), "no", (3, 422), "yes"]
    assert lines_of(got)[3]["error"]["errors"] == [
        {"row": 3, "column": "age", "expected": "an integer (int64)", "got": "null"}
    ]
    assert lines_of(got)[3]["error"]["detail"].startswith("row 3, column 'age'")


@pytest.mark.parametrize(("poison", "status"), [(REFUSED, 422), (DEADLY, 500)])
def test_row_that_the_model_cannot_stand_fails_alone(poison: int, status: int) -> None:
    held = FakeHeld()

    got = summary(said(stream(held), rows(*[20] * 40, poison, *[3] * 23)))

    assert got == [*["yes"] * 40, (40, status), *["no"] * 23]
    assert len(held.sizes) <= 13  # in halves, not one by one


def test_rows_of_which_some_are_wrong_are_computed_together() -> None:
    held = FakeHeld()
    ages: list[Any] = [20] * 100
    for wrong in (0, 17, 18, 60, 99):
        ages[wrong] = "null"

    got = summary(said(stream(held), rows(*ages)))

    assert [place for place, one in enumerate(got) if one == (place, 422)] == [0, 17, 18, 60, 99]
    assert got.count("yes") == 95
    assert held.sizes == [95]


def test_records_and_lists_that_come_together_are_each_computed() -> None:
    got = said(stream(), b'{"age":20}\n[3,null]\n{"age":4}\n[50,"Graz"]\n')

    assert summary(got) == ["yes", "no", "no", "yes"]


@given(kinds=st.text("sfw", max_size=12), together=st.integers(1, 4))
def test_errors_are_woven_in_where_their_rows_are(kinds: str, together: int) -> None:
    wrong: dict[int, BaseException] = {row: KeyError(row) for row, kind in enumerate(kinds) if kind == "w"}
    found: list[Any] = []
    for row, kind in enumerate(kinds):  # of those that are not wrong, some are answered together and some failed
        if kind == "f":
            found.append(ValueError(row))
        elif kind == "s" and found and isinstance(found[-1], list) and len(found[-1]) < together:
            found[-1].append(row)
        elif kind == "s":
            found.append([row])
    replies = [InferReply("m", 1, SHOP, {"predict": np.array(one)}) if isinstance(one, list) else one for one in found]

    seen: list[tuple[str, int]] = []
    for one in woven(replies, wrong):
        if isinstance(one, InferReply):
            seen += [("s", int(row)) for row in one.outputs["predict"]]  # type: ignore[union-attr]
        else:
            seen.append(("w" if isinstance(one, KeyError) else "f", one.args[0]))

    assert seen == [(kind, row) for row, kind in enumerate(kinds)]


def test_requests_are_no_larger_than_they_may_be() -> None:
    held = FakeHeld(max_rows=3)

    assert summary(said(stream(held), rows(*range(14, 22)))) == ["no"] * 4 + ["yes"] * 4
    assert held.sizes == [3, 3, 2]


def test_rows_that_matter_to_each_other_are_computed_one_by_one() -> None:
    held = FakeHeld(merges=False)

    said(stream(held), rows(1, 2, 3))

    assert held.sizes == [1, 1, 1]


@pytest.mark.parametrize(
    ("error", "status"),
    [(Unavailable("the service is stopping"), 503), (Overloaded("full"), 503), (DeadlinePassed(1), 504)],
    ids=["stopped", "never room", "late"],
)
def test_what_no_row_is_to_blame_for_is_the_last_item(error: Exception, status: int) -> None:
    def compute(request: Any) -> Any:
        if request.rows.n_rows == 2:
            raise error
        return adult(request)

    duplex = stream(FakeHeld(compute=compute))

    assert summary(said(duplex, rows(41), rows(3, 4), rows(5))) == ["yes", (None, status)]
    assert (duplex.is_over, duplex.error) == (True, error)


def test_stream_that_is_failed_says_so_at_its_end_and_nothing_after_that() -> None:
    error = NotReceived("body", 30)
    duplex = stream()
    answered = b"".join(waited(duplex.feed(rows(41) + b'{"age":')))

    last = b"".join(waited(duplex.fail(error)))

    assert summary(answered + last) == ["yes", (None, 408)]
    assert (duplex.is_over, duplex.error) == (True, error)
    assert [*duplex.fail(error), *duplex.feed(rows(3)), *duplex.finish()] == []


def test_each_part_has_the_time_of_a_request() -> None:
    held = FakeHeld()
    duplex = stream(held, timeout_s=50.0)

    said(duplex, rows(1), rows(2))

    first, second = held.deadlines
    assert (first.seconds, second.seconds) == (50.0, 50.0)
    assert first.at < second.at


def test_answer_is_asked_for_when_the_one_before_was_taken() -> None:
    held = FakeHeld(max_rows=1)
    answers = waited(stream(held).feed(rows(1, 2, 3)))

    next(answers)

    assert len(held.sizes) == 1


def test_answer_that_is_computed_elsewhere_is_waited_for() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(FakeHeld):
        def infer(self, request: Any, deadline: Any = None, *, may_block: bool = False) -> Any:
            from concurrent.futures import ThreadPoolExecutor

            pool = ThreadPoolExecutor(1)
            done = super().infer(request, deadline)
            begun.set()
            future = pool.submit(lambda: (go_on.wait(20), done.result())[1])
            pool.shutdown(wait=False)
            return future

    answers = stream(Slow()).feed(rows(41))
    waiting = next(answers)

    assert begun.is_set()
    assert not waiting.done()
    go_on.set()
    assert waiting.result(timeout=20) == b""
    assert summary(next(answers).result(timeout=20)) == ["yes"]


def test_closing_gives_up_what_is_computed() -> None:
    held = FakeHeld()
    duplex = stream(held)
    list(duplex.feed(rows(41)))

    duplex.close()

    assert (held.deadlines[0].is_cancelled, held.closed) == (True, 1)


def test_caller_that_may_block_lets_the_model_know() -> None:
    told: list[bool] = []

    class Told(FakeHeld):
        def infer(self, request: Any, deadline: Deadline | None = None, *, may_block: bool = False) -> Any:
            told.append(may_block)
            return super().infer(request)

    said(stream(Told(), may_block=True), rows(41))

    assert told == [True]


def test_rows_are_counted_for_the_figures() -> None:
    http = asked()
    duplex = NdjsonStream(FakeHeld(), ("predict",), http)

    said(duplex, rows(1, 2), rows('"x"', 4))

    assert http.deadline.timing is not None
    assert http.deadline.timing.rows == 4


@pytest.mark.parametrize(
    ("ages", "kind"),
    [
        pytest.param([1], type(None), id="nothing wrong"),
        pytest.param(['"x"', REFUSED], InvalidRows, id="the first of the caller's"),
        pytest.param(['"x"', DEADLY, 1.5], ModelFailed, id="the first of our own"),
    ],
)
def test_log_gets_one_error(ages: list[Any], kind: type) -> None:
    duplex = stream()

    said(duplex, rows(*ages))

    assert type(duplex.error) is kind
    assert not duplex.is_over


def test_answer_that_is_too_large_is_made_in_halves() -> None:
    def compute(request: Any) -> Any:
        if request.rows.n_rows > 2:
            raise RequestTooLarge("the answer would be too large")
        return adult(request)

    assert summary(said(stream(FakeHeld(compute=compute)), rows(*[20] * 8))) == ["yes"] * 8


def test_bug_of_ours_ends_the_stream_and_tells_nothing() -> None:
    duplex = stream(FakeHeld(compute=lambda request: {"predict": np.array([object()])}))

    got = lines_of(said(duplex, rows(41)))

    assert [(line["error"]["status"], line["error"].get("row")) for line in got] == [(500, None)]
    assert "object" not in got[0]["error"]["detail"]


@pytest.mark.parametrize(
    ("error", "rows_named"),
    [
        (InvalidRows([Problem(0, "age", "a number", "null"), Problem(None, "x", "a column", "none")]), [7, 7]),
        (RowsRefused(), None),
        (UnreadableRequest("no JSON"), None),
    ],
)
def test_error_names_the_row_of_the_stream(error: Exception, rows_named: list[int] | None) -> None:
    found = of_row(error, 7)

    if rows_named is None:
        assert found is error
    else:
        assert isinstance(found, InvalidRows)
        assert [problem.row for problem in found.problems] == rows_named
