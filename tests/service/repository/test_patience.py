from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.core.artefact_errors import LoadTookTooLong
from service.repository.patience import PatientSource, patient
from service.repository.sources import Found, Snapshot
from tests.faults.cases import fault

LONG_S = 60.0
SHORT_S = 0.01
FOUND = Found("iris", 2, Path("iris/2"), ())


class Gate:
    """Work that goes on only when `opened` is set."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.calls = 0

    def __call__(self, *_: Any) -> Any:
        self.calls += 1
        self.opened.wait(LONG_S)
        return Loaded() if _ else Snapshot({"iris": {}})


class Loaded:
    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


class Disk:
    def __init__(self, scan: Any) -> None:
        self.scan = scan
        self.promoted: tuple[str, int] | None = None

    def promote(self, name: str, version: int) -> None:
        self.promoted = name, version


@fault("M18", sent="a disk that does not answer", expected="the look is given up and fails; there is no second thread")
def test_look_at_a_disk_that_does_not_answer_is_given_up(gate: Gate) -> None:
    source = PatientSource(Disk(gate), SHORT_S)
    before = threading.active_count()

    for told in ("did not answer within 0.01 seconds", *["still does not answer"] * 3):
        with pytest.raises(OSError, match=told):
            source.scan()

    assert gate.calls == 1
    assert threading.active_count() == before + 1


def test_disk_that_answers_again_is_looked_at_again(gate: Gate) -> None:
    source = PatientSource(Disk(gate), SHORT_S)
    with pytest.raises(TimeoutError):
        source.scan()

    gate.opened.set()
    for thread in threading.enumerate():
        if thread.name == "tandem-scan":
            thread.join()

    assert PatientSource(Disk(gate), LONG_S).scan() == source.scan() == Snapshot({"iris": {}})


def test_what_a_disk_says_is_passed_on() -> None:
    def fails() -> Snapshot:
        raise OSError("Input/output error")

    disk = Disk(fails)
    source = PatientSource(disk, LONG_S)

    with pytest.raises(OSError, match="Input/output error"):
        source.scan()
    source.promote("iris", 3)

    assert disk.promoted == ("iris", 3)
    assert "tandem-scan" not in {thread.name for thread in threading.enumerate()}


def test_timeout_of_the_disk_itself_is_its_own() -> None:
    def fails() -> Snapshot:
        raise TimeoutError("Connection timed out")

    with pytest.raises(TimeoutError, match="Connection timed out"):
        PatientSource(Disk(fails), LONG_S).scan()


def test_version_that_hangs_is_refused_and_let_go_should_it_come_later(gate: Gate) -> None:
    loaded = Loaded()
    waits = gate.opened.wait

    def load(found: Found) -> Any:
        waits(LONG_S)
        return loaded

    with pytest.raises(LoadTookTooLong, match=r"version 2 of iris was not loaded and checked within 0\.01 seconds"):
        patient(load, SHORT_S)(FOUND)
    gate.opened.set()

    assert loaded.closed.wait(LONG_S)


def test_version_that_fails_later_disturbs_nobody(gate: Gate) -> None:
    def load(found: Found) -> Any:
        gate.opened.wait(LONG_S)
        raise SystemExit(3)

    with pytest.raises(LoadTookTooLong):
        patient(load, SHORT_S)(FOUND)
    gate.opened.set()
    for thread in threading.enumerate():
        if thread.name == "tandem-load":
            thread.join()


@pytest.mark.parametrize("error", [KeyError("x"), SystemExit(3), TimeoutError("of its own"), MemoryError()])
def test_what_a_load_says_is_passed_on(error: BaseException) -> None:
    def load(found: Found) -> Any:
        raise error

    with pytest.raises(type(error)) as caught:
        patient(load, LONG_S)(FOUND)

    assert caught.value is error


def test_version_that_loads_is_handed_on_and_its_thread_is_gone() -> None:
    loaded: Any = Loaded()

    assert patient(lambda found: loaded, LONG_S)(FOUND) is loaded
    assert "tandem-load" not in {thread.name for thread in threading.enumerate()}
