from __future__ import annotations

import re

import pytest

from service.core.errors import UnknownRoute
from service.protocols.docs import ASSETS, PAGE, START, asset, page
from tests.service.protocols.fake_server import FakeServer, get


def test_page_is_html() -> None:
    reply = page(FakeServer(), get("/docs"))

    assert (reply.status, reply.content_type, reply.body) == (200, "text/html; charset=utf-8", PAGE)


@pytest.mark.parametrize("text", [PAGE, START], ids=["page", "start"])
def test_page_refers_to_no_other_host(text: bytes) -> None:
    assert b"//" not in text


def test_every_file_that_the_page_names_is_served() -> None:
    named = re.findall(r'(?:href|src)="docs/([^"]+)"', PAGE.decode())

    replies = {name: asset(FakeServer(), get(f"/docs/{name}", file=name)) for name in named}

    assert set(named) == {*ASSETS, "start.js"}
    assert all(reply.status == 200 and reply.body for reply in replies.values())


@pytest.mark.parametrize(
    ("name", "kind", "beginning"),
    [
        ("swagger-ui.css", "text/css", b".swagger-ui"),
        ("swagger-ui-bundle.js", "text/javascript", b"/*! For license"),
        ("favicon-32x32.png", "image/png", b"\x89PNG"),
        ("start.js", "text/javascript", b"SwaggerUIBundle"),
    ],
)
def test_file_is_what_its_type_says(name: str, kind: str, beginning: bytes) -> None:
    reply = asset(FakeServer(), get(file=name))

    assert reply.content_type.startswith(kind)
    assert reply.body.lstrip().startswith(beginning)


def test_page_reads_the_document_from_beside_itself() -> None:
    assert b'url: "openapi.json"' in START


@pytest.mark.parametrize("name", ["", "..", "../secret", "swagger-ui.css.map", "swagger-ui.css/", "SWAGGER-UI.CSS"])
def test_other_file_is_not_served(name: str) -> None:
    with pytest.raises(UnknownRoute):
        asset(FakeServer(), get(file=name))
