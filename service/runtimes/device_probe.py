"""The child of `device.probe`: goes as far towards a prediction on the GPU as it gets, and says where it is.

NVML               how many devices there are; CUDA stays untouched
CUDA               whether it sees one of them, what it is, and whether the driver is new enough
cupy               memory is allocated, a kernel is compiled and run, its result compared
nvForest or cuML   a known row is predicted
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from service.runtimes.device import MARK, Device

# What the wheels of cuML and nvForest hold machine code for.
_LEAST_CAPABILITY: Final = (7, 5)
# By the CUDA of the installed cupy: what `cuDriverGetVersion` must say, and the driver that is called so.
_CUDA_13: Final = (13000, "580")
_CUDA_12: Final = (12000, "525")

_SUCCESS: Final = 0
_NO_DEVICE: Final = 100  # CUDA_ERROR_NO_DEVICE
_DRIVER_NOT_LOADED: Final = 9  # NVML_ERROR_DRIVER_NOT_LOADED
# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_CAPABILITY: Final = (75, 76)

_INSTALL: Final = 'pip install "tandem-serving[gpu]"'


class _NotUsable(Exception):
    """Why not, in a sentence."""


def main() -> None:
    """The child: one line per stage, the last one with the verdict."""
    found = Device()

    def learn(stage: str, **facts: Any) -> None:
        nonlocal found
        found = replace(found, **facts)
        print(MARK + json.dumps({"stage": stage, "device": asdict(found)}), flush=True)

    try:
        _examine(learn)
    except _NotUsable as reason:
        learn("the probe", reason=str(reason))
    else:
        what = f"{found.name}, compute capability {found.compute_capability}"
        learn("the probe", usable=True, reason=f"{what}, computed a kernel and predicted a known row")


def _examine(learn: Callable[..., None]) -> None:
    """Raises _NotUsable."""
    learn("NVML")
    driver = _ask_nvml()
    learn("starting CUDA", driver=driver or "")
    count, name, capability, memory_bytes, cuda = _ask_cuda()
    spelt = f"{capability[0]}.{capability[1]}"
    learn("cupy's import", count=count, name=name, compute_capability=spelt, memory_bytes=memory_bytes)
    if capability < _LEAST_CAPABILITY:
        least = ".".join(map(str, _LEAST_CAPABILITY))
        raise _NotUsable(f"{name} has compute capability {spelt}; {least} or newer is needed")
    needed, called = _needed_driver()
    if cuda < needed:
        has = f"driver {driver}" if driver else f"the driver for CUDA {cuda // 1000}.{cuda % 1000 // 10}"
        raise _NotUsable(f"{has} is too old for CUDA {needed // 1000}: {called} or newer is needed")
    cupy = _imported("cupy")
    learn("a first kernel")
    _attempt("a first kernel", lambda: _run_kernel(cupy))
    learn("a known row")
    if importlib.util.find_spec("nvforest") is not None:
        _attempt("a known row in nvForest", _predict_with_nvforest)
    elif importlib.util.find_spec("cuml") is not None:
        _attempt("a known row in cuML", _predict_with_cuml)
    else:
        raise _NotUsable(f"{name} works, but neither nvforest nor cuml is installed: {_INSTALL}")


def _ask_nvml() -> str | None:
    """The driver's version, or None where only CUDA's own library is there, as in some containers.

    Source: NVML API reference, sections "Initialization and Cleanup", "System Queries" and "Device Queries". Six calls
    through ctypes rather than a package for them: it would have to be optional, and so replace nothing.
    """
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        if _cuda_library() is None:
            raise _NotUsable("no NVIDIA driver: neither libnvidia-ml.so.1 nor libcuda.so.1 is there") from None
        return None
    status = nvml.nvmlInit_v2()
    if status != _SUCCESS:
        said = _nvml_words(nvml, status)
        if status == _DRIVER_NOT_LOADED:
            raise _NotUsable(f"the NVIDIA driver is installed, but its kernel module is not loaded (NVML: {said})")
        raise _NotUsable(f"the NVIDIA driver does not answer (NVML: {said})")
    try:
        text = ctypes.create_string_buffer(96)
        nvml.nvmlSystemGetDriverVersion(text, len(text))
        driver = text.value.decode(errors="replace")
        count = ctypes.c_uint(0)
        status = nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        if status != _SUCCESS or count.value == 0:
            raise _NotUsable(f"the NVIDIA driver {driver} is there, but it has no device")
        return driver
    finally:
        nvml.nvmlShutdown()


def _nvml_words(nvml: ctypes.CDLL, status: int) -> str:
    nvml.nvmlErrorString.restype = ctypes.c_char_p
    said: bytes | None = nvml.nvmlErrorString(status)
    return said.decode(errors="replace") if said else f"error {status}"


def _cuda_library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def _ask_cuda() -> tuple[int, str, tuple[int, int], int, int]:
    """How many devices CUDA sees; name, compute capability and bytes of the first; the driver's CUDA (13000 is 13.0).

    Source: CUDA Driver API, sections "Initialization", "Version Management" and "Device Management".
    """
    cuda = _cuda_library()
    if cuda is None:
        raise _NotUsable("an NVIDIA driver is there, but its CUDA library libcuda.so.1 is not")
    status = cuda.cuInit(0)
    if status == _NO_DEVICE:
        raise _NotUsable(
            "an NVIDIA driver is there, but CUDA sees no device (CUDA_ERROR_NO_DEVICE): none is given to this "
            "container, or CUDA_VISIBLE_DEVICES hides it"
        )
    _expect(status, "cuInit")
    number, device, memory, release = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_size_t(0), ctypes.c_int(0)
    name = ctypes.create_string_buffer(256)
    _expect(cuda.cuDeviceGetCount(ctypes.byref(number)), "cuDeviceGetCount")
    if number.value == 0:
        raise _NotUsable("an NVIDIA driver is there, but CUDA sees no device")
    _expect(cuda.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
    _expect(cuda.cuDeviceGetName(name, len(name), device), "cuDeviceGetName")
    _expect(cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device), "cuDeviceTotalMem")
    _expect(cuda.cuDriverGetVersion(ctypes.byref(release)), "cuDriverGetVersion")
    capability = []
    for attribute in _CAPABILITY:
        value = ctypes.c_int(0)
        _expect(cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "cuDeviceGetAttribute")
        capability.append(value.value)
    words = name.value.decode(errors="replace")
    return number.value, words, (capability[0], capability[1]), memory.value, release.value


def _expect(status: int, call: str) -> None:
    if status != _SUCCESS:
        raise _NotUsable(f"the GPU does not answer: {call} failed with CUDA error {status}")


def _needed_driver() -> tuple[int, str]:
    try:
        version("cupy-cuda12x")
    except PackageNotFoundError:
        return _CUDA_13
    return _CUDA_12


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise _NotUsable(f"a GPU is there, but {name} is not installed: {_INSTALL}") from None
        raise _NotUsable(f"{name} cannot be imported: {error}") from error
    except Exception as error:
        raise _NotUsable(f"{name} cannot be imported: {_first_line(error)}") from error


def _attempt(what: str, do: Callable[[], bool]) -> None:
    try:
        is_right = do()
    except Exception as error:
        raise _NotUsable(f"{what} failed on the GPU: {_first_line(error)}") from error
    if not is_right:
        raise _NotUsable(f"{what} came out wrong on the GPU")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _run_kernel(cupy: Any) -> bool:
    # An elementwise kernel is compiled for this device, and the sum reduces through another.
    values = cupy.arange(1000, dtype="float64") * 3.0 + 1.0
    return float(values.sum()) == 1499500.0


def _predict_with_nvforest() -> bool:
    nvforest: Any = importlib.import_module("nvforest")
    return _row_of_forest(nvforest, "gpu")


def _row_of_forest(nvforest: Any, device: str) -> bool:
    """One split at a half, 1 below and 2 above; asked on both sides of it."""
    import numpy as np
    from treelite.model_builder import Metadata, ModelBuilder, PostProcessorFunc, TreeAnnotation

    builder: Any = ModelBuilder(
        threshold_type="float64",
        leaf_output_type="float64",
        metadata=Metadata(
            num_feature=1,
            task_type="kRegressor",
            average_tree_output=False,
            num_target=1,
            num_class=[1],
            leaf_vector_shape=(1, 1),
        ),
        tree_annotation=TreeAnnotation(num_tree=1, target_id=[0], class_id=[0]),
        postprocessor=PostProcessorFunc(name="identity"),
        base_scores=[0.0],
    )
    builder.start_tree()
    builder.start_node(0)
    builder.numerical_test(0, 0.5, default_left=True, opname="<", left_child_key=1, right_child_key=2)
    builder.end_node()
    for key, leaf in ((1, 1.0), (2, 2.0)):
        builder.start_node(key)
        builder.leaf(leaf)
        builder.end_node()
    builder.end_tree()
    forest = nvforest.load_from_treelite_model(builder.commit(), device=device)
    answers = forest.predict(np.array([[0.25], [0.75]]))
    host = answers.get() if hasattr(answers, "get") else answers
    return bool(np.array_equal(np.asarray(host).reshape(-1), [1.0, 2.0]))


def _predict_with_cuml() -> bool:
    import numpy as np
    from sklearn.linear_model import LinearRegression

    twin: Any = importlib.import_module("cuml.linear_model").LinearRegression
    line = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])
    return bool(np.allclose(twin.from_sklearn(line).predict(np.array([[2.0]])), 5.0))


if __name__ == "__main__":
    main()
