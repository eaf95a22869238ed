from __future__ import annotations

from typing import Any

import pytest

from service.core.artefact_errors import EngineUnusable
from service.core.signature import Container, Signature
from service.loading import engines
from service.loading.engines import open_engine, unproven
from service.repository.manifest import EngineEntry

_SIGNATURE = Signature(container=Container.ARRAY, columns=(), outputs=())


def open_it(files: Any, signature: Any, options: Any, *, threads: int) -> Any:
    return files, signature, options, threads


def test_runtime_is_given_the_files_and_what_its_compiler_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.RUNTIMES, "fake", f"{__name__}:open_it")

    opened: Any = open_engine("fake", {"it": b"x"}, _SIGNATURE, {"a": 1}, threads=3)

    assert opened == ({"it": b"x"}, _SIGNATURE, {"a": 1}, 3)


@pytest.mark.parametrize(
    ("runtime", "target", "told"),
    [
        pytest.param("tensor9", None, "no runtime 'tensor9' in this version of Tandem", id="unknown"),
        pytest.param("fake", "no_such_library:open", "fake cannot open it: ModuleNotFoundError", id="not installed"),
        pytest.param("onnx", None, "onnx cannot open it: ", id="broken file"),
    ],
)
def test_engine_that_cannot_be_opened_says_why(
    monkeypatch: pytest.MonkeyPatch, runtime: str, target: str | None, told: str
) -> None:
    if target is not None:
        monkeypatch.setitem(engines.RUNTIMES, runtime, target)

    with pytest.raises(EngineUnusable, match=told):
        open_engine(runtime, {"model.onnx": b"no graph"}, _SIGNATURE, {})


@pytest.mark.parametrize("runtime", engines.RUNTIMES)
def test_every_runtime_has_its_module(runtime: str) -> None:
    from importlib import import_module

    module, _, function = engines.RUNTIMES[runtime].partition(":")

    assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize(
    ("runtime", "agreement", "expected"),
    [
        pytest.param("cuml", {}, ("predict",), id="a GPU's"),
        pytest.param("cuml", {"predict": 0.0}, (), id="a GPU's that was proven"),
        pytest.param("onnx", {}, (), id="of a CPU, which could have been asked"),
    ],
)
def test_only_what_a_gpu_must_prove_is_unproven(runtime: str, agreement: Any, expected: tuple[str, ...]) -> None:
    entry = EngineEntry(name="it", runtime=runtime, files=(), agreement=agreement, options={"outputs": ["predict"]})

    assert unproven(entry) == expected
