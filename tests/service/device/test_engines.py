from __future__ import annotations

import pytest

from service.core.artefact_errors import ArtefactError, EstimatorUnusable
from service.device.engines import Engines
from service.runtimes.device_errors import DeviceUnavailable
from tests.service.device.fake_engines import Opener


def test_engine_is_opened_once_for_all_who_ask_the_same(engines: Engines, opener: Opener) -> None:
    keys = {engines.open({"a": 1, "b": 2}, "me"), engines.open({"b": 2, "a": 1}, "you")}

    assert len(keys) == 1
    assert opener.opened == 1


def test_engine_is_unloaded_when_nobody_holds_it(engines: Engines) -> None:
    key = engines.open({}, "me")
    engines.open({}, "me")
    engines.open({}, "you")
    engines.let_go("me", key)
    engines.let_go("you")
    engines.get(key)

    engines.let_go("me", key)

    with pytest.raises(DeviceUnavailable):
        engines.get(key)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(EstimatorUnusable("no"), EstimatorUnusable, id="ours"),
        pytest.param(OSError("no such file"), ArtefactError, id="another's"),
        pytest.param(MemoryError("std::bad_alloc"), DeviceUnavailable, id="memory"),
        pytest.param(SystemExit(), SystemExit, id="an exit"),
    ],
)
def test_opening_that_failed_is_tried_again_by_the_next(
    engines: Engines, opener: Opener, error: BaseException, expected: type[BaseException]
) -> None:
    opener.error = error
    with pytest.raises(expected):
        engines.open({}, "me")
    opener.error = None

    engines.open({}, "me")

    assert opener.opened == 2


def test_cuda_error_while_opening_leaves_the_process(
    engines: Engines, opener: Opener, left: list[BaseException]
) -> None:
    opener.error = RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    with pytest.raises(ArtefactError):
        engines.open({}, "me")

    assert left == [opener.error]
