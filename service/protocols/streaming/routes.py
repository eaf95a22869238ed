"""The routes of streaming: the paths of prediction, and `/stream` behind them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from service.core.contracts import Server
from service.core.errors import NotAcceptable, UnsupportedMediaType, shorten
from service.protocols.columnar.formats import form_of
from service.protocols.http import DuplexReply, HttpRequest
from service.protocols.media import preferred
from service.protocols.native import query_outputs
from service.protocols.predict import target_of
from service.protocols.route import Route, Scope
from service.protocols.streaming.arrow import ArrowStream
from service.protocols.streaming.ndjson import NdjsonStream
from service.protocols.streaming.rows import RowStream

STREAMS: Final[Mapping[str, type[RowStream[Any]]]] = MappingProxyType(
    {
        "application/x-ndjson": NdjsonStream,
        "application/jsonlines": NdjsonStream,
        "application/jsonl": NdjsonStream,
        "application/x-jsonlines": NdjsonStream,
        "application/vnd.apache.arrow.stream": ArrowStream,
    }
)


def predict_stream(server: Server, http: HttpRequest) -> DuplexReply:
    """Answers of one version, in the form that the rows come in, while they come.

    Raises:
        UnsupportedMediaType: no stream of rows, or one that is compressed.
        NotAcceptable: its caller takes no answer of that form.
        UnknownModel, UnknownVersion, UnknownLabel, Unavailable: nothing to ask.
        InvalidRequest: `?outputs=` names what the model does not offer.
    """
    kind = stream_type(http.headers)
    held = server.hold(target_of(http), http.deadline)
    try:
        outputs = query_outputs(http.query.get("outputs"), held.served.signature)
        duplex = STREAMS[kind](held, outputs, http)
    except BaseException:
        held.close()
        raise
    served = held.served
    return DuplexReply(duplex, kind, headers={"x-model-name": served.model, "x-model-version": str(served.version)})


def stream_type(headers: Mapping[str, str]) -> str:
    """The media type of the rows and of their answers. Raises UnsupportedMediaType, NotAcceptable."""
    header, coding = headers.get("content-type", ""), headers.get("content-encoding", "identity")
    found = form_of(header)
    kind = found[1].name if found is not None else ""
    if kind not in STREAMS:
        got = repr(header[:60]) if header else "none"
        raise UnsupportedMediaType(f"expected Content-Type: {' or '.join(STREAMS)}, got {got}")
    if coding.strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType(f"a stream is read as it comes: expected no Content-Encoding, got {coding[:30]!r}")
    if preferred(headers.get("accept", ""), (kind,)) is None:
        raise NotAcceptable(
            f"answers come in the form of the rows, {kind}; Accept is {shorten(headers['accept'], 100)}"
        )
    return kind


ROUTES: Final = tuple(
    Route("POST", f"{path}/predict/stream", predict_stream, Scope.PREDICT, summary, streams=True, reads_pieces=True)
    for path, summary in (
        ("", "Answer rows of the default model while they come"),
        ("/models/{name}", "Answer rows while they come, by the version that is served"),
        ("/models/{name}/versions/{version}", "Answer rows while they come, by one version"),
        ("/models/{name}/labels/{label}", "Answer rows while they come, by the version that a label points at"),
    )
)
