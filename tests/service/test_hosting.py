from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from service import hosting
from service.hosting import Hosts, NoGpu, metrics_folder, orders_file
from service.repository.control import Orders
from service.runtimes.device import Device
from service.settings import Settings
from tests.faults.cases import fault

_CARD = Device(1, "Card", "9.0", "600", 1, usable=True, reason="computed a kernel")


class _Process:
    """Counts what is started, in place of a process."""

    started: list[dict[str, Any]]

    def __init__(self, opener: str, **arguments: Any) -> None:
        self.path = Path(f"/run/{arguments['device']}")
        self.is_closed = False
        self.started.append({"opener": opener, "process": self, **arguments})

    def start(self) -> None: ...

    def wait_until_ready(self, timeout_s: float) -> bool:
        return True

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    _Process.started = []
    monkeypatch.setattr(hosting, "DeviceProcess", _Process)
    monkeypatch.setattr(hosting, "find_spec", lambda name: object())
    return _Process.started


def test_without_a_gpu_and_without_isolation_nothing_is_started(started: list[Any]) -> None:
    hosts = Hosts(Settings(), look=lambda: Device(reason="no NVIDIA driver"))

    hosts.start()

    assert started == []
    assert (hosts.gpu, hosts.apart) == (None, None)


def test_process_for_the_gpu_owns_it_and_has_the_services_limits(started: list[Any]) -> None:
    hosts = Hosts(Settings(threads=3, timeout_s=7), look=lambda: _CARD)

    hosts.start()

    (one,) = started
    assert (one["device"], one["threads"], one["call_limit_s"]) == (0, 3, 7)
    assert hosts.sockets() == {"gpu_socket": Path("/run/0"), "apart_socket": None}
    assert hosts.gpu is not None


@fault("G01", sent="--device gpu where there is none", expected="refuses to start, with the reason")
def test_gpu_that_was_asked_for_and_is_not_there_says_why(started: list[Any]) -> None:
    hosts = Hosts(Settings(device="gpu"), look=lambda: Device(reason="no NVIDIA driver"))

    with pytest.raises(NoGpu, match="no GPU to compute on: no NVIDIA driver"):
        hosts.start()


def test_nobody_looks_for_a_gpu_where_the_cpu_was_chosen(started: list[Any]) -> None:
    hosts = Hosts(Settings(device="cpu"), look=lambda: pytest.fail("looked"))

    hosts.start()

    assert started == []


def test_nobody_looks_for_a_gpu_that_no_library_could_use(monkeypatch: pytest.MonkeyPatch, started: list[Any]) -> None:
    monkeypatch.setattr(hosting, "find_spec", lambda name: None)

    Hosts(Settings(), look=lambda: pytest.fail("looked")).start()

    assert started == []


def test_isolated_models_have_a_process_without_the_gpu(started: list[Any]) -> None:
    hosts = Hosts(Settings(isolate=("churn",), device="cpu"))

    hosts.start()

    assert [one["device"] for one in started] == [None]
    assert hosts.sockets()["apart_socket"] == Path("/run/None")


def test_workers_use_the_processes_that_were_started_for_all(started: list[Any], tmp_path: Path) -> None:
    settings = Settings(isolate=("churn",), gpu_socket=tmp_path / "gpu", apart_socket=tmp_path / "apart")
    hosts = Hosts(settings, look=lambda: pytest.fail("looked"))

    hosts.start()

    assert started == []
    assert hosts.gpu is not None
    assert hosts.apart is not None


def test_what_was_started_is_closed(started: list[Any]) -> None:
    hosts = Hosts(Settings(isolate=("*",)), look=lambda: _CARD)
    hosts.start()

    hosts.close()

    assert [one["process"].is_closed for one in started] == [True, True]
    assert hosts.sockets() == {"gpu_socket": None, "apart_socket": None}


def test_orders_lie_where_only_this_user_can_leave_some_and_go_at_the_end() -> None:
    with orders_file(Settings(model_control=True)) as path:
        assert path is not None
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert Orders(path).read() == {}

    assert not path.parent.exists()


@pytest.mark.parametrize("given", [None, Path("/run/tandem/orders.json")])
def test_where_nobody_may_order_or_the_operator_says_where_no_file_is_made(given: Path | None) -> None:
    with orders_file(Settings(model_control=given is not None, orders_file=given)) as path:
        assert path == given


def test_forked_worker_that_ends_leaves_the_orders_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = orders_file(Settings(model_control=True))
    path = orders.__enter__()
    assert path is not None

    with monkeypatch.context() as worker:
        worker.setattr(os, "getpid", lambda: -1)
        orders.__exit__(None, None, None)

    assert path.is_file()
    shutil.rmtree(path.parent)


def test_whoever_asked_hears_of_the_ends_of_processes_by_their_purpose(started: list[dict[str, Any]]) -> None:
    ends: list[str] = []
    Hosts(Settings(isolate=("*",)), look=lambda: _CARD, ended=ends.append).start()

    for one in started:
        one["ended"]()

    assert ends == ["gpu", "apart"]


def test_folder_for_metrics_is_private_and_goes_with_the_process_that_made_it() -> None:
    with metrics_folder(Settings()) as folder:
        assert folder is not None
        (folder / "figures").touch()
        assert folder.stat().st_mode & 0o777 == 0o700

    assert not folder.exists()


def test_folder_for_metrics_that_somebody_chose_stays(tmp_path: Path) -> None:
    with metrics_folder(Settings(metrics_folder=tmp_path)) as folder:
        assert folder == tmp_path

    assert tmp_path.is_dir()


def test_where_no_folder_can_be_made_each_worker_shows_metrics_of_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read_only(prefix: str) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(hosting.tempfile, "mkdtemp", read_only)

    with metrics_folder(Settings()) as folder:
        assert folder is None
    assert "Read-only" in caplog.text
