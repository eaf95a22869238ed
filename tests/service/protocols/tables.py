"""Columns, cells and bodies drawn at random, for laws that hold for all of them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from service.core.signature import FLOATS, INTS, Column, Container, Output, Signature

OUTPUTS = (Output(name="predict", dtype="float64"), Output(name="transform", dtype="float64", shape=(2,)))
DTYPES = (*FLOATS, *INTS, "bool", "string", "datetime")
NAMES = ("x", "column_0", "größe", "a b", "", "outputs", "instances", "columns")
UNITS = ("s", "ms", "us", "ns")

EDGES = (
    0, 1, -1, 127, -129, 255, 2**11, 2**11 + 1, 65504, 65505, 2**24, 2**24 + 1, 2**31, 2**53, 2**53 + 1, -(2**53) - 1,
    2**60, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64, 2**64 + 1, 10**300, 10**400,
)  # fmt: skip
FLOAT_EDGES = (
    0.0, -0.0, 0.1, 1.0, 1.5, -3.0, 65504.0, 65519.0, 2.0**53, 2.0**53 + 2, 2.0**63, -(2.0**63), 2.0**64, 3.4028235e38,
    1e39, 1e300, -1.7976931348623157e308, 5e-324,
)  # fmt: skip
MOMENTS = (
    "2020-02-29", "2021-02-30", "2020-01-02T03:04", "2020-01-02 03:04:05", "2020-01-02T03:04:05.123456789",
    "2020-01-02T03:04:05Z", "2020-01-02T03:04:05.5+05:30", "2020-01-02T03:04:05+99:99", "2020-01-02T24:00",
    "1677-09-21T00:13:00+01:00", "2262-04-12", "0001-01-01", "10000-01-01", "2020-1-2", "now", "NaT", "",
)  # fmt: skip


@st.composite
def columns(draw: st.DrawFn, name: str = "x") -> Column:
    """A column of any dtype, as exported signatures have them."""
    dtype = draw(st.sampled_from(DTYPES))
    about: dict[str, Any] = {"name": name, "dtype": dtype, "nullable": draw(st.booleans())}
    if dtype in FLOATS:
        about["max_abs"] = draw(st.none() | st.sampled_from([0.0, 1.0, 0.1, 1000.5, 3.4028234663852886e38]))
    if dtype == "datetime":
        unit, zone = draw(st.sampled_from(UNITS)), draw(st.sampled_from([None, "Europe/Vienna"]))
        about |= {"timezone": zone, "pandas": f"datetime64[{unit}{', UTC' if zone else ''}]"}
    elif draw(st.booleans()):
        categories = {"string": ["a", "", "größe"], "bool": [True, False]}.get(dtype, [0, 1, 3])
        about |= {"categories": categories, "closed": draw(st.sampled_from([None, True]))}
    return Column.model_validate(about)


@st.composite
def signatures(draw: st.DrawFn) -> Signature:
    """One to three columns, alike or not; now and then a series."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    if draw(st.booleans()):
        alike = draw(columns())
        drawn = [alike.model_copy(update={"name": name}) for name in names]
    else:
        drawn = [draw(columns(name)) for name in names]
    container = draw(st.sampled_from([Container.FRAME, Container.ARRAY, Container.SERIES]))
    if container is Container.SERIES:
        drawn = drawn[:1]
    return Signature(container=container, columns=tuple(drawn), outputs=OUTPUTS)


def cells() -> st.SearchStrategy[Any]:
    """JSON values of every kind, those at the edge of what a type holds among them."""
    return st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from(EDGES),
        st.integers(),
        st.sampled_from(FLOAT_EDGES),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(["a", "größe", "1.5", "true", "null", *MOMENTS]),
        st.text(max_size=3),
        st.just([]),
        st.just({}),
        st.just([1]),
    )


def fitting(column: Column) -> st.SearchStrategy[Any]:
    """Values that `column` mostly takes."""
    if column.dtype == "bool":
        plain: st.SearchStrategy[Any] = st.booleans()
    elif column.dtype == "string":
        plain = st.sampled_from(["a", "", "größe"])
    elif column.dtype == "datetime":
        plain = st.sampled_from(["2020-01-02T03:04:05Z" if column.timezone else "2020-01-02"])
    else:
        plain = st.sampled_from([0, 1, 1.0, 0.0])
    return st.none() | plain if column.nullable else plain


def cells_for(column: Column) -> st.SearchStrategy[Any]:
    """Mostly values that fit, so that whole bodies do."""
    return st.integers(0, 9).flatmap(lambda dice: cells() if dice == 0 else fitting(column))


@st.composite
def bodies(draw: st.DrawFn, signature: Signature) -> Any:
    """A request to a model of `signature`, right or nearly so, as Python values of JSON."""
    rare = st.integers(0, 19).map(lambda dice: dice == 0)
    form = draw(st.sampled_from(["record", "lists", "objects", "columns", "flat"]))
    n_rows = draw(st.integers(0 if draw(rare) else 1, 3))

    def row() -> list[Any]:
        values = [draw(cells_for(column)) for column in signature.columns]
        if draw(rare):
            values.append(draw(cells()))
        return values[1:] if draw(rare) else values

    def record() -> dict[str, Any]:
        values = {column.name: draw(cells_for(column)) for column in signature.columns}
        if draw(rare):
            values[draw(st.sampled_from(["extra", "column_0", "outputs"]))] = draw(cells())
        leave_out = [c.name for c in signature.columns if (draw(st.booleans()) if c.nullable else draw(rare))]
        return {name: value for name, value in values.items() if name not in leave_out}

    body: Any
    if form == "record":
        body = record()
    elif form == "lists":
        body = {"instances": [row() for _ in range(n_rows)]}
    elif form == "objects":
        body = {"instances": [record() if not draw(rare) else row() for _ in range(n_rows)]}
    elif form == "flat":
        body = {"instances": [draw(cells_for(signature.columns[0])) for _ in range(n_rows)]}
    else:
        table: dict[str, Any] = {}
        for column in signature.columns:
            if not (draw(st.booleans()) if column.nullable else draw(rare)):
                length = n_rows + (1 if draw(rare) else 0)
                table[column.name] = [draw(cells_for(column)) for _ in range(length)]
        if draw(rare):
            table["extra"] = draw(cells())
        body = {"columns": table}
    if draw(st.booleans()):
        names = st.sampled_from([["predict"], ["transform", "predict"], ["predict"] * 2])
        body["outputs"] = draw(st.sampled_from([[], None, ["nothing"], "predict", {}])) if draw(rare) else draw(names)
    if draw(rare):
        body[draw(st.sampled_from(["extra", "instances", "columns"]))] = draw(cells())
    return body if not draw(rare) else draw(cells())
