from __future__ import annotations

import pytest

from benchmarks.soak import Sample, Soak, mix


def test_growth_is_that_of_the_second_half() -> None:
    found = Soak([Sample(memory, 1, 1) for memory in (0, 500, 1000, 1000, 1010, 1020, 1030, 1040)])

    assert found.growth_bytes() == 15.0
    assert found.slope_bytes(per_sample=10) == pytest.approx(1.0)
    assert found.grown() == []


@pytest.mark.parametrize(
    ("mib", "grown"),
    [
        pytest.param((0, 0, 0, 0, 100, 110, 120, 130), ["memory by 15.0 MiB"], id="it rises"),
        pytest.param((0, 0, 0, 0, 130, 110, 100, 100), [], id="it falls"),
    ],
)
def test_memory_that_goes_back_to_the_system_has_not_grown(mib: tuple[int, ...], grown: list[str]) -> None:
    found = Soak([Sample(each * 2**20, 1, 1) for each in mib])

    assert found.grown() == grown


def test_every_other_request_is_a_good_one() -> None:
    requests = mix("line", [1.0, 2.0])

    assert set(requests[::2]) == {requests[0]}
    assert len(set(requests[1::2])) == len(requests) // 2
