"""A service that follows its folder: versions swapped, reloaded, taken back, or hanging."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from service.assembly import Tandem
from service.core.errors import Unavailable, UnknownModel
from service.core.messages import InferRequest, Target
from service.core.table import Matrix
from service.protocols.http import HttpRequest
from service.protocols.model_control import register
from service.protocols.routes import table
from service.repository.labels import promote
from service.repository.manifest import MANIFEST
from service.repository.signing import create_keys, read_signer, sign_version
from service.settings import Settings
from tests.faults.cases import Came, fault
from tests.faults.versions import change_manifest, export_two

# What takes longer does not end.
PATIENCE_S: Final = 60.0


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_two(tmp_path_factory.mktemp("models"))


@pytest.fixture
def root(exported: Path, tmp_path: Path) -> Path:
    """A folder with version 1, into which the test puts version 2."""
    root = tmp_path / "models"
    shutil.copytree(exported / "line" / "1", root / "line" / "1")
    return root


@pytest.fixture
def second(exported: Path, tmp_path: Path) -> Path:
    """Version 2, beside the folder of models, to be damaged and then put there."""
    return Path(shutil.copytree(exported / "line" / "2", tmp_path / "second"))


def ask(tandem: Tandem) -> tuple[int, float]:
    """Version, and prediction for a row of ones."""
    future = tandem.server.infer(Target("line"), lambda _: InferRequest(Matrix(np.ones((1, 2))), ("predict",)))
    reply = future.result(PATIENCE_S)
    answers: Any = reply.outputs["predict"]
    return reply.version, round(float(answers[0]), 6)


@contextmanager
def started(root: Path, **settings: Any) -> Iterator[Tandem]:
    """A service whose watcher looks once, and afterwards only when it is asked to."""
    tandem = Tandem(Settings(models=root, poll_s=3600, threads=2, **settings))
    tandem.start()
    try:
        poll(tandem)
        yield tandem
    finally:
        tandem.stop()


def poll(tandem: Tandem) -> None:
    tandem._watcher.ask(tandem._catalog.poll).result(PATIENCE_S)


def swap(root: Path, other: Path) -> None:
    """Put `other` in the place of version 1, by two renames, and what was there in its place."""
    place, aside = root / "line" / "1", other.parent / "aside"
    place.rename(aside)
    other.rename(place)
    aside.rename(other)


@fault(
    "M03",
    sent="version 1 swapped with another one by renames, ten times under load",
    expected="no failed request; each answer is that of one of the two, and no batch mixes them",
)
def test_version_swapped_under_load(root: Path, exported: Path, tmp_path: Path, came: Came) -> None:
    other = tmp_path / "other"
    shutil.copytree(exported / "line" / "2", other)
    change_manifest(other, lambda m: m.update(version=1))
    seen: list[tuple[int, float]] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            seen.append(ask(tandem))

    with started(root) as tandem, ThreadPoolExecutor(2) as callers:
        calls = [callers.submit(call) for _ in range(2)]
        try:
            for _ in range(10):
                swap(root, other)
                poll(tandem)
        finally:
            stop.set()
        for done in calls:
            done.result(PATIENCE_S)

    came(f"{len(seen)} answers")
    assert set(seen) == {(1, 1.0), (1, 2.0)}


@fault(
    "M19",
    sent="one model reloaded 60 times",
    expected="memory, threads and open files are flat; the last one answers",
)
def test_model_reloaded_many_times(root: Path, exported: Path, tmp_path: Path, came: Came) -> None:
    other = tmp_path / "other"
    shutil.copytree(exported / "line" / "2", other)
    change_manifest(other, lambda m: m.update(version=1))

    def held() -> tuple[int, int, int]:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return len(os.listdir("/proc/self/fd")), threading.active_count(), pages * os.sysconf("SC_PAGE_SIZE")

    with started(root) as tandem:
        before = (0, 0, 0)
        for reload in range(80):
            if reload == 20:  # what libraries keep for good they have by now
                before = held()
            swap(root, other)
            poll(tandem)
        answer = ask(tandem)
        files, threads, memory_bytes = (now - then for now, then in zip(held(), before, strict=True))

    came(f"{files} files, {threads} threads, {memory_bytes / 2**20:.1f} MiB more after 60 reloads")
    assert answer == (1, 1.0)
    assert (files, threads) == (0, 0)
    assert memory_bytes < 16 * 2**20  # a reload holds 0.3 MiB at least


def hang(*_: Any, **__: Any) -> Any:
    RELEASED.wait(PATIENCE_S)
    raise AssertionError("nobody asks any more")


RELEASED = threading.Event()


@fault("M12", sent="a version whose stored rows hang", expected="load-took-too-long; the old version serves on")
def test_version_that_hangs_on_its_stored_rows(
    root: Path, second: Path, monkeypatch: pytest.MonkeyPatch, came: Came
) -> None:
    with started(root, load_timeout_s=0.2) as tandem:
        second.rename(root / "line" / "2")
        with monkeypatch.context() as patch:
            patch.setattr("service.loading.options.compare", hang)
            poll(tandem)
        described = tandem.server.describe("line")
        answer = ask(tandem)
        RELEASED.set()
        for thread in threading.enumerate():
            if thread.name == "tandem-load":
                thread.join(PATIENCE_S)

    came(described["codes"]["2"])
    assert described["codes"] == {"2": "load-took-too-long"}
    assert answer == (1, 1.0)


@fault("M06", sent="a signed version taken away, then a restart", expected="rollback-refused, unless promoted")
def test_older_signed_version_after_a_restart(root: Path, second: Path, tmp_path: Path, came: Came) -> None:
    create_keys(tmp_path / "mine")
    for version in (root / "line" / "1", second):
        sign_version(version, (version / MANIFEST).read_bytes(), read_signer(tmp_path / "mine.key"))
    settings = {"trusted_keys": str(tmp_path / "mine.pub"), "versions_file": tmp_path / "versions"}
    newest = root / "line" / "2"
    second.rename(newest)
    with started(root, **settings) as tandem:
        assert ask(tandem) == (2, 2.0)
    shutil.rmtree(newest)

    with started(root, **settings) as tandem:
        codes = tandem.server.describe("line")["codes"]
        with pytest.raises(Unavailable):
            ask(tandem)
        promote(root, "line", 1)
        poll(tandem)
        promoted = ask(tandem)
    with started(root, **settings, allow_rollback=True) as tandem:
        allowed = ask(tandem)

    came(codes["1"])
    assert codes == {"1": "rollback-refused"}
    assert promoted == allowed == (1, 1.0)


@fault(
    "M27",
    sent="the table of routes; TorchServe's registration of a model by URL",
    expected="no route takes a model; a URL names a model of the folder, and nothing is fetched",
)
def test_no_model_comes_over_the_network(root: Path, monkeypatch: pytest.MonkeyPatch, came: Came) -> None:
    connected: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: connected.append(address))

    takes = [route.path for route in table() if route.method in ("PUT", "POST")]
    assert all(path.endswith(("/predict", "/predict/stream")) for path in takes)
    with started(root, model_control=True) as tandem:
        tandem.server.unload("line").result(PATIENCE_S)
        query = {"url": "http://models.example/line.mar"}
        http = HttpRequest("POST", "/models", {}, query, {}, b"", "1")
        reply = register(tandem.server, http).result(PATIENCE_S)
        with pytest.raises(UnknownModel):
            register(tandem.server, replace(http, query={"url": "http://models.example/new.mar"})).result(PATIENCE_S)

    came(reply.status)
    assert reply.status == 200
    assert connected == []
