"""A machine without a GPU has every state but the last for real: the driver is a library of a few lines of C."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from service.runtimes.device import Device, probe
from tests.faults.cases import fault

_COMPILER: Final = shutil.which("cc")
_NVML: Final = r"""
#include <stdlib.h>
#include <string.h>
static int number(const char *name, int otherwise) { const char *v = getenv(name); return v ? atoi(v) : otherwise; }
int nvmlInit_v2(void) { return number("STUB_NVML_INIT", 0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int status) { return status == 9 ? "Driver Not Loaded" : "Unknown Error"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "580.65.06", size); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = number("STUB_COUNT", 1); return 0; }
"""
_CUDA: Final = r"""
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int number(const char *name, int otherwise) { const char *v = getenv(name); return v ? atoi(v) : otherwise; }
int cuInit(unsigned flags) {
    if (getenv("STUB_HANGS")) sleep(600);
    if (getenv("STUB_CRASHES")) abort();
    return number("STUB_INIT", 0);
}
int cuDeviceGetCount(int *count) { *count = number("STUB_COUNT", 1); return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Stub 1000", size); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)8 << 30; return 0; }
int cuDriverGetVersion(int *version) { *version = number("STUB_CUDA", 13000); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? number("STUB_MAJOR", 9) : 0;
    return 0;
}
"""
_CUPY: Final = "from numpy import arange\n"
# The cupy of a device that has lost its mind.
_WRONG_CUPY: Final = "def arange(n, dtype):\n    import numpy\n    return numpy.zeros(n)\n"
_FAILING_CUPY: Final = """
class CUDARuntimeError(RuntimeError):
    pass
def arange(n, dtype):
    raise CUDARuntimeError("cudaErrorNoKernelImageForDevice: no kernel image is available")
"""
_NVFOREST: Final = """
import treelite
class Forest:
    def __init__(self, model): self.model = model
    def predict(self, rows): return treelite.gtil.predict(self.model, rows)
def load_from_treelite_model(model, device):
    assert device == "gpu"
    return Forest(model)
"""


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `nvml` and `cuda`, each with one stub library."""
    if _COMPILER is None:
        pytest.skip("no C compiler for a stub of the driver")
    root = tmp_path_factory.mktemp("drivers")
    for folder, library, source in (("nvml", "libnvidia-ml.so.1", _NVML), ("cuda", "libcuda.so.1", _CUDA)):
        (root / folder).mkdir()
        (root / "stub.c").write_text(source)
        line = [_COMPILER, "-shared", "-fPIC", "-o", str(root / folder / library), str(root / "stub.c")]
        subprocess.run(line, check=True, capture_output=True)
    return root


def _ask(
    drivers: Path, *libraries: str, timeout_s: float = 30.0, packages: Path | None = None, **variables: str
) -> Device:
    """Probe where only these libraries of the driver are found, and these packages before all others."""
    path = ":".join(str(drivers / library) for library in libraries)
    found = {"LD_LIBRARY_PATH": path, **variables}
    if packages is not None:
        found["PYTHONPATH"] = str(packages)
    return probe(timeout_s, found)


def _package(folder: Path, **modules: str) -> Path:
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    return folder


@pytest.fixture
def without_a_real_driver() -> None:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return
    pytest.skip("this machine has an NVIDIA driver")


@fault("G01", sent="no driver", expected="not usable, the reason said at start")
@pytest.mark.usefixtures("without_a_real_driver")
def test_without_a_driver_the_reason_names_the_libraries_that_are_missing() -> None:
    device = probe()

    assert device == Device(reason="no NVIDIA driver: neither libnvidia-ml.so.1 nor libcuda.so.1 is there")


@fault("G01", sent="a driver without a device", expected="not usable")
def test_driver_without_a_device_is_not_usable(drivers: Path) -> None:
    device = _ask(drivers, "nvml", "cuda", STUB_COUNT="0")

    assert (device.usable, device.count) == (False, 0)
    assert device.reason == "the NVIDIA driver 580.65.06 is there, but it has no device"


def test_device_that_cuda_does_not_see_is_not_usable(drivers: Path) -> None:
    device = _ask(drivers, "nvml", "cuda", STUB_INIT="100")

    assert not device.usable
    assert "CUDA sees no device (CUDA_ERROR_NO_DEVICE)" in device.reason
    assert device.driver == "580.65.06"


def test_kernel_module_that_is_not_loaded_is_told(drivers: Path) -> None:
    device = _ask(drivers, "nvml", "cuda", STUB_NVML_INIT="9")

    assert "kernel module is not loaded (NVML: Driver Not Loaded)" in device.reason


@pytest.mark.usefixtures("without_a_real_driver")
def test_container_without_nvml_is_asked_through_cuda(drivers: Path) -> None:
    device = _ask(drivers, "cuda", STUB_INIT="100")

    assert "CUDA_ERROR_NO_DEVICE" in device.reason


@pytest.mark.usefixtures("without_a_real_driver")
def test_driver_without_its_cuda_library_is_told(drivers: Path) -> None:
    device = _ask(drivers, "nvml")

    assert device.reason == "an NVIDIA driver is there, but its CUDA library libcuda.so.1 is not"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        pytest.param({"STUB_MAJOR": "7"}, "compute capability 7.0; 7.5 or newer", id="old device"),
        pytest.param({"STUB_CUDA": "12080"}, "driver 580.65.06 is too old for CUDA 13: 580 or newer", id="old driver"),
        pytest.param({"STUB_INIT": "999"}, "cuInit failed with CUDA error 999", id="sick driver"),
    ],
)
def test_device_that_cannot_work_is_told_why(drivers: Path, variables: dict[str, str], words: str) -> None:
    device = _ask(drivers, "nvml", "cuda", **variables)

    assert not device.usable
    assert words in device.reason


@fault("G01", sent="a driver that hangs", expected="not usable, after a bounded time")
def test_driver_that_hangs_ends_with_the_timeout(drivers: Path) -> None:
    device = _ask(drivers, "nvml", "cuda", timeout_s=1.5, STUB_HANGS="1")

    assert device.reason == "the GPU did not answer within 1.5 s: starting CUDA hangs"
    assert device.driver == "580.65.06"


def test_driver_that_crashes_takes_the_child_only(drivers: Path) -> None:
    device = _ask(drivers, "nvml", "cuda", STUB_CRASHES="1")

    assert device.reason.startswith("starting CUDA ended the probe (signal 6)")


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        pytest.param({"cupy": "import no_such_part"}, "cupy cannot be imported", id="half installed"),
        pytest.param({"cupy": "raise ImportError('libnvrtc.so.13')"}, "libnvrtc.so.13", id="library missing"),
        pytest.param({"cupy": _FAILING_CUPY}, "cudaErrorNoKernelImageForDevice", id="kernel fails"),
        pytest.param({"cupy": _WRONG_CUPY}, "a first kernel came out wrong", id="kernel computes nonsense"),
    ],
)
def test_library_that_cannot_compute_is_told(
    drivers: Path, tmp_path: Path, modules: dict[str, str], words: str
) -> None:
    device = _ask(drivers, "nvml", "cuda", packages=_package(tmp_path, **modules))

    assert not device.usable
    assert words in device.reason


def test_device_that_predicts_a_known_row_is_usable(drivers: Path, tmp_path: Path) -> None:
    device = _ask(drivers, "nvml", "cuda", packages=_package(tmp_path, cupy=_CUPY, nvforest=_NVFOREST))

    assert device == Device(
        count=1,
        name="Stub 1000",
        compute_capability="9.0",
        driver="580.65.06",
        memory_bytes=8 << 30,
        usable=True,
        reason="Stub 1000, compute capability 9.0, computed a kernel and predicted a known row",
    )


def test_forest_that_predicts_something_else_makes_the_device_unusable(drivers: Path, tmp_path: Path) -> None:
    wrong = _NVFOREST.replace("rows)", "rows + 1)", 2).replace("def predict(self, rows + 1)", "def predict(self, rows)")

    device = _ask(drivers, "nvml", "cuda", packages=_package(tmp_path, cupy=_CUPY, nvforest=wrong))

    assert device.reason == "a known row in nvForest came out wrong on the GPU"


def test_words_that_libraries_print_do_not_disturb(drivers: Path, tmp_path: Path) -> None:
    loud = "print('tandem-device: {')\nprint('hello')\n" + _CUPY

    device = _ask(drivers, "nvml", "cuda", packages=_package(tmp_path, cupy=loud, nvforest=_NVFOREST))

    assert device.usable


def test_asking_imports_nothing_of_cuda_here() -> None:
    code = "import sys; from service.runtimes.device import probe; probe(); print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)

    assert {"cupy", "cuml", "rmm", "nvforest", "ctypes"} & set(done.stdout.split()) == set()


@pytest.mark.gpu
def test_gpu_of_this_machine_is_usable_or_says_why() -> None:
    device = probe()
    if device.count == 0:
        pytest.skip(device.reason)

    assert device.usable, device.reason
