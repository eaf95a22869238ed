"""Stacks, counted to parts of the program."""

from __future__ import annotations

from benchmarks.profiling import OTHER, by_part, percent

STACKS = (
    "run (/v/uvicorn/server.py:60);run (/r/service/runtimes/onnx.py:9);run (/v/onnxruntime/x.py:2) 6",
    "run (/v/uvicorn/server.py:60);app (/v/starlette/routing.py:7) 3",
    "main (/usr/lib/python3/runpy.py:1) 1",
)


def test_look_belongs_to_the_innermost_part_that_has_a_name() -> None:
    looks = by_part(STACKS)

    assert looks == {"engine": 6, "web framework": 3, OTHER: 1}


def test_shares_are_percent_with_the_largest_first() -> None:
    shares = percent({"a": 1, "b": 3})

    assert list(shares.items()) == [("b", 75.0), ("a", 25.0)]
