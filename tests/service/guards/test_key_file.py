from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.guards.key_file import add, entries, remove
from service.guards.keys import KeysInvalid, entry_of, new_key


def entry(name: str) -> dict[str, Any]:
    return entry_of(name, new_key(), ["predict"], [], None, None)


def test_keys_are_added_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    shop, bank = entry("shop"), entry("bank")

    add(path, shop)
    add(path, bank)
    remove(path, "shop")

    assert entries(path) == [bank]
    assert [file.name for file in tmp_path.iterdir()] == ["keys.json"]


def test_only_its_owner_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add(path, entry("shop"))
    path.chmod(0o644)

    add(path, entry("bank"))

    assert path.stat().st_mode & 0o777 == 0o600


def test_no_file_has_no_keys(tmp_path: Path) -> None:
    assert entries(tmp_path / "keys.json") == []


def test_second_key_of_a_name_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add(path, entry("shop"))
    before = path.read_bytes()

    with pytest.raises(KeysInvalid, match="there is a key 'shop' already"):
        add(path, entry("shop"))

    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["keys.json"]


def test_unknown_name_is_said(tmp_path: Path) -> None:
    with pytest.raises(KeysInvalid, match="there is no key 'shop'"):
        remove(tmp_path / "keys.json", "shop")


def test_broken_file_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [{"name": "shop"}]}))

    with pytest.raises(KeysInvalid, match="key 'shop'"):
        add(path, entry("bank"))

    assert "bank" not in path.read_text()


def test_of_two_who_write_at_once_one_is_told(tmp_path: Path) -> None:
    (tmp_path / ".keys.json.new").touch()

    with pytest.raises(KeysInvalid, match="somebody else is changing"):
        add(tmp_path / "keys.json", entry("shop"))


def test_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(KeysInvalid, match="cannot be written: No such file"):
        add(tmp_path / "none" / "keys.json", entry("shop"))
