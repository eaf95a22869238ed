from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from benchmarks.generation import Generations, _lines, table, text, upstream, verdicts
from benchmarks.processes import free_port


def phase(**changes: Any) -> dict[str, Any]:
    one = {"answered": 9, "p50_ms": 1.0, "p99_ms": 2.0, "refused": 0, "others": {}, "wrong": 0, "lost": 0}
    return {**one, "core_percent": 9, "pss_mib": 100.0, "threads": 20, **changes}


def test_upstream_says_as_many_words_as_it_is_asked_for() -> None:
    async def ask() -> httpx.Response:
        port = free_port()
        async with upstream(port), httpx.AsyncClient(trust_env=False) as client:
            return await client.post(f"http://127.0.0.1:{port}/v1/completions", json={"max_tokens": 3})

    *events, end = asyncio.run(ask()).text.split("\n\n")[:-1]

    choices = [json.loads(event.removeprefix("data: "))["choices"][0] for event in events]
    assert "".join(choice["text"] for choice in choices) == text(3)
    assert [choice.get("finish_reason") for choice in choices] == [None, None, None, "length"]
    assert end == "data: [DONE]"


def test_lines_are_whole_wherever_the_chunks_are_cut() -> None:
    async def read(body: bytes) -> list[bytes]:
        reader = asyncio.StreamReader()
        reader.feed_data(body)
        reader.feed_eof()
        return [line async for line in _lines(reader)]

    lines = asyncio.run(read(b"6\r\ndata: \r\n9\r\na\n\ndata: \r\n2\r\nb\n\r\n0\r\n\r\n"))

    assert lines == [b"data: a", b"", b"data: b"]


@pytest.mark.parametrize(
    ("name", "beside", "generations", "shown"),
    [
        pytest.param("Tandem FastAPI, uvicorn", phase(), Generations(finished=5), True, id="as it should be"),
        pytest.param("Tandem FastAPI, uvicorn", phase(threads=21), Generations(), False, id="a thread more"),
        pytest.param("Tandem Flask, granian", phase(threads=70), Generations(), True, id="threads of Flask"),
        pytest.param("Tandem Flask, granian", phase(wrong=1), Generations(), False, id="a wrong prediction"),
        pytest.param("Tandem Flask, granian", phase(), Generations(wrong=1), False, id="a wrong text"),
    ],
)
def test_what_is_to_be_shown(name: str, beside: dict[str, Any], generations: Generations, shown: bool) -> None:
    found = {"alone": phase(), "beside": beside, "generations": generations.figures()}

    assert all(verdicts(name, found).values()) is shown
    assert f"| 20 → {beside['threads']} |" in table({name: found})
