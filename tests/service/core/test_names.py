from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.artefact_errors import NameInvalid, NameReserved
from service.core.names import RESERVED, check_model_name, check_name, is_foreign_name, is_name, parse_version
from service.protocols.routes import by_path
from service.settings import DialectName
from tests.faults.cases import fault


@pytest.mark.parametrize("text", ["a", "7", "Wine", "wine-2.1_b", "a.b-c_d", "x" * 100])
def test_name_of_letters_digits_and_marks_is_kept_unchanged(text: str) -> None:
    assert check_name(text) == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("x" * 101, id="too long"),
        pytest.param(".hidden", id="begins with a dot"),
        pytest.param("-flag", id="begins with a dash"),
        pytest.param("a..b", id="two dots"),
        pytest.param("..", id="parent folder"),
        pytest.param("a/b", id="slash"),
        pytest.param("a\\b", id="backslash"),
        pytest.param("a b", id="space"),
        pytest.param("a\n", id="newline at the end"),
        pytest.param("a\n..", id="newline before two dots"),
        pytest.param("wein-größe", id="letters beyond ASCII"),
        pytest.param("٣", id="digit beyond ASCII"),
        pytest.param("a\x00", id="null character"),
    ],
)
def test_other_spelling_is_refused_and_what_is_named_is_said(text: str) -> None:
    with pytest.raises(NameInvalid, match="label ") as caught:
        check_name(text, "label")

    assert len(str(caught.value)) < 400


@given(text=st.text(max_size=120))
def test_name_can_stand_in_a_url_a_folder_and_a_log_line(text: str) -> None:
    safe = text.isascii() and text.isprintable() and not set(text) & set("/\\%?#: \"'") and text not in (".", "..")

    assert safe or not is_name(text)


@pytest.mark.parametrize(("text", "version"), [("1", 1), ("42", 42), ("999999999", 999_999_999)])
def test_version_is_a_positive_number(text: str, version: int) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["", "0", "01", "-1", "+1", "1e3", "1.0", "1_0", " 1", "1\n", "1" * 10, "latest", "٣"])
def test_other_spelling_is_no_version(text: str) -> None:
    assert parse_version(text) is None


@fault("N07", sent="a model called like the beginning of each path of the service", expected="refused")
def test_no_path_begins_with_what_a_model_may_be_called() -> None:
    paths = by_path(get_args(DialectName), [])

    first = {path.split("/")[1] for path in paths} - {""}

    assert first <= RESERVED
    for name in first:
        with pytest.raises(NameReserved, match=f"a model cannot be called '{name}'"):
            check_model_name(name)


@fault("N02", sent="model.v1, a..b, ...", expected="one pattern at export, load and request: the first is a name")
def test_model_is_called_as_names_are_spelt() -> None:
    assert check_model_name("model.v1") == "model.v1"
    for text in ("a..b", "...", "a/b"):
        with pytest.raises(NameInvalid):
            check_model_name(text)


@pytest.mark.parametrize("text", ["llama3.2:1b", "org/Name-7B@main", "gpt-4o", "a+b"])
def test_names_of_language_models_are_as_their_servers_spell_them(text: str) -> None:
    assert is_foreign_name(text)


@pytest.mark.parametrize("text", ["", "../x", "/x", "a b", "a\n", "é", "x" * 201, ":1b"])
def test_what_could_be_more_than_a_name_is_none(text: str) -> None:
    assert not is_foreign_name(text)
