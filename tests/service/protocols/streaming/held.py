"""A version that is held, whose answers are computed by the test; and what a stream of it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import orjson

from service.core.contracts import Served
from service.core.deadline import NEVER, Deadline
from service.core.errors import ModelFailed, RowsRefused
from service.core.futures import Done
from service.core.messages import InferReply, InferRequest
from service.core.signature import Container, Signature
from service.core.table import Values, column_arrays
from service.core.timing import Timing
from service.protocols.http import Duplex, HttpRequest
from tests.service.protocols.fake_server import AGE, CITY, signature_of

SHOP = signature_of(AGE, CITY)
NUMBERS = signature_of(
    *(AGE.model_copy(update={"name": f"x{place}", "dtype": "float64"}) for place in range(3)), container=Container.ARRAY
)

# No model stands these in the first column.
REFUSED, DEADLY = 13, 666

Compute = Callable[[InferRequest], dict[str, Values]]


def adult(request: InferRequest) -> dict[str, Values]:
    """Yes from 18 on, by the first column alone."""
    first = column_arrays(request.rows)[0]
    if (first == REFUSED).any():
        raise RowsRefused
    if (first == DEADLY).any():
        raise ModelFailed
    share = np.clip(first / 100, 0, 1)
    answers: dict[str, Values] = {
        "predict": np.where(first >= 18, "yes", "no"),
        "predict_proba": np.column_stack([1 - share, share]),
    }
    return {name: answers[name] for name in request.outputs}


class FakeHeld:
    """Implements `core.contracts.HeldVersion`."""

    def __init__(
        self,
        signature: Signature = SHOP,
        compute: Compute = adult,
        *,
        merges: bool = True,
        max_rows: int = 1_000_000,
    ) -> None:
        example = {column.name: "Graz" if column.dtype == "string" else 1 for column in signature.columns}
        self.served = Served("shop", 3, signature, example)
        self.merges = merges
        self.max_rows = max_rows
        self.sizes: list[int] = []  # of the requests that were computed
        self.deadlines: list[Deadline] = []
        self.closed = 0
        self._compute = compute

    def infer(
        self, request: InferRequest, deadline: Deadline = NEVER, *, may_block: bool = False
    ) -> Future[InferReply]:
        self.deadlines.append(deadline)
        self.sizes.append(request.rows.n_rows)
        try:
            outputs = self._compute(request)
        except Exception as error:
            return Done(exception=error)
        return Done(InferReply("shop", 3, self.served.signature, outputs))

    def close(self) -> None:
        self.closed += 1


def asked(timeout_s: float = 20.0, **more: Any) -> HttpRequest:
    http = HttpRequest("POST", "/predict/stream", {}, {}, {}, b"", "req-1", **more)
    http.deadline = Deadline.after(timeout_s)
    http.deadline.timing = Timing()
    return http


def said(duplex: Duplex, *pieces: bytes) -> bytes:
    """All that comes for these pieces and the end of the body."""
    return b"".join([*(b"".join(waited(duplex.feed(piece))) for piece in pieces), *waited(duplex.finish())])


def waited(answers: Iterator[Future[bytes]]) -> Iterator[bytes]:
    return (answer.result(timeout=20) for answer in answers)


def lines_of(content: bytes) -> list[Any]:
    assert content.endswith(b"\n") or not content
    return [orjson.loads(line) for line in content.split(b"\n")[:-1]]
