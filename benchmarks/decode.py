"""Decoding a request: our value decoder against the pydantic contract it is held to. `python -m benchmarks.decode`"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any, Final, Union

import numpy as np
import orjson
from pydantic import TypeAdapter

from service.core.signature import Column, Container, Output, Signature
from service.protocols.contract import request_types
from service.protocols.native import Exchange

REPEATS: Final = 5
OUTPUTS: Final = (Output(name="predict", dtype="int64"),)
MATRIX: Final = Signature(
    container=Container.ARRAY,
    columns=tuple(Column(name=f"x{i}", dtype="float64") for i in range(30)),
    outputs=OUTPUTS,
)
MIXED: Final = Signature(
    container=Container.FRAME,
    columns=(
        *(Column(name=f"number{i}", dtype="float64", nullable=True) for i in range(6)),
        *(Column(name=f"text{i}", dtype="string", nullable=True, categories=["a", "b"]) for i in range(6)),
    ),
    outputs=OUTPUTS,
)


def main() -> None:
    print("| body | rows | decoder | contract | ratio |\n|---|---|---|---|---|")
    for rows in (1, 100, 1000):
        numbers = np.random.default_rng(0).normal(size=(rows, 30))
        row("30 numbers, lists", rows, MATRIX, {"instances": numbers.tolist()})
        records = [
            {c.name: x if c.dtype == "float64" else "a" for c, x in zip(MIXED.columns, line, strict=False)}
            for line in numbers.tolist()
        ]
        row("6 numbers, 6 texts, objects", rows, MIXED, {"instances": records})


def row(what: str, rows: int, signature: Signature, content: dict[str, Any]) -> None:
    body = orjson.dumps(content)
    contract: TypeAdapter[Any] = TypeAdapter(Union[tuple(request_types("model", signature))])
    ours, theirs = (
        microseconds(lambda: Exchange(body).read(signature)),
        microseconds(lambda: contract.validate_json(body)),
    )
    print(f"| {what} | {rows} | {ours:.0f} µs | {theirs:.0f} µs | {theirs / ours:.1f} |")


def microseconds(call: Callable[[], object]) -> float:
    """The least of several rounds: what else the machine does can only add."""
    timer = timeit.Timer(call)
    number, _ = timer.autorange()
    return min(timer.repeat(REPEATS, number)) / number * 1e6


if __name__ == "__main__":
    main()
