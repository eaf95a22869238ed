"""Rows in other forms than JSON: Arrow, Parquet, CSV, JSON lines and npy, in and out.

A form turns a body into rows by the one decoder (`arrays.py`, `values.py`), and an answer into a body. Which
one a request comes in is said by Content-Type, and which one its answer goes out in by Accept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from service.core.errors import NotAcceptable, UnsupportedMediaType, shorten
from service.core.messages import InferReply
from service.core.signature import Signature
from service.core.table import Table
from service.protocols.columnar.arrow import read_parquet, read_stream, write_parquet, write_stream
from service.protocols.columnar.npy import read_npy, write_npy
from service.protocols.columnar.text import read_csv, read_lines, write_csv, write_lines
from service.protocols.http import JSON, HttpReply
from service.protocols.media import MediaType, media_type, preferred


@dataclass(frozen=True, slots=True)
class Form:
    """How rows and answers travel.

    `media_types` are its names; replies carry the first, unless they were asked for by another. `read` takes
    the body, the signature of the model, the parameters of the Content-Type, and how many bytes the rows may
    take once they are unpacked; it raises UnreadableRequest, RequestTooLarge, InvalidRequest.
    """

    media_types: tuple[str, ...]
    read: Callable[[bytes, Signature, Mapping[str, str], int], Table]
    write: Callable[[InferReply], bytes]


FORMS: Final = (
    Form(("application/vnd.apache.arrow.stream",), read_stream, write_stream),
    Form(("application/vnd.apache.parquet", "application/x-parquet"), read_parquet, write_parquet),
    Form(("text/csv",), read_csv, write_csv),
    Form(
        ("application/x-ndjson", "application/jsonl", "application/jsonlines", "application/x-jsonlines"),
        read_lines,
        write_lines,
    ),
    Form(("application/x-npy",), read_npy, write_npy),
)
BY_TYPE: Final[Mapping[str, Form]] = MappingProxyType({name: form for form in FORMS for name in form.media_types})


def form_of(content_type: str) -> tuple[Form, MediaType] | None:
    """The form that a body of this Content-Type has, and what else that says; None where it is none of these.

    Raises:
        UnsupportedMediaType: text in another charset than UTF-8.
    """
    given = media_type(content_type)
    form = BY_TYPE.get(given.name)
    if form is None:
        return None
    if not given.is_utf8:
        raise UnsupportedMediaType(f"text is read as UTF-8; got charset {shorten(given.parameters['charset'], 30)}")
    return form, given


def reply_type(accept: str, default: str) -> str:
    """The media type of the reply: that of JSON, or of a form.

    Raises:
        NotAcceptable: there is none that the caller takes.
    """
    found = preferred(accept, (default, *(name for name in (JSON, *BY_TYPE) if name != default)))
    if found is None:
        raise NotAcceptable(f"answers are {', '.join((JSON, *BY_TYPE))}; Accept is {shorten(accept, 100)}")
    return found


def write(reply: InferReply, kind: str) -> HttpReply:
    """The reply as a body of media type `kind`, with the model and its version in headers."""
    about = {"x-model-name": reply.model, "x-model-version": str(reply.version)}
    content_type = f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
    return HttpReply(200, BY_TYPE[kind].write(reply), content_type, about)
