from __future__ import annotations

import contextlib
import gzip
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import (
    RequestError,
    RequestTooLarge,
    UnreadableRequest,
    UnsupportedCoding,
)
from service.protocols.coding import LEAST_BYTES, coded, uncoded
from service.protocols.http import HttpReply
from tests.service.protocols.fake_server import post

LIMIT = 1000


def raw_deflate(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(body) + stream.flush()


@given(st.binary(max_size=LIMIT))
def test_what_was_coded_comes_back(body: bytes) -> None:
    assert uncoded(gzip.compress(body), "gzip", LIMIT) == body
    assert uncoded(gzip.compress(body), " X-GZIP ", LIMIT) == body
    assert uncoded(zlib.compress(body), "deflate", LIMIT) == body
    assert uncoded(raw_deflate(body), "Deflate", LIMIT) == body
    assert uncoded(body, "identity", LIMIT) == body
    assert uncoded(body, "", LIMIT) == body


def test_members_of_gzip_are_one_body() -> None:
    assert uncoded(gzip.compress(b"ab") + gzip.compress(b"c"), "gzip", LIMIT) == b"abc"


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "compress", "x" * 500])
def test_other_codings_are_named(coding: str) -> None:
    with pytest.raises(UnsupportedCoding) as caught:
        uncoded(b"x", coding, LIMIT)

    assert coding[:20] in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("size", [LIMIT + 1, 10_000_000])
def test_bombs_do_not_go_off(coding: str, size: int) -> None:
    pack = gzip.compress if coding == "gzip" else zlib.compress

    with pytest.raises(RequestTooLarge):
        uncoded(pack(bytes(size)), coding, LIMIT)


def test_members_that_hold_nothing_cost_no_more_than_their_bytes() -> None:
    body = gzip.compress(b"") * 300_000
    started = time.process_time()

    assert uncoded(body, "gzip", LIMIT) == b""

    # Under a second; it was a minute while each member copied all that came after it.
    assert time.process_time() - started < 10


def test_limit_itself_is_within() -> None:
    assert len(uncoded(gzip.compress(bytes(LIMIT)), "gzip", LIMIT)) == LIMIT


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_cut_and_corrupt_bodies_are_refused(coding: str) -> None:
    whole = (gzip.compress if coding == "gzip" else zlib.compress)(b"hello hello hello")

    for broken in [whole[:-1], whole[:5], b"\0" + whole, whole + b"junk", whole[:-6] + b"\0\0\0\0\0\0"]:
        with pytest.raises(UnreadableRequest):
            uncoded(broken, coding, LIMIT)


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate"]))
def test_any_bytes_are_a_body_or_a_refusal(body: bytes, coding: str) -> None:
    with contextlib.suppress(RequestError):
        assert len(uncoded(body, coding, LIMIT)) <= LIMIT


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip;q=0.5", "gzip"),
        ("GZIP", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip; q=0.0", None),
        ("br", None),
        ("", None),
    ],
)
def test_reply_is_coded_as_its_caller_reads_it(accepted: str, expected: str | None) -> None:
    reply = HttpReply(200, bytes(LEAST_BYTES), headers={"x": "y"})

    sent = coded(reply, post(b"", headers={"accept-encoding": accepted}))

    assert sent.headers.get("content-encoding") == expected
    assert sent.headers["x"] == "y"
    assert uncoded(sent.body, expected or "", 10_000) == reply.body
    assert (sent.headers.get("vary") == "accept-encoding") == (expected is not None)


def test_small_reply_is_left_alone() -> None:
    reply = HttpReply(200, b"small")

    assert coded(reply, post(b"", headers={"accept-encoding": "gzip"})) is reply
