from __future__ import annotations

import random
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import InvalidRequest, RequestTooLarge, UnreadableRequest
from service.core.signature import Container
from service.core.table import Matrix
from service.protocols.native import Exchange
from service.protocols.streaming.ndjson import LINE_BYTES, NdjsonStream, read_lines
from tests.service.protocols.fake_server import CITY, signature_of
from tests.service.protocols.streaming.bodies import pieces
from tests.service.protocols.streaming.held import DEADLY, NUMBERS, REFUSED, SHOP, FakeHeld, asked, lines_of, said


def stream(held: FakeHeld | None = None, outputs: tuple[str, ...] = ("predict",), **more: Any) -> NdjsonStream:
    return NdjsonStream(held or FakeHeld(), outputs, asked(**more))


def test_records_and_lists_are_answered_as_one_record_is() -> None:
    got = said(stream(outputs=("predict", "predict_proba")), b'{"age": 25}\n[75, "Graz"]\n')

    assert got == (
        b'{"prediction":"yes","probabilities":[0.75,0.25],"classes":["no","yes"]}\n'
        b'{"prediction":"yes","probabilities":[0.25,0.75],"classes":["no","yes"]}\n'
    )


def test_series_takes_a_value_per_line() -> None:
    held = FakeHeld(
        signature_of(CITY, container=Container.SERIES),
        lambda request: {"predict": np.array([str(city).lower() for city in request.rows.columns["city"]])},
    )

    assert lines_of(said(stream(held), b'"Graz"\nnull\n5\n'))[:2] == [{"prediction": "graz"}, {"prediction": "none"}]


def test_row_is_answered_as_soon_as_its_line_ends() -> None:
    duplex = stream()

    assert list(duplex.feed(b'{"age"')) == []
    assert b"".join(answer.result(0) for answer in duplex.feed(b':41}\n{"age":')) == b'{"prediction":"yes"}\n'


SOUND = st.sampled_from(
    [b'{"age":41}', b'{"age":3,"city":null}', b'[17,"Linz"]', b'{"age":18.0}\r', b'[18446744073709551615,"Graz"]']
)
WRONG = st.sampled_from(
    [
        b"",
        b" ",
        b"nonsense",
        b"[1],[2",
        b'[41,"Graz"],[3,"Linz"]',
        b'{"age":41}{"age":3}',
        b'{"age":1e400}',
        b'{"age":"x"}',
        b'{"age":41,"colour":1}',
        b"[1,2,3]",
        b"5",
        b'{"age":41,"city":"\xff"}',
        b"[" * 40 + b"]" * 40,
        b'[{"age":41}]',
        b"[%d]" % REFUSED,
        b'{"age":%d}' % REFUSED,
        b'{"age":%d}' % DEADLY,
        b'{"age":%d}' % 10**1200,
        b"x" * 300,
    ]
)


@given(lines=st.lists(SOUND | WRONG, max_size=12), cuts=st.lists(st.integers(0, 4000), max_size=8))
def test_answers_are_the_same_however_the_body_comes(lines: list[bytes], cuts: list[int]) -> None:
    content = b"\n".join(lines)

    whole = said(stream(max_bytes=250), content)

    assert said(stream(max_bytes=250), *pieces(content, cuts)) == whole
    alone = [said(stream(max_bytes=250), line) for line in lines if line.strip()]
    assert len(lines_of(whole)) == len(alone)
    for row, (got, one) in enumerate(zip(lines_of(whole), alone, strict=True)):
        (wanted,) = lines_of(one)
        assert got.get("prediction") == wanted.get("prediction")
        if "error" in wanted:
            assert (got["error"]["row"], got["error"]["type"]) == (row, wanted["error"]["type"])


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"[1,2,3],[4,5,6]", b"[7,8,9]"], id="two in one"),
        pytest.param([b"[1", b"2,3],[4,5,6]"], id="a row across lines"),
        pytest.param([b"[1,2,3],[4,5,6", b"7],[8,9,10]"], id="as many rows as lines"),
        pytest.param([b'[1,2,3]],"outputs":[[1]', b"[4,5,6]"], id="a word of the protocol"),
        pytest.param([b"[1,2,[3]]", b"[4,5,6]"], id="a list in a list"),
        pytest.param([b"[1,2,3]]", b"[[4,5,6]"], id="brackets that balance over lines"),
        pytest.param([b"[1,2]", b"[3,4,5,6]"], id="as many values"),
        pytest.param([b"[1,2,3]", b'"[4,5,6]"'], id="text"),
    ],
)
def test_no_line_smuggles_rows(lines: list[bytes]) -> None:
    padding = [b"[%s]" % b",".join([b"0.123456789012345678901234567890"] * 3)] * 20  # enough for the short way

    with pytest.raises((UnreadableRequest, InvalidRequest)):
        read_lines(padding + lines, NUMBERS)


@pytest.mark.parametrize("rows", [2, 40])  # the long way and the short one
@pytest.mark.parametrize("form", [list, dict])
def test_numbers_are_those_of_the_native_dialect(rows: int, form: type) -> None:
    values = np.random.default_rng(rows).normal(size=(rows, 3))
    content = [row if form is list else dict(zip(NUMBERS.names, row, strict=True)) for row in values.tolist()]

    found = read_lines([orjson.dumps(row) for row in content], NUMBERS)

    native = Exchange(orjson.dumps({"instances": content})).read(NUMBERS).rows
    assert isinstance(found, Matrix) and isinstance(native, Matrix)
    assert np.array_equal(found.values, native.values)
    assert np.array_equal(found.values, values)


def test_line_beyond_the_limit_is_an_error_and_the_next_is_read() -> None:
    held = FakeHeld()
    long = b'{"age":41,"city":"%s"}' % (b"x" * LINE_BYTES)

    got = lines_of(said(stream(held), *pieces(long + b'\n{"age":41}\n', list(range(0, LINE_BYTES, 65_536)))))

    assert [line.get("prediction", line.get("error", {}).get("status")) for line in got] == [413, "yes"]
    assert got[0]["error"]["detail"] == f"the line is longer than {LINE_BYTES} bytes"


def test_errors_of_a_line_speak_of_no_body() -> None:
    refused = (
        b"nonsense",
        b'{"age":NaN}',
        b'{"age":%s}' % (b"1" * 1200),
        b"[" * 40,
        b'{"age":"\xff"}',
        b"5",
        b"[1]",
        b"[]",
    )

    got = lines_of(said(stream(), b"\n".join(refused)))

    details = [line["error"]["detail"] for line in got]
    assert details[0].startswith("the line is not valid JSON: ")
    assert (len(details), [detail for detail in details if "body" in detail]) == (len(refused), [])


def test_line_as_long_as_may_be_passes() -> None:
    line = b'{"age":41}'

    assert lines_of(said(stream(max_bytes=len(line)), line)) == [{"prediction": "yes"}]
    with pytest.raises(RequestTooLarge):
        stream(max_bytes=len(line) - 1).read([line])


def test_error_is_no_longer_than_errors_may_be() -> None:
    names = random.Random(0).sample(range(10**9), 2000)
    line = orjson.dumps({f"{'x' * 50}{name}": 1 for name in names})

    answer = said(stream(), line)

    assert len(answer) < 9 * 1024
    assert lines_of(answer)[0]["error"]["errors"]


def test_signature_of_mixed_columns_reads_them() -> None:
    found = read_lines([b'{"age":1,"city":"Graz"}', b'{"city":null,"age":2}'], SHOP)

    assert {name: values.tolist() for name, values in found.columns.items()} == {  # type: ignore[union-attr]
        "age": [1, 2], "city": ["Graz", None],
    }  # fmt: skip
