from __future__ import annotations

import pickle

from service.entrypoints.limits import HttpLimits
from service.settings import Settings


def test_limits_are_those_of_the_settings_and_travel_to_workers() -> None:
    limits = HttpLimits.of(Settings(headers_timeout_s=3, max_connections=77))

    assert (limits.headers_timeout_s, limits.max_connections) == (3, 77)
    assert pickle.loads(pickle.dumps(limits)) == limits
