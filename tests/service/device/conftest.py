"""The engines of a device's process, opened by a fake; `left` is told why the process would have ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.device.engines import Engines
from service.device.guard import Watch
from service.scheduling.workers import Workers
from tests.service.device.fake_engines import Opener


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def left() -> list[BaseException]:
    return []


@pytest.fixture
def engines(opener: Opener, left: list[BaseException]) -> Iterator[Engines]:
    workers = Workers(2)
    workers.start()
    yield Engines(opener, workers, Watch(60), Watch(60), left.append)
    workers.stop()
