"""The model repository extension of version 2. These servers let nobody load or unload a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from tests.conformance.corpus import JSON, METHODS, Case, case

INDEX: Final = "/v2/repository/index"
LOAD: Final = "/v2/repository/models/versions/load"
UNLOAD: Final = "/v2/repository/models/versions/unload"


def index() -> Iterator[Case]:
    """What there is."""
    bodies: dict[str, tuple[int, Any]] = {
        "an empty body": (200, b""),
        "a blank body": (200, b" \r\n"),
        "an empty object": (200, {}),
        "what is ready": (200, {"ready": True}),
        "ready or not": (200, {"ready": False}),
        "an unknown key": (200, {"ready": True, "limit": 3}),
        "ready as a number": (400, {"ready": 1}),
        "ready as null": (400, {"ready": None}),
        "ready as a text": (400, {"ready": "true"}),
        "a list": (400, []),
        "null": (400, b"null"),
        "no JSON": (400, b"{"),
        "no UTF-8": (400, b'{"\xff": 1}'),
        "a body of binary": (400, b"\x00\x01"),
    }
    for name, (status, body) in bodies.items():
        yield case(f"index with {name}", status, INDEX, body)
    yield case("index of a named repository", 200, "/v2/repository/models-of-mine/index", b"")
    yield case("index without a type", 200, INDEX, {"ready": True}, headers=())
    yield case("index in chunks", 200, INDEX, chunks=[b'{"ready"', b": true}"])
    yield case("index of a body that is too large", 413, INDEX, b"[" + b" " * 70000 + b"]")
    yield case("index with a query", 200, f"{INDEX}?ready=true", b"")


def changes() -> Iterator[Case]:
    """Loads and unloads, whatever they say, are not for callers of these servers."""
    for verb, path in {"load": LOAD, "unload": UNLOAD}.items():
        yield case(f"{verb} where it is not allowed", 403, path, b"")
        yield case(f"{verb} in a named repository", 403, path.replace("/models/", "/mine/models/", 1), b"")
        yield case(f"{verb} with parameters", 403, path, {"parameters": {"config": "{}"}})
        yield case(f"{verb} of an unknown model", 403, path.replace("versions", "nobody"), b"")
        yield case(f"{verb} with a body that is no JSON", 403, path, b"{")
        yield case(f"{verb} with a body that is too large", 403, path, b" " * 70000)


def methods() -> Iterator[Case]:
    for path in (INDEX, LOAD, UNLOAD, "/v2/repository/mine/index", "/v2/repository/mine/models/versions/load"):
        for method in METHODS:
            if method != "POST":
                yield case(f"{method} {path}", 405, path, method=method)


def paths() -> Iterator[Case]:
    for path in (
        "/v2/repository", "/v2/repository/", f"{INDEX}/", "/v2/repository//index", "/v2/repository/models/versions",
        "/v2/repository/models/versions/reload", "/v2/repository/a/b/index", "/v2/Repository/index",
    ):  # fmt: skip
        yield case(f"path {path}", 404, path, b"", headers=(JSON,))


CASES: Final = tuple(
    replace(one, name=f"repository: {one.name}") for part in (index, changes, methods, paths) for one in part()
)
