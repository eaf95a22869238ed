from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.repository.control import Order, Orders

_GIVE = """
import sys
from pathlib import Path
from service.repository.control import Orders

orders = Orders(Path(sys.argv[1]))
for number in range(50):
    orders.give(f"model-{number % 2}", wanted=bool(number % 3))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orders.json"


def test_before_the_first_order_there_is_none(path: Path) -> None:
    assert Orders().read() == {}
    assert Orders(path).read() == {}


@pytest.mark.parametrize("is_shared", [True, False])
def test_last_order_of_a_model_counts_those_before(is_shared: bool, path: Path) -> None:
    orders = Orders(path if is_shared else None)

    orders.give("iris", wanted=False)
    orders.give("wine", wanted=False)
    given = orders.give("iris", wanted=True)

    assert given == orders.read() == {"iris": Order(2, wanted=True), "wine": Order(1, wanted=False)}


def test_orders_of_one_process_are_those_of_all_that_share_the_file(path: Path) -> None:
    first, second = Orders(path), Orders(path)

    first.give("iris", wanted=False)
    second.give("iris", wanted=True)
    second.give("wine", wanted=False)

    assert first.read() == second.read() == {"iris": Order(2, wanted=True), "wine": Order(1, wanted=False)}
    assert Orders(path).read() == first.read()


def test_orders_without_a_file_are_nobody_elses() -> None:
    Orders().give("iris", wanted=False)

    assert Orders().read() == {}


def test_file_that_was_removed_takes_no_order_back(path: Path) -> None:
    orders = Orders(path)
    orders.give("iris", wanted=False)

    path.unlink()

    assert orders.read() == {"iris": Order(1, wanted=False)}
    assert orders.give("wine", wanted=False).keys() == {"iris", "wine"}
    assert Orders(path).read().keys() == {"iris", "wine"}


@pytest.mark.parametrize("content", [b"", b"no JSON", b'{"iris": "odd"}', b'{"iris": [true]}'])
def test_file_that_holds_something_else_is_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)

    with pytest.raises(ValueError):
        Orders(path).read()


def test_no_order_is_lost_where_several_processes_give_them_at_once(path: Path) -> None:
    line = [sys.executable, "-c", _GIVE, str(path)]

    givers = [subprocess.Popen(line) for _ in range(3)]

    assert [giver.wait(60) for giver in givers] == [0, 0, 0]
    assert {model: order.number for model, order in Orders(path).read().items()} == {"model-0": 75, "model-1": 75}
    assert os.listdir(path.parent) == ["orders.json"]
