from __future__ import annotations

import numpy as np
import orjson
import pytest

from service.core import artefact_errors
from service.core.errors import (
    CannotAnswer,
    ModelFailed,
    Overloaded,
    RowsRefused,
    TandemError,
)
from service.runtimes.device_errors import DeviceUnavailable, is_out_of_memory, is_sticky, pack_error, unpack_error
from service.runtimes.wire import Packing, WireError


def _named(module: str, name: str, *bases: type[Exception]) -> type[Exception]:
    """A class as the library has it, which is not installed here."""
    return type(name, bases, {"__module__": module})


_CUPY_MEMORY = _named("cupy.cuda.memory", "OutOfMemoryError", MemoryError)
_CUPY_CUDA = _named("cupy_backends.cuda.api.runtime", "CUDARuntimeError", RuntimeError)
_CUPY_DRIVER = _named("cupy_backends.cuda.api.driver", "CUDADriverError", RuntimeError)
_RMM = "std::bad_alloc: out_of_memory: CUDA error (failed to allocate 8 bytes): cudaErrorMemoryAllocation out of memory"

_MEMORY = [
    pytest.param(MemoryError(), id="python"),
    pytest.param(_CUPY_MEMORY("Out of memory allocating 8,000,000,000 bytes"), id="cupy"),
    pytest.param(MemoryError(_RMM), id="rmm"),
    pytest.param(RuntimeError("std::bad_alloc"), id="c++"),
    pytest.param(_CUPY_CUDA("cudaErrorMemoryAllocation: out of memory"), id="cuda runtime"),
    pytest.param(_CUPY_DRIVER("CUDA_ERROR_OUT_OF_MEMORY: out of memory"), id="cuda driver"),
]
_RAFT = (
    "CUDA error encountered at: file=x.cu line=3: call='cudaGetLastError()', Reason=cudaErrorLaunchFailure:unspecified"
)
_STICKY = [
    pytest.param(_CUPY_CUDA("cudaErrorIllegalAddress: an illegal memory access was encountered"), id="illegal access"),
    pytest.param(RuntimeError(_RAFT), id="launch failure, of raft"),
    pytest.param(_CUPY_DRIVER("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered"), id="driver"),
    pytest.param(_CUPY_CUDA("cudaErrorECCUncorrectable: uncorrectable ECC error encountered"), id="broken memory"),
    pytest.param(_CUPY_CUDA("cudaErrorDevicesUnavailable: device is busy or unavailable"), id="lost device"),
]
_OTHER = [
    pytest.param(ValueError("could not convert string to float"), id="value"),
    pytest.param(_CUPY_CUDA("cudaErrorInvalidValue: invalid argument"), id="a call's own error"),
    pytest.param(_CUPY_CUDA("cudaErrorNoDevice: no CUDA-capable device is detected"), id="no device"),
]


@pytest.mark.parametrize("error", _MEMORY)
def test_being_out_of_memory_is_known_and_not_sticky(error: Exception) -> None:
    assert (is_out_of_memory(error), is_sticky(error)) == (True, False)


@pytest.mark.parametrize("error", _STICKY)
def test_errors_that_poison_the_process_are_known(error: Exception) -> None:
    assert (is_out_of_memory(error), is_sticky(error)) == (False, True)


@pytest.mark.parametrize("error", _OTHER)
def test_other_errors_are_neither(error: Exception) -> None:
    assert (is_out_of_memory(error), is_sticky(error)) == (False, False)


def test_error_is_known_inside_the_one_that_wraps_it() -> None:
    wrapped = ModelFailed()
    wrapped.__cause__ = _CUPY_CUDA("cudaErrorIllegalAddress: an illegal memory access was encountered")

    assert is_sticky(wrapped)


def test_errors_that_cause_each_other_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first

    assert not is_sticky(first)


def _through(error: BaseException) -> TandemError:
    packing = Packing()
    spec = orjson.loads(orjson.dumps(pack_error(packing, error)))
    return unpack_error(spec, memoryview(bytearray(b"".join(packing.parts))))


@pytest.mark.parametrize(
    "error",
    [
        RowsRefused(),
        ModelFailed(),
        Overloaded("too much waits"),
        DeviceUnavailable("gone"),
        artefact_errors.EstimatorUnusable("no"),
        artefact_errors.DigestMismatch("a file is another"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_arrives_as_it_was(error: TandemError) -> None:
    got = _through(error)

    assert (type(got), str(got)) == (type(error), str(error))


def test_rows_that_cannot_be_answered_arrive_with_their_mask_and_the_answers_of_the_others() -> None:
    error = CannotAnswer("too close", np.array([True, False]), {"predict": np.array([1, 2])})

    got = _through(error)

    assert isinstance(got, CannotAnswer) and got.answers is not None
    assert (str(got), got.rows.tolist()) == ("too close", [True, False])
    assert np.array_equal(got.answers["predict"], [1, 2])


def test_rows_that_cannot_be_answered_arrive_without_answers_too() -> None:
    got = _through(CannotAnswer("too large", np.array([True])))

    assert isinstance(got, CannotAnswer)
    assert got.answers is None


def test_error_that_takes_values_arrives_with_its_words() -> None:
    error = artefact_errors.UntrustedNames(["os.system"])

    got = _through(error)

    assert (type(got), str(got)) == (artefact_errors.ArtefactError, str(error))


def test_what_a_foreign_error_says_stays_where_it_was_raised() -> None:
    got = _through(ValueError("/secret/path"))

    assert isinstance(got, ModelFailed)
    assert "secret" not in str(got)


@pytest.mark.parametrize("spec", [None, {}, {"kind": []}, {"kind": [], "detail": ""}, 3])
def test_error_that_is_none_is_told(spec: object) -> None:
    with pytest.raises(WireError):
        unpack_error(spec, memoryview(b""))
