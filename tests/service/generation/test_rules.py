from __future__ import annotations

from pathlib import Path

import pytest

from service.generation.address import parse_address
from service.generation.rules import UpstreamRules, UpstreamUnusable, check_parameters, key_of

ADDRESS = parse_address("http://127.0.0.1/v1")


def test_key_is_the_one_that_was_given() -> None:
    assert key_of(UpstreamRules(ADDRESS)) is None
    assert key_of(UpstreamRules(ADDRESS, key="sk-1")) == "sk-1"


def test_key_comes_from_its_file_without_the_newline(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-2\n")

    assert key_of(UpstreamRules(ADDRESS, key_file=tmp_path / "key")) == "sk-2"


@pytest.mark.parametrize("key", ["", "two words", "a\nb", "clé", "x" * 5000])
def test_key_that_no_header_can_hold_is_refused_and_not_repeated(key: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(key)

    for rules in (UpstreamRules(ADDRESS, key=key), UpstreamRules(ADDRESS, key_file=tmp_path / "key")):
        with pytest.raises(UpstreamUnusable, match="upstream_key") as caught:
            key_of(rules)
        assert not key or key not in str(caught.value)


def test_file_that_is_not_there_is_named_by_its_setting(tmp_path: Path) -> None:
    with pytest.raises(UpstreamUnusable, match="upstream_key_file: No such file"):
        key_of(UpstreamRules(ADDRESS, key_file=tmp_path / "none"))


def test_key_is_not_shown() -> None:
    assert "sk-1" not in repr(UpstreamRules(ADDRESS, key="sk-1"))


def test_parameters_are_names_that_choose_no_address() -> None:
    check_parameters(["top_k", "tools"])

    for name in ("api_base", "url", "headers", "Top-K", "", "a b"):
        with pytest.raises(ValueError):
            check_parameters([name])
