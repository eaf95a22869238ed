from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli import tandem
from service.repository.manifest import MANIFEST, MODEL, SIGNATURE


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(tandem, [str(argument) for argument in arguments])


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The name of a pair of keys, without `.key` and `.pub`."""
    assert _run("keys", "create", tmp_path / "mine").exit_code == 0
    return tmp_path / "mine"


def test_keys_are_made_with_what_to_do_with_them(tmp_path: Path) -> None:
    result = _run("keys", "create", tmp_path / "mine")

    assert f"tandem sign MODEL VERSION --key {tmp_path}/mine.key" in result.output
    assert f"tandem serve --trusted-key {tmp_path}/mine.pub" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.key", "mine.pub"]


def test_signed_version_is_verified(models: Path, key: Path) -> None:
    signed = _run("sign", "iris", 2, "--key", f"{key}.key", "--models", models)
    verified = _run("verify", "iris", "--trusted-key", f"{key}.pub", "--models", models)

    key_id = json.loads((models / "iris" / "2" / SIGNATURE).read_text())["key"]
    files = len(json.loads((models / "iris" / "2" / MANIFEST).read_text())["files"])
    assert signed.output == f"iris 2: signed by {key_id}\n"
    assert verified.output == f"iris 2: signed by {key_id}, {files} files as they were\n"


def test_what_is_damaged_is_not_signed(models: Path, key: Path) -> None:
    (models / "iris" / "2" / MODEL).write_bytes(b"")

    result = _run("sign", "iris", 2, "--key", f"{key}.key", "--models", models)

    assert result.exit_code == 1
    assert f"iris/2/{MODEL} is not the file that was exported" in result.output
    assert not (models / "iris" / "2" / SIGNATURE).exists()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        pytest.param(lambda version: (version / SIGNATURE).unlink(), "iris/2 is not signed", id="unsigned"),
        pytest.param(
            lambda version: (version / MODEL).write_bytes(b""), f"iris/2/{MODEL} is not the file", id="another file"
        ),
        pytest.param(lambda version: (version / "more").touch(), "iris/2/more is not listed", id="a file more"),
    ],
)
def test_what_is_not_as_it_was_signed_is_told(models: Path, key: Path, damage: object, told: str) -> None:
    assert _run("sign", "iris", 2, "--key", f"{key}.key", "--models", models).exit_code == 0
    damage(models / "iris" / "2")  # type: ignore[operator]

    result = _run("verify", "iris", 2, "--trusted-key", f"{key}.pub", "--models", models)

    assert result.exit_code == 1
    assert told in result.output


def test_version_of_an_unknown_signer_is_told(models: Path, key: Path, tmp_path: Path) -> None:
    _run("keys", "create", tmp_path / "other")
    _run("sign", "iris", 2, "--key", f"{key}.key", "--models", models)

    result = _run("verify", "iris", 2, "--trusted-key", tmp_path / "other.pub", "--models", models)

    assert result.exit_code == 1
    assert "which is not one of the trusted keys" in result.output
