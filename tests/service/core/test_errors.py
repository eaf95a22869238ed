from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core import artefact_errors, errors
from service.core.errors import (
    InvalidRows,
    Problem,
    UnknownModel,
    shorten,
)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        pytest.param(
            Problem(3, "age", "a number", "true"), "row 3, column 'age': expected a number, got true", id="cell"
        ),
        pytest.param(Problem(0, None, "2 values", "3"), "row 0: expected 2 values, got 3", id="row"),
        pytest.param(Problem(None, "a", "a list", "null"), "column 'a': expected a list, got null", id="column"),
        pytest.param(Problem(None, None, "rows", "none"), "expected rows, got none", id="request"),
    ],
)
def test_problem_says_where_what_was_expected_and_what_came(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_invalid_rows_say_the_first_problem_and_how_many_there_are() -> None:
    one, two = Problem(0, "a", "a number", "null"), Problem(1, "a", "a number", "true")

    assert str(InvalidRows([one])) == str(one)
    assert str(InvalidRows([one, two])) == f"{one} (and 1 more)"
    assert str(InvalidRows([one, two], 10_000)) == f"{one} (and 9999 more)"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(errors.UnknownVersion("wine", [2, 3]), "it serves 2, 3", id="versions"),
        pytest.param(errors.UnknownVersion("wine", []), "it serves none", id="no versions"),
        pytest.param(errors.UnknownLabel("wine", {"stable", "canary"}), "it has canary, stable", id="labels"),
        pytest.param(errors.UnknownLabel("wine", {}), "it has none", id="no labels"),
        pytest.param(errors.MethodNotAllowed("PUT", ["GET", "HEAD"]), "this route answers GET, HEAD", id="methods"),
        pytest.param(errors.DeadlinePassed(2.5), "no answer within 2.5 seconds", id="seconds"),
        pytest.param(artefact_errors.UntrustedNames({"b.B", "a.A"}), "--trust a.A --trust b.B", id="names to trust"),
    ],
)
def test_error_says_what_there_is_instead(error: errors.TandemError, text: str) -> None:
    assert text in str(error)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(None, "null", id="null"),
        pytest.param(True, "true", id="true"),
        pytest.param(False, "false", id="false"),
        pytest.param(1.5, "1.5", id="float"),
        pytest.param(2**64, "18446744073709551616", id="integer beyond 64 bits"),
        pytest.param(10**4000, "an integer of more than 77 digits", id="integer without end"),
        pytest.param("1.5", "'1.5'", id="text"),
        pytest.param("a\nb\x1b", r"'a\nb\x1b'", id="control characters"),
        pytest.param("x" * 10_000_000, f"'{'x' * 58}…", id="huge text"),
        pytest.param([1] * 3, "a list of 3", id="list"),
        pytest.param({"a": 1}, "an object of 1", id="object"),
    ],
)
def test_value_is_shown_short_and_as_json_would_name_it(value: Any, text: str) -> None:
    assert shorten(value) == text


@given(value=st.text() | st.integers() | st.floats() | st.lists(st.text()) | st.binary())
def test_value_is_shown_on_one_line_of_at_most_sixty_characters(value: Any) -> None:
    shown = shorten(value)

    assert len(shown) <= 60
    assert shown.isprintable()


def test_log_hears_where_rows_are_wrong_and_no_value_of_them() -> None:
    error = InvalidRows([Problem(3, "age", "a number", "'c4n4ry'"), Problem(4, "age", "a number", "'x'")])

    assert str(error) == "row 3, column 'age': expected a number, got 'c4n4ry' (and 1 more)"
    assert error.for_log == "row 3, column 'age': expected a number (and 1 more)"
    assert UnknownModel().for_log == str(UnknownModel())


def test_log_hears_which_field_is_wrong_and_neither_its_value_nor_a_name_that_a_caller_chose() -> None:
    assert errors.InvalidField("user", "a text", "'canary'").for_log == "user: expected a text"
    assert errors.UnknownField("canary", "others").for_log == "a field of an unknown name"


def test_log_alone_hears_why_another_server_failed() -> None:
    error = errors.UpstreamFailed("it cannot be reached", "Connection refused")

    assert (str(error), error.for_log) == ("it cannot be reached", "it cannot be reached (Connection refused)")
    assert str(errors.UpstreamSilent(2.0, "did not begin")) == "the language model did not begin within 2 seconds"
