"""What callers asked to load anew or to let go: the same orders for every process of a service."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final
from uuid import uuid4


@dataclass(frozen=True, slots=True)
class Order:
    """The last thing that was asked for one model. `number` counts its orders: what was loaded under another
    number is out of date.
    """

    number: int
    wanted: bool


# Of every model that nobody ever asked to load or to let go.
NO_ORDER: Final = Order(0, wanted=True)


class Orders:
    """The last order of each model. Called by one thread of each process.

    With a `path`, every process that has the same one gives and follows the same orders, and one that starts
    later follows them, too. Without, they are this process's own and end with it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: Mapping[str, Order] = MappingProxyType({})

    def read(self) -> Mapping[str, Order]:
        """The orders by model.

        Raises:
            OSError, ValueError: the file cannot be read, or holds something else.
        """
        if self._path is not None:
            # Before the first order there is no file. One that was removed takes no order back.
            with suppress(FileNotFoundError):
                self._known = _parse(self._path.read_bytes())
        return self._known

    def give(self, model: str, *, wanted: bool) -> Mapping[str, Order]:
        """Order `model` to be loaded anew, or to be let go, and return the orders as they are then.

        Raises: as `read` does, and OSError where the file cannot be written.
        """
        with self._alone():
            orders = self.read()
            order = Order(orders.get(model, NO_ORDER).number + 1, wanted)
            self._known = MappingProxyType({**orders, model: order})
            if self._path is not None:
                _write(self._path, self._known)
        return self._known

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process gives an order. The lock is on the folder: the file is another one each time."""
        if self._path is None:
            yield
            return
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def _parse(content: bytes) -> Mapping[str, Order]:
    orders = json.loads(content)
    return MappingProxyType({model: Order(int(number), bool(wanted)) for model, (number, wanted) in orders.items()})


def _write(path: Path, orders: Mapping[str, Order]) -> None:
    # Written beside and renamed: a reader sees the old orders or the new ones.
    draft = path.with_name(f".{path.name}.{uuid4().hex}")
    draft.write_text(json.dumps({model: (order.number, order.wanted) for model, order in orders.items()}) + "\n")
    os.replace(draft, path)
