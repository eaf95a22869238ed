from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.observability import counts
from service.observability.counts import OTHER, Counts, add_gauges, observe, read, write
from service.observability.families import FAMILIES
from tests.faults.cases import fault

CALLS = "tandem_engine_calls_total"
STAGES = "tandem_stage_duration_seconds"
BATCH = "tandem_batch_requests"


def test_what_is_counted_adds_up_by_its_labels() -> None:
    found = Counts()

    found.add(CALLS, ("onnx",))
    found.add(CALLS, ("onnx",), 2)
    found.add(CALLS, ("treelite",))

    assert found.counters == {CALLS: {("onnx",): 3, ("treelite",): 1}}


@pytest.mark.parametrize(
    ("value", "bucket"),
    [
        pytest.param(0, 0, id="below the first bound"),
        pytest.param(1, 0, id="at a bound, which belongs to its bucket"),
        pytest.param(3, 2, id="between two"),
        pytest.param(10_000, -2, id="beyond the last"),
    ],
)
def test_value_lies_in_the_bucket_whose_bound_is_the_next(value: float, bucket: int) -> None:
    found = Counts()

    observe(found.histogram(BATCH, ()), FAMILIES[BATCH].buckets, value)

    histogram = found.histograms[BATCH][()]
    assert histogram[bucket] == 1
    assert sum(histogram[:-1]) == 1
    assert histogram[-1] == value


@fault("O01", sent="a label that explodes", expected="bounded: the series that are too many become one")
def test_series_of_a_metric_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MOST", 10)
    found = Counts()

    for number in range(100):
        found.add(CALLS, (str(number),))
        observe(found.histogram(STAGES, (str(number), "queue")), FAMILIES[STAGES].buckets, 0.1)

    assert len(found.counters[CALLS]) == len(found.histograms[STAGES]) == 11
    assert found.counters[CALLS][OTHER,] == 90
    assert sum(found.histograms[STAGES][OTHER, OTHER][:-1]) == 90


_COUNTS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.just(CALLS), st.tuples(st.text(max_size=2)), st.integers(0, 9)),
        st.tuples(st.just("observe"), st.just(BATCH), st.just(()), st.integers(0, 500)),
        st.tuples(
            st.just("observe"), st.just(STAGES), st.tuples(st.text(max_size=1), st.just("queue")), st.integers(0, 40)
        ),
    )
)


def counted(steps: list[tuple[str, str, tuple[str, ...], int]]) -> Counts:
    found = Counts()
    for step, name, labels, value in steps:
        if step == "add":
            found.add(name, labels, value)
        else:
            observe(found.histogram(name, labels), FAMILIES[name].buckets, value)
    return found


@given(first=_COUNTS, second=_COUNTS)
def test_sum_of_two_processes_is_what_one_would_have_counted(first: list, second: list) -> None:  # type: ignore[type-arg]
    total = counted(first)

    total.include(counted(second))

    alone = counted(first + second)
    assert (total.counters, total.histograms) == (alone.counters, alone.histograms)


@given(steps=_COUNTS)
def test_what_is_written_is_read_again(steps: list) -> None:  # type: ignore[type-arg]
    before, gauges = counted(steps), {("tandem_queue_rows", ()): 3.0, ("tandem_model_versions", ("live",)): 1.0}

    after, gauges_after = read(write(before, gauges))

    assert (after.counters, after.histograms, gauges_after) == (before.counters, before.histograms, gauges)


def test_figures_of_another_version_of_the_service_are_left_out() -> None:
    content = write(Counts()).replace(b'"counters":[]', b'"counters":[["tandem_former_total",[],1]]')
    content = content.replace(b'"histograms":[]', b'"histograms":[["tandem_batch_rows",[],[1,2,3]]]')

    found, _ = read(content)

    assert (found.counters, found.histograms) == ({}, {})


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"counters": [1], "histograms": [], "gauges": []}'])
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises((ValueError, LookupError, TypeError)):
        read(content)


def test_gauges_are_summed_unless_all_processes_see_the_same() -> None:
    one = {("tandem_queue_rows", ()): 3.0, ("tandem_model_versions", ("live",)): 2.0}
    two = {("tandem_queue_rows", ()): 4.0, ("tandem_model_versions", ("live",)): 1.0}

    assert add_gauges([one, two]) == {("tandem_queue_rows", ()): 7.0, ("tandem_model_versions", ("live",)): 2.0}


def test_models_that_are_gone_are_forgotten_once_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MOST", 10)
    found = Counts()
    for number in range(6):
        found.add("tandem_prediction_rows_total", (f"model {number}", "1"))
    found.add(CALLS, ("onnx",))

    found.forget({"model 5"})

    assert found.counters == {"tandem_prediction_rows_total": {("model 5", "1"): 1}, CALLS: {("onnx",): 1}}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_families_keep_to_the_conventions(family: object) -> None:
    found = FAMILIES[family.name]  # type: ignore[attr-defined]

    assert found.name.endswith("_total") == (found.kind == "counter")
    assert found.name.removesuffix("_total").endswith(found.unit)
    assert bool(found.buckets) == (found.kind == "histogram")
    assert list(found.buckets) == sorted(set(found.buckets))
