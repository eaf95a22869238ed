"""Requests that schemathesis makes up from the OpenAPI document, valid and not, to the routes it describes in full."""

from __future__ import annotations

import os
import subprocess

from tests.conformance.clients import environment, needs
from tests.faults.cases import Came, fault
from tests.faults.fronts import Front

# What an answer must be, whatever was sent. That valid data is accepted is not among it: a schema cannot say that
# columns are of one length.
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")

# Eight seconds are for making up requests; importing it takes some more on a busy machine.
PATIENCE_S = 120


@needs("schemathesis")
@fault("J11", "T06", "O07", sent="what schemathesis makes up from the OpenAPI document", expected="documented answers")
def test_answers_are_as_documented(front: Front, came: Came) -> None:
    done = subprocess.run(
        [
            str(environment("schemathesis") / "bin" / "python"), "-m", "schemathesis.cli",
            "run", f"{front.running.url}/openapi.json",
            "--include-path", "/models/people/predict", "--checks", ",".join(CHECKS),
            "--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--max-time", "5",
            "--generation-deterministic", "--no-color",
        ],
        env={**os.environ, "NO_PROXY": "127.0.0.1"}, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip

    came(next((line.strip() for line in done.stdout.splitlines() if "generated" in line), done.returncode))
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
