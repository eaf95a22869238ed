"""Where a target leads. What is answered there is in `test_uvicorn_whole.py` and `test_gunicorn_whole.py`."""

from __future__ import annotations

import asyncio

import pytest

from service.entrypoints.turns import Turns
from service.entrypoints.whole import Whole
from tests.service.entrypoints.slow import SlowTandem


@pytest.fixture
def whole() -> Whole:
    tandem = SlowTandem(timeout_s=60)
    return Whole(tandem.api, tandem.paths, Turns(asyncio.get_running_loop))


def test_a_target_is_taken_apart(whole: Whole) -> None:
    found = whole.destination(b"POST", b"/models/a.b/predict?outputs=x,y&note=%C3%A9")

    assert found is not None
    assert found.path == "/models/a.b/predict"
    assert found.path_params == {"name": "a.b"}
    assert found.query == {"outputs": "x,y", "note": "é"}
    assert found.target_bytes == len(b"/models/a.b/predict?outputs=x,y&note=%C3%A9")
    assert found.route.path == "/models/{name}/predict"


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(b"/models/a%2Fb/predict", id="escaped"),
        pytest.param(b"/models/\xc3\xa9/predict", id="not ASCII"),
        pytest.param(b"/models/a/predict#part", id="a fragment"),
        pytest.param(b"http://localhost/predict", id="of a proxy"),
        pytest.param(b"*", id="of the server"),
        pytest.param(b"/predict?" + b"x" * 200, id="long"),
        pytest.param(b"/predict/stream", id="a stream"),
        pytest.param(b"/nowhere", id="no route"),
        pytest.param(b"/health/live", id="no POST"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_whatever_is_unusual_goes_the_long_way(whole: Whole, url: bytes) -> None:
    assert whole.destination(b"POST", url) is None


@pytest.mark.parametrize("method", [b"HEAD", b"PUT", b"OPTIONS", b"CONNECT", b"get"])
def test_of_other_methods_nothing_is_known_here(whole: Whole, method: bytes) -> None:
    assert whole.destination(b"GET", b"/health/live") is not None
    assert whole.destination(method, b"/health/live") is None


def test_no_caller_fills_the_memory_with_targets(whole: Whole) -> None:
    for number in range(10_000):
        whole.destination(b"POST", b"/predict?x=%d" % number)

    info = whole.destination.cache_info()
    assert info.maxsize is not None
    assert info.currsize <= info.maxsize <= 1000
