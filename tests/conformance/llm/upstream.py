"""Starts llama.cpp's server from a test, asks it directly, and looks at what it does."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.conformance import clients
from tests.conformance.servers import CLIENT, STOP_S, eventually

ENVIRONMENT: Final = "llm"
MODEL: Final = "tiny"
SCRIPT: Final = Path(__file__).parent / "server.py"


@dataclass(frozen=True, slots=True)
class LlamaServer:
    """`url` is without the `/v1` that Tandem and OpenAI's client are given."""

    url: str

    @property
    def api(self) -> str:
        return f"{self.url}/v1"

    def post(self, route: str, **body: Any) -> dict[str, Any]:
        """What it answers to `/v1/{route}`."""
        reply = CLIENT.post(f"{self.api}/{route}", json={"model": MODEL, **body})
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        return answer

    def generating(self) -> int:
        """Slots that are at work."""
        return sum(slot["is_processing"] for slot in CLIENT.get(f"{self.url}/slots").json())

    def tokens_made(self) -> int:
        """Since its start."""
        found = re.search(r"^llamacpp:tokens_predicted_total (\d+)", CLIENT.get(f"{self.url}/metrics").text, re.M)
        assert found is not None
        return int(found[1])


@contextlib.contextmanager
def llama_server(folder: Path) -> Iterator[LlamaServer]:
    """Ready to be asked; `folder` gets its model and its log."""
    python = clients.environment(ENVIRONMENT) / "bin" / "python"
    address, log = folder / "address", folder / "log"
    with address.open("wb") as output, log.open("wb") as errors:
        process = subprocess.Popen([python, SCRIPT, folder], stdin=subprocess.PIPE, stdout=output, stderr=errors)
    try:
        eventually(lambda: process.poll() is not None or address.read_text().endswith("\n"), "llama.cpp's server")
        assert process.poll() is None, log.read_text(errors="replace")[-5000:]
        yield LlamaServer(address.read_text().strip())
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(STOP_S)
        finally:
            process.kill()
