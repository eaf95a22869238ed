"""What goes wrong on a device or on the way to it, and how it is told across processes.

CUDA's errors are known by what they say, never by their class: importing the class would import CUDA,
and cupy, RMM, RAFT and cuML each have classes of their own around the same names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from service.core import artefact_errors, errors
from service.core.errors import (
    CannotAnswer,
    ModelFailed,
    RowsRefused,
    TandemError,
    Unavailable,
)
from service.runtimes.wire import Block, Packing, Spec, WireError, pack_answers, unpack_answers, unpack_array


class DeviceUnavailable(Unavailable):
    """The process that owns the device did not answer: another engine must, and this request lost nothing.

    `retry_after_s` is for callers who asked for this device and no other.
    """

    title = "Device unavailable"


# The runtime API spells its errors cudaErrorX, the driver API CUDA_ERROR_X.
_NAMES: Final = re.compile(r"cudaError[A-Z]\w*|CUDA_ERROR_[A-Z_]+")
_MEMORY_NAMES: Final = frozenset({"cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY"})
# RMM passes C++'s own name on, in a MemoryError or a RuntimeError.
_MEMORY_WORDS: Final = ("std::bad_alloc", "out_of_memory")
# Errors of one call, after which the context works on. All others are taken to be sticky: a process
# that leaves without need costs a second or two, one that stays with a dead context answers nothing any more.
_PASSING: Final = frozenset(
    {
        "cudaErrorInvalidValue", "cudaErrorInvalidConfiguration", "cudaErrorInvalidDeviceFunction",
        "cudaErrorNoKernelImageForDevice", "cudaErrorInvalidResourceHandle", "cudaErrorLaunchOutOfResources",
        "cudaErrorNotReady", "cudaErrorNotSupported", "cudaErrorInvalidDevice", "cudaErrorNoDevice",
        "cudaErrorInsufficientDriver", "CUDA_ERROR_INVALID_VALUE", "CUDA_ERROR_INVALID_HANDLE",
        "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "CUDA_ERROR_NOT_FOUND", "CUDA_ERROR_NO_DEVICE",
        "CUDA_ERROR_INVALID_DEVICE", "CUDA_ERROR_NO_BINARY_FOR_GPU", "CUDA_ERROR_INVALID_PTX",
        "CUDA_ERROR_NOT_SUPPORTED", "CUDA_ERROR_NOT_READY",
    }
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Of the device or of the host: a smaller batch may still fit. Engines wrap errors, so causes count."""
    return any(_is_memory(link) for link in _chain(error))


def is_sticky(error: BaseException) -> bool:
    """A CUDA error after which every later call of this process fails: only a new process recovers.

    Source: CUDA Runtime API, section "Data types", the entries of cudaError_t that say "the process must be
    terminated and relaunched".
    """
    found = (name for link in _chain(error) for name in _NAMES.findall(str(link)))
    return any(name not in _PASSING and name not in _MEMORY_NAMES for name in found)


def pack_error(packing: Packing, error: BaseException) -> Spec:
    """What a client may know of `error`. Anything that is no TandemError is a failed model."""
    if isinstance(error, CannotAnswer):
        answers = None if error.answers is None else pack_answers(packing, error.answers)
        return {"kind": "CannotAnswer", "detail": str(error), "rows": packing.add(error.rows), "answers": answers}
    if not isinstance(error, TandemError):
        return {"kind": "ModelFailed", "detail": ""}
    return {"kind": type(error).__name__, "detail": str(error)}


def unpack_error(spec: Any, block: Block) -> TandemError:
    """The error that `pack_error` described; one of a kind unknown here is a failed model.

    Raises:
        WireError: the description is none.
    """
    try:
        kind, detail = spec["kind"], str(spec["detail"])
        if kind == "CannotAnswer":
            answers = None if spec["answers"] is None else unpack_answers(spec["answers"], block)
            return CannotAnswer(detail, unpack_array(spec["rows"], block), answers)
        make = _MAKERS.get(kind)
    except (LookupError, TypeError) as error:
        raise WireError("an error that is none") from error
    return ModelFailed() if make is None else make(detail)


def _artefact_error(name: str) -> Callable[[str], TandemError]:
    kind: type[artefact_errors.ArtefactError] = getattr(artefact_errors, name)
    # Some take values, not words; their words travelled, so they become the plain kind.
    return kind if kind.__init__ is Exception.__init__ else artefact_errors.ArtefactError


_MAKERS: Final[Mapping[str, Callable[[str], TandemError]]] = {
    "DeviceUnavailable": DeviceUnavailable,
    "Unavailable": Unavailable,
    "Overloaded": errors.Overloaded,
    "RowsRefused": lambda detail: RowsRefused(),
    "ModelFailed": lambda detail: ModelFailed(),
    **{
        name: _artefact_error(name)
        for name, kind in vars(artefact_errors).items()
        if isinstance(kind, type) and issubclass(kind, artefact_errors.ArtefactError)
    },
}


def _is_memory(error: BaseException) -> bool:
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or any(word in text for word in _MEMORY_WORDS)
        or any(name in _MEMORY_NAMES for name in _NAMES.findall(text))
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
