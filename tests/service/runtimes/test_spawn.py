from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from service.runtimes.spawn import command, environment


def test_module_is_ours_whatever_lies_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)

    line = [*command("service.device.host"), "--help"]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_environment_keeps_what_was_there_and_adds_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/first")
    monkeypatch.setenv("KEPT", "yes")

    found = environment({"ADDED": "too"})

    assert (found["KEPT"], found["ADDED"]) == ("yes", "too")
    assert found["PYTHONPATH"].startswith("/first")
