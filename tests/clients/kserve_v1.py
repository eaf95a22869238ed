"""Asks a server with KServe's own REST client, version 1, and prints what it says as JSON.

usage: python kserve_v1.py URL MODEL ROWS, in an environment that has kserve; ROWS are instances, as JSON
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx
from kserve import InferenceRESTClient, RESTConfig


async def ask(url: str, model: str, rows: list[Any]) -> dict[str, Any]:
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        return {
            "live": await client.is_server_live(url),
            "ready": await client.is_model_ready(url, model),
            "instances": await client.infer(url, {"instances": rows}, model),
            "objects": await client.infer(url, {"inputs": [dict(enumerate_columns(row)) for row in rows]}, model),
            "unknown": await refused(client.infer(url, {"instances": rows}, "nobody")),
            "unknown ready": await refused(client.is_model_ready(url, "nobody")),
            "wrong": await refused(client.infer(url, {"instances": [["x"]]}, model)),
            "explain": await refused(client.explain(url, model, {"instances": rows})),
        }


def enumerate_columns(row: list[Any]) -> list[tuple[str, Any]]:
    return [(f"x{place}", value) for place, value in enumerate(row)]


async def refused(call: Any) -> list[Any]:
    """The status and the words of an error."""
    try:
        await call
    except httpx.HTTPStatusError as error:
        return [error.response.status_code, str(error)]
    raise AssertionError("it was answered")


url, model, rows = sys.argv[1:]
print(json.dumps(asyncio.run(ask(url, model, json.loads(rows)))))
