from __future__ import annotations

import io
import pickle
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.artefact_errors import ModelFileUnreadable
from service.repository.pickle_names import global_names
from tests.service.repository.attacks import COMPRESSIONS, array_file, attacks, dumped, model, unreadable

_CANARY = "canary"


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("compress", [0, *((how, 3) for how in COMPRESSIONS)], ids=str)
def test_names_are_those_that_unpickling_looks_up(protocol: int, compress: Any) -> None:
    value = [model(), np.arange(12.0).reshape(3, 4).T, np.array(["a", 1, None], dtype=object), {1, 2}]

    names = global_names(dumped(value, compress, protocol))

    assert names == _looked_up(value, protocol)


def test_plain_pickle_is_read_as_well() -> None:
    names = global_names(pickle.dumps(model()))

    assert {"sklearn.preprocessing._data.StandardScaler", "numpy._core.multiarray.scalar"} <= names


def test_numpy_1_and_python_2_spellings_are_brought_up_to_date() -> None:
    data = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nc__builtin__\nset\ncpkg\nName\n\x87."

    assert global_names(data) == {"numpy._core.multiarray._reconstruct", "builtins.set", "pkg.Name"}


def test_name_with_dots_is_told_from_a_name_in_a_deeper_module() -> None:
    assert global_names(b"\x80\x04\x8c\x01a\x8c\x03b.c\x93.") == {"a:b.c"}
    assert global_names(b"\x80\x04\x8c\x03a.b\x8c\x01c\x93.") == {"a.b.c"}


def test_names_are_found_without_importing_them() -> None:
    before = set(sys.modules)

    names = global_names(b"cantigravity\ngeohash\n.")

    assert names == {"antigravity.geohash"}
    assert set(sys.modules) == before


@pytest.mark.parametrize("spelling", ["os\nsystem; rm -r x", "os;\nsystem", "\nsystem", "os..path\njoin", "os\n"])
def test_what_cannot_be_a_name_is_refused(spelling: str) -> None:
    with pytest.raises(ModelFileUnreadable, match="cannot be a name"):
        global_names(f"c{spelling}\n.".encode())


@pytest.mark.parametrize("name", attacks(_CANARY))
def test_dry_run_executes_nothing(name: str, tmp_path: Path) -> None:
    canary = tmp_path / _CANARY

    names = global_names(attacks(str(canary))[name])

    assert names
    assert not canary.exists()


@pytest.mark.parametrize("name", unreadable(_CANARY))
def test_file_that_no_exporter_writes_is_unreadable(name: str, tmp_path: Path) -> None:
    canary = tmp_path / _CANARY

    with pytest.raises(ModelFileUnreadable):
        global_names(unreadable(str(canary))[name])
    assert not canary.exists()


@pytest.mark.parametrize("name", ["4 GB array", "overflowing array", "4 GB bytearray"])
def test_memory_that_a_file_only_claims_is_never_allocated(name: str) -> None:
    data = unreadable(_CANARY)[name]
    tracemalloc.start()

    with pytest.raises(ModelFileUnreadable):
        global_names(data)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(data) < 512
    assert peak < 1 << 20


@pytest.mark.parametrize("compress", [0, *((how, 3) for how in COMPRESSIONS)], ids=str)
def test_file_cut_anywhere_is_unreadable(compress: Any) -> None:
    data = dumped([model(), np.arange(50.0), np.array(["a", None], dtype=object)], compress)

    for fiftieth in range(50):
        with pytest.raises(ModelFileUnreadable):
            global_names(data[: len(data) * fiftieth // 50])


@pytest.mark.parametrize("shape", [(0,), (0, 3), (8,), (2, 4), (), (1, 1, 1)], ids=str)
def test_array_that_fits_is_stepped_over(shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape)) * 8

    assert global_names(array_file(shape, content=bytes(size))) == {"numpy.ndarray"}


@given(st.binary(max_size=200))
def test_garbage_is_unreadable_or_harmless(data: bytes) -> None:
    try:
        names = global_names(data)
    except ModelFileUnreadable:
        return
    assert isinstance(names, frozenset)


@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_flipped_byte_is_unreadable_or_harmless(position: int, value: int) -> None:
    data = bytearray(_GOOD)
    data[position % len(data)] = value

    try:
        names = global_names(bytes(data))
    except ModelFileUnreadable:
        return
    assert isinstance(names, frozenset)


_GOOD = dumped([model(), np.array(["a", 1, None], dtype=object)])


def _looked_up(value: Any, protocol: int) -> frozenset[str]:
    """What joblib's own unpickler resolves, noted while it really loads."""
    names = set()

    class Noting(joblib.numpy_pickle.NumpyUnpickler):
        def find_class(self, module: str, name: str) -> Any:
            found = super().find_class(module, name)
            names.add(f"{getattr(found, '__module__', None) or module}.{name}")
            return found

    Noting("", io.BytesIO(dumped(value, 0, protocol)), True).load()
    return frozenset(names - {"_codecs.encode", "joblib.numpy_pickle.NumpyArrayWrapper", "numpy.dtype"})
