from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.repository.policy import served_version, wanted_versions

_NUMBERS = st.sets(st.integers(1, 9))
_LABELS = st.dictionaries(st.sampled_from(["stable", "canary", "old"]), st.integers(1, 9))


@pytest.mark.parametrize(
    ("present", "labels", "failed", "keep", "wanted"),
    [
        pytest.param({1, 2, 3}, {}, set(), 2, {2, 3}, id="the newest"),
        pytest.param({1}, {}, set(), 2, {1}, id="fewer than may stay"),
        pytest.param(set(), {"stable": 1}, set(), 2, set(), id="nothing there"),
        pytest.param({1, 2, 3}, {"stable": 1}, set(), 1, {1, 3}, id="labelled stays beside the newest"),
        pytest.param({1, 2, 3}, {}, {3}, 1, {2}, id="failed is stepped over"),
        pytest.param({1, 2, 3}, {"stable": 3}, {3}, 1, {2}, id="labelled and failed"),
        pytest.param({2}, {"stable": 1}, set(), 1, {2}, id="label of what is not there"),
        pytest.param({2, 10}, {}, set(), 1, {10}, id="by number, not by text"),
    ],
)
def test_wanted_versions(
    present: set[int], labels: dict[str, int], failed: set[int], keep: int, wanted: set[int]
) -> None:
    assert wanted_versions(present, labels, failed, keep) == wanted


@given(present=_NUMBERS, labels=_LABELS, failed=_NUMBERS, keep=st.integers(1, 4))
def test_where_a_version_is_usable_one_is_wanted(
    present: set[int], labels: dict[str, int], failed: set[int], keep: int
) -> None:
    wanted = wanted_versions(present, labels, failed, keep)

    assert wanted <= present - failed
    assert bool(wanted) == bool(present - failed)
    assert len(wanted - set(labels.values())) <= keep


@pytest.mark.parametrize(
    ("live", "labels", "served"),
    [
        pytest.param({1, 2}, {}, 2, id="the newest"),
        pytest.param({1, 2}, {"stable": 1}, 1, id="the stable one"),
        pytest.param({1, 2}, {"canary": 1}, 2, id="other labels are asked for by name"),
        pytest.param({1, 2}, {"stable": 3}, 2, id="stable is not live"),
        pytest.param(set(), {"stable": 3}, None, id="nothing is live"),
    ],
)
def test_served_version(live: set[int], labels: dict[str, int], served: int | None) -> None:
    assert served_version(live, labels) == served


@given(live=_NUMBERS, labels=_LABELS)
def test_where_a_version_is_live_one_is_served(live: set[int], labels: dict[str, int]) -> None:
    served = served_version(live, labels)

    assert served in live if live else served is None


def test_versions_below_the_floor_are_wanted_only_with_a_label() -> None:
    assert wanted_versions([1, 2, 3, 4], {}, [], 2, floor=4) == {4}
    assert wanted_versions([1, 2, 3, 4], {"old": 1}, [], 2, floor=4) == {1, 4}
    assert wanted_versions([1, 2, 3], {}, [], 2, floor=4) == set()
    assert wanted_versions([1, 2, 3, 4, 5], {}, [5], 2, floor=4) == {4}


@pytest.mark.parametrize(
    ("live", "labels", "served"),
    [
        pytest.param([2, 3], {}, 3, id="the floor itself"),
        pytest.param([1, 2], {}, None, id="only older ones"),
        pytest.param([1, 2], {"old": 1}, None, id="another label says nothing of plain requests"),
        pytest.param([1, 2], {"stable": 1}, 1, id="an operator's act"),
    ],
)
def test_plain_requests_get_nothing_below_the_floor_but_what_is_stable(
    live: list[int], labels: dict[str, int], served: int | None
) -> None:
    assert served_version(live, labels, floor=3) == served
