"""Clients from PyPI, unmodified, in environments of their own (tests/tools/*_environment.sh)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

SCRIPTS: Final = Path(__file__).parent.parent / "clients"
# A client imports for two seconds on an idle machine, and asks for less than one.
PATIENCE_S: Final = 120.0


def needs(name: str) -> pytest.MarkDecorator:
    """Skips a test before anything is started for it, where there is no environment of this name."""
    why = _why_not(name)
    return pytest.mark.skipif(why is not None, reason=str(why))


def environment(name: str) -> Path:
    """The folder of the client's environment; without one the test is skipped."""
    if (why := _why_not(name)) is not None:
        pytest.skip(why)
    return Path(os.environ["TANDEM_CLIENTS"]) / name


def _why_not(name: str) -> str | None:
    folder = os.environ.get("TANDEM_CLIENTS")
    if folder is None:
        return "TANDEM_CLIENTS is not set: tests/tools/*_environment.sh DIR make what belongs there"
    if not (Path(folder) / name / "requirements").exists():
        return f"TANDEM_CLIENTS has no environment of {name}: one of tests/tools/*_environment.sh makes it"
    return None


def ask(name: str, script: str, *arguments: str, questions: Any) -> Any:
    """What `script` of tests/clients prints, when it is run in the environment `name`."""
    python = environment(name) / "bin" / "python"
    return json.loads(run(str(python), str(SCRIPTS / script), *arguments, given=json.dumps(questions)))


def run(*command: str, given: str = "") -> str:
    """What the command prints; it must succeed."""
    done = subprocess.run(
        command,
        input=given,
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout
