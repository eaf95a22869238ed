from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.protocols.media import media_type, preferred

OFFERED = ("application/json", "text/csv", "application/x-npy")


@pytest.mark.parametrize(
    ("header", "name", "parameters"),
    [
        ("text/csv", "text/csv", {}),
        ("Text/CSV ; Charset=UTF-8; header=absent", "text/csv", {"charset": "UTF-8", "header": "absent"}),
        ('text/csv;charset="utf-8";', "text/csv", {"charset": "utf-8"}),
        ("", "", {}),
        (";", "", {}),
    ],
)
def test_media_type_is_read_with_its_parameters(header: str, name: str, parameters: dict[str, str]) -> None:
    assert media_type(header) == (name, parameters)


@pytest.mark.parametrize(
    ("header", "is_utf8"),
    [("text/csv", True), ("text/csv; charset=US-ASCII", True), ("text/csv; charset=", True), ("a/b; charset=x", False)],
)
def test_text_is_utf8_unless_it_says_something_else(header: str, is_utf8: bool) -> None:
    assert media_type(header).is_utf8 is is_utf8


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        pytest.param("", "application/json", id="nothing said"),
        pytest.param("*/*", "application/json", id="anything"),
        pytest.param("*", "application/json", id="anything, in short"),
        pytest.param("text/csv", "text/csv", id="one"),
        pytest.param("TEXT/CSV;q=0.1", "text/csv", id="one, however little"),
        pytest.param("application/x-npy, text/csv", "application/x-npy", id="the first of several"),
        pytest.param("application/x-npy;q=0.5, text/csv;q=0.6", "text/csv", id="the best of several"),
        pytest.param("*/*, text/csv", "text/csv", id="what is named before what is not"),
        pytest.param("text/*", "text/csv", id="all of a kind"),
        pytest.param("text/html, application/*;q=0.2", "application/json", id="a kind that is left over"),
        pytest.param("*/*, application/json;q=0", "text/csv", id="anything but one"),
        pytest.param("*/*, application/*;q=0", "text/csv", id="anything but a kind"),
        pytest.param("application/*, application/json;q=0", "application/x-npy", id="a kind but one"),
        pytest.param("text/html", None, id="nothing on offer"),
        pytest.param("text/csv;q=0", None, id="nothing at all"),
        pytest.param("text/csv;q=much", "text/csv", id="a weight that is none"),
        pytest.param("text/csv;q=nan", "text/csv", id="a weight that is no number"),
        pytest.param(",;q=1,/,text", None, id="nonsense"),
    ],
)
def test_caller_gets_what_it_likes_best(accept: str, wanted: str | None) -> None:
    assert preferred(accept, OFFERED) == wanted


@given(accept=st.text(alphabet="*/;,=q.01 acst", max_size=40))
def test_whatever_is_accepted_is_on_offer(accept: str) -> None:
    assert preferred(accept, OFFERED) in (*OFFERED, None)
