from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from service.core.artefact_errors import DigestMismatch
from service.core.errors import (
    AlreadyLoaded,
    NotAllowed,
    TandemError,
    Unavailable,
    UnknownLabel,
    UnknownModel,
    UnknownVersion,
)
from service.core.messages import UNLOADED, InferRequest, Target
from service.core.signature import Column, Container, Output, Signature
from service.core.table import Values
from service.repository.catalog import Catalog
from service.repository.control import NO_ORDER, Orders
from service.repository.manifest import Manifest
from service.repository.sources import Found, Snapshot
from service.repository.versions import Lease, Loaded, State, Version
from tests.faults.cases import fault

_SIGNATURE = Signature(
    container=Container.ARRAY,
    columns=(Column(name="x0", dtype="float64"),),
    outputs=(Output(name="predict", dtype="float64"),),
)


class Disk:
    """A repository in memory, and the loader for it. Each export is other files."""

    def __init__(self) -> None:
        self.found: dict[str, dict[int, Found]] = {}
        self.labels: dict[str, dict[str, int]] = {}
        self.bad: dict[Found, Exception | SystemExit] = {}
        self.loads: list[tuple[str, int]] = []
        self.error: OSError | None = None
        self.is_read_only = False
        self.while_loading: Callable[[Found], None] = lambda found: None
        self._exports = 0

    def export(self, version: int, name: str = "iris", bad: Exception | SystemExit | None = None) -> Found:
        self._exports += 1
        found = Found(name, version, Path(name, str(version)), (("manifest.json", self._exports, 1, 1),))
        self.found.setdefault(name, {})[version] = found
        if bad is not None:
            self.bad[found] = bad
        return found

    def delete(self, version: int, name: str = "iris") -> None:
        del self.found[name][version]
        if not self.found[name]:
            del self.found[name]

    def scan(self) -> Snapshot:
        if self.error is not None:
            raise self.error
        return Snapshot(
            {name: dict(versions) for name, versions in self.found.items()},
            {name: dict(self.labels.get(name, {})) for name in self.found},
        )

    def promote(self, name: str, version: int) -> None:
        if self.is_read_only:
            raise NotAllowed("read-only")
        self.labels.setdefault(name, {})["stable"] = version

    def load(self, found: Found) -> Loaded:
        self.loads.append((found.name, found.version))
        self.while_loading(found)
        if found in self.bad:
            raise self.bad[found]
        manifest = Manifest(
            name=found.name, version=found.version, created="", exporter="", estimator="", signature=_SIGNATURE,
            files={}, libraries={}, python="",
        )  # fmt: skip
        return Loaded(manifest, Model(found), {"x0": 1.0})


class Model:
    """What a version holds in memory."""

    def __init__(self, found: Found) -> None:
        self.found = found

    def __call__(self, request: InferRequest) -> Future[dict[str, Values]]:
        raise AssertionError("the catalog hands models out and asks them nothing")


@pytest.fixture
def disk() -> Disk:
    return Disk()


def _catalog(disk: Disk, keep: int = 1, default_model: str | None = None, orders: Orders | None = None) -> Catalog:
    return Catalog(disk, disk.load, keep=keep, default_model=default_model, orders=orders)


def _answers(catalog: Catalog, target: Target | None = None) -> Found:
    """The files behind what answers now."""
    lease = catalog.lease(target or Target("iris"))
    lease.release()
    return _model(lease).found


def _model(lease: Lease) -> Model:
    assert isinstance(lease.loaded.submit, Model)
    return lease.loaded.submit


def _versions(catalog: Catalog, name: str = "iris") -> tuple[int, ...]:
    return next((summary.versions for summary in catalog.summaries() if summary.name == name), ())


# What is on disk becomes what is live


def test_new_version_is_loaded_beside_the_old_and_swapped_in(disk: Disk) -> None:
    first = disk.export(1)
    catalog = _catalog(disk)
    catalog.poll()
    during: list[Found] = []
    disk.while_loading = lambda found: during.append(_answers(catalog))

    second = disk.export(2)
    catalog.poll()

    assert during == [first]
    assert _answers(catalog) == second
    assert _versions(catalog) == (2,)


def test_version_exported_again_under_its_number_takes_its_own_place(disk: Disk) -> None:
    first = disk.export(1)
    catalog = _catalog(disk)
    catalog.poll()
    during: list[Found] = []
    disk.while_loading = lambda found: during.append(_answers(catalog))

    again = disk.export(1)
    catalog.poll()

    assert during == [first]
    assert _answers(catalog) == again


def test_polls_load_nothing_while_nothing_changes(disk: Disk) -> None:
    disk.export(1)
    catalog = _catalog(disk)

    for _ in range(3):
        catalog.poll()

    assert disk.loads == [("iris", 1)]


@fault("M12", "M20", "M29", sent="a version that fails to load", expected="reported with a code; the old one serves on")
@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        pytest.param(DigestMismatch("its sha256 differs"), "digest-mismatch", "its sha256 differs", id="ours"),
        pytest.param(KeyError("coef_"), "load-failed", "KeyError: 'coef_'", id="not ours"),
        pytest.param(SystemExit(3), "load-failed", "SystemExit: 3", id="code in the model exits"),
        pytest.param(MemoryError(), "out-of-memory", "MemoryError: ", id="memory"),
    ],
)
def test_bad_version_is_reported_and_the_old_serves_on(
    disk: Disk, error: Exception | SystemExit, code: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = disk.export(1)
    catalog = _catalog(disk)
    catalog.poll()

    disk.export(2, bad=error)
    with caplog.at_level(logging.ERROR):
        catalog.poll()

    (summary,) = catalog.summaries()
    assert _answers(catalog) == first
    assert (summary.state, summary.versions, summary.served) == (State.LIVE, (1,), 1)
    assert (summary.reasons, summary.codes) == ({2: reason}, {2: code})
    assert f"version 2 of iris is not served ({code}): {reason}" in caplog.text


@fault("M04", sent="the files of a live version damaged or gone", expected="it serves on from memory")
def test_live_version_whose_own_files_go_bad_serves_on_from_memory(disk: Disk) -> None:
    first = disk.export(1)
    catalog = _catalog(disk)
    catalog.poll()

    disk.export(1, bad=DigestMismatch("cut"))
    catalog.poll()
    catalog.poll()

    assert _answers(catalog) == first
    assert catalog.summaries()[0].reasons == {1: "cut"}
    assert len(disk.loads) == 2


def test_labelled_version_whose_files_go_bad_is_not_given_up_for_the_newest(disk: Disk) -> None:
    first = disk.export(1)
    disk.export(2)
    disk.labels["iris"] = {"stable": 1}
    catalog = _catalog(disk)
    catalog.poll()

    disk.export(1, bad=DigestMismatch("cut"))
    catalog.poll()

    assert _answers(catalog) == first


@fault("M29", sent="a bad version, then a good one", expected="the bad one is not tried again until its files change")
def test_bad_version_is_tried_again_only_when_its_files_change(disk: Disk) -> None:
    disk.export(1)
    disk.export(2, bad=DigestMismatch("cut"))
    catalog = _catalog(disk)
    for _ in range(3):
        catalog.poll()
    assert disk.loads.count(("iris", 2)) == 1

    mended = disk.export(2)
    for _ in range(3):
        catalog.poll()

    assert disk.loads.count(("iris", 2)) == 2
    assert _answers(catalog) == mended
    assert catalog.summaries()[0].reasons == {}


def test_where_the_newest_are_bad_the_newest_good_one_comes_at_the_first_poll(disk: Disk) -> None:
    good = disk.export(1)
    for number in (2, 3):
        disk.export(number, bad=DigestMismatch("cut"))
    catalog = _catalog(disk)

    catalog.poll()

    assert _answers(catalog) == good
    assert disk.loads == [("iris", 3), ("iris", 2), ("iris", 1)]


def test_bad_model_does_not_keep_the_others_from_being_served(disk: Disk) -> None:
    disk.export(1, "apple", bad=DigestMismatch("cut"))
    good = disk.export(1, "pear")
    catalog = _catalog(disk)

    catalog.poll()

    assert _answers(catalog, Target("pear")) == good
    assert [(summary.name, summary.state) for summary in catalog.summaries()] == [
        ("apple", State.FAILED),
        ("pear", State.LIVE),
    ]


def test_reason_goes_with_the_files(disk: Disk) -> None:
    disk.export(1)
    disk.export(2, bad=DigestMismatch("cut"))
    catalog = _catalog(disk)
    catalog.poll()

    disk.delete(2)
    catalog.poll()

    assert catalog.summaries()[0].reasons == {}


def test_newest_versions_and_labelled_ones_stay_live(disk: Disk) -> None:
    for number in (1, 2, 3, 4):
        disk.export(number)
    disk.labels["iris"] = {"stable": 1}
    catalog = _catalog(disk, keep=2)

    catalog.poll()

    assert _versions(catalog) == (1, 3, 4)


def test_version_that_comes_later_moves_the_oldest_out(disk: Disk) -> None:
    disk.export(1)
    disk.export(2)
    catalog = _catalog(disk, keep=2)
    catalog.poll()

    disk.export(3)
    catalog.poll()

    assert _versions(catalog) == (2, 3)


def test_promoted_version_that_was_let_go_is_loaded_again(disk: Disk) -> None:
    first = disk.export(1)
    disk.export(2)
    catalog = _catalog(disk)
    catalog.poll()
    assert _versions(catalog) == (2,)

    disk.labels["iris"] = {"stable": 1}
    catalog.poll()

    assert _versions(catalog) == (1, 2)
    assert _answers(catalog) == first


def test_deleted_version_gives_way_to_the_one_before(disk: Disk) -> None:
    first = disk.export(1)
    disk.export(2)
    catalog = _catalog(disk)
    catalog.poll()

    disk.delete(2)
    catalog.poll()

    assert _answers(catalog) == first


def test_deleted_model_is_unknown(disk: Disk) -> None:
    disk.export(1)
    catalog = _catalog(disk)
    catalog.poll()

    disk.delete(1)
    catalog.poll()

    assert catalog.summaries() == []
    with pytest.raises(UnknownModel):
        catalog.lease(Target("iris"))


@fault("M18", sent="a repository that cannot be read", expected="serving continues")
def test_repository_that_cannot_be_read_changes_nothing(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    first = disk.export(1)
    catalog = _catalog(disk)
    catalog.poll()
    before = catalog.summaries()

    disk.error = PermissionError(13, "Permission denied")
    catalog.poll()

    assert catalog.summaries() == before
    assert _answers(catalog) == first
    assert "the model repository cannot be read" in caplog.text


def test_repository_that_cannot_be_read_at_first_leaves_the_service_unready(disk: Disk) -> None:
    disk.export(1)
    disk.error = FileNotFoundError(2, "No such file or directory")
    catalog = _catalog(disk)
    catalog.poll()
    assert not catalog.is_loaded

    disk.error = None
    catalog.poll()

    assert catalog.is_loaded


# What callers order


def test_unloaded_model_is_unknown_until_it_is_loaded(disk: Disk) -> None:
    found = disk.export(1)
    catalog = _catalog(disk)
    catalog.poll()

    assert catalog.unload("iris")

    for ask in (
        lambda: catalog.lease(Target("iris")),
        lambda: catalog.lease(Target()),
        lambda: catalog.details("iris"),
    ):
        with pytest.raises(UnknownModel, match="model 'iris' is unloaded"):
            ask()
    assert catalog.served() == []
    catalog.load("iris")
    assert _answers(catalog) == found


def test_unloaded_model_is_listed_with_its_versions_and_why_they_do_not_answer(disk: Disk) -> None:
    disk.export(1)
    disk.export(2, bad=DigestMismatch("cut"))
    disk.export(1, "pear")
    catalog = _catalog(disk)
    catalog.poll()

    catalog.unload("iris")

    unloaded, pear = catalog.summaries()
    assert (unloaded.name, unloaded.state, unloaded.versions, unloaded.served) == ("iris", UNLOADED, (), None)
    assert unloaded.reasons == {1: UNLOADED, 2: UNLOADED}
    assert (pear.name, pear.state) == ("pear", State.LIVE)


def test_new_version_does_not_bring_an_unloaded_model_back(disk: Disk) -> None:
    disk.export(1)
    catalog = _catalog(disk)
    catalog.poll()
    catalog.unload("iris")

    second = disk.export(2)
    catalog.poll()
    with pytest.raises(UnknownModel):
        catalog.lease(Target("iris"))

    catalog.load("iris")
    assert _answers(catalog) == second


@fault("M26", sent="a model unloaded with requests in flight", expected="they finish")
def test_unloaded_version_still_answers_who_holds_a_lease(disk: Disk) -> None:
    first = disk.export(1)
    catalog = _catalog(disk)
    catalog.poll()
    lease = catalog.lease(Target("iris"))
    memory = weakref.ref(_model(lease))

    catalog.unload("iris")

    assert _model(lease).found == first
    lease.release()
    del lease
    gc.collect()
    assert memory() is None


def test_second_unload_changes_nothing_and_says_so(disk: Disk) -> None:
    disk.export(1)
    catalog = _catalog(disk)
    catalog.poll()

    assert [catalog.unload("iris"), catalog.unload("iris")] == [True, False]


def test_loaded_model_is_loaded_anew_beside_the_one_that_serves(disk: Disk) -> None:
    for number in (1, 2):
        disk.export(number)
    catalog = _catalog(disk, keep=2)
    catalog.poll()
    before = _model(catalog.lease(Target("iris")))
    during: list[int] = []
    disk.while_loading = lambda found: during.append(_answers(catalog).version)

    catalog.load("iris")

    assert disk.loads == [("iris", 2), ("iris", 1)] * 2
    assert during == [2, 2]
    assert _model(catalog.lease(Target("iris"))) is not before


def test_loaded_model_is_left_alone_by_who_wants_it_loaded_once(disk: Disk) -> None:
    disk.export(1)
    catalog = _catalog(disk)
    catalog.poll()

    with pytest.raises(AlreadyLoaded, match="'iris' is loaded already"):
        catalog.load("iris", again=False)
    catalog.unload("iris")
    catalog.load("iris", again=False)

    assert disk.loads == [("iris", 1)] * 2


def test_load_tries_what_failed_again(disk: Disk) -> None:
    found = disk.export(1, bad=DigestMismatch("cut"))
    catalog = _catalog(disk)
    catalog.poll()
    with pytest.raises(Unavailable, match="version 1 of model 'iris' could not be loaded: cut"):
        catalog.load("iris")

    disk.bad.clear()
    catalog.load("iris")

    assert _answers(catalog) == found
    assert disk.loads == [("iris", 1)] * 3


def test_model_that_cannot_be_loaded_anew_serves_on_as_it_is(disk: Disk) -> None:
    found = disk.export(1)
    catalog = _catalog(disk)
    catalog.poll()
    disk.bad[found] = DigestMismatch("cut")

    with pytest.raises(Unavailable, match="cut"):
        catalog.load("iris")
    catalog.poll()

    assert _answers(catalog) == found
    assert disk.loads == [("iris", 1)] * 2


@pytest.mark.parametrize(
    ("stable", "is_told"),
    [pytest.param(1, False, id="another version is stable"), pytest.param(2, True, id="it is stable")],
)
def test_load_fails_with_the_version_that_a_plain_request_should_get(disk: Disk, stable: int, is_told: bool) -> None:
    first = disk.export(1)
    disk.export(2, bad=DigestMismatch("cut"))
    disk.labels["iris"] = {"stable": stable}
    catalog = _catalog(disk, keep=2)

    if is_told:
        with pytest.raises(Unavailable, match="version 2"):
            catalog.load("iris")
    else:
        catalog.load("iris")

    assert _answers(catalog) == first


def test_load_looks_at_the_disk_first(disk: Disk) -> None:
    catalog = _catalog(disk)
    catalog.poll()
    found = disk.export(1)

    catalog.load("iris")

    assert _answers(catalog) == found


def test_promoted_version_answers_at_once(disk: Disk) -> None:
    first = disk.export(1)
    disk.export(2)
    catalog = _catalog(disk)
    catalog.poll()

    catalog.promote("iris", 1)

    assert _answers(catalog) == first
    assert _versions(catalog) == (1, 2)


def test_promoted_version_that_does_not_load_is_told(disk: Disk) -> None:
    disk.export(1, bad=DigestMismatch("cut"))
    second = disk.export(2)
    catalog = _catalog(disk)
    catalog.poll()

    with pytest.raises(Unavailable, match="version 1 of model 'iris' could not be loaded: cut"):
        catalog.promote("iris", 1)

    assert _answers(catalog) == second


def test_labels_that_cannot_be_changed_stay_as_they_are(disk: Disk) -> None:
    disk.export(1)
    second = disk.export(2)
    disk.is_read_only = True
    catalog = _catalog(disk, keep=2)
    catalog.poll()

    with pytest.raises(NotAllowed):
        catalog.promote("iris", 1)

    assert _answers(catalog) == second


def test_what_is_not_on_disk_can_be_neither_loaded_nor_unloaded_nor_promoted(disk: Disk) -> None:
    disk.export(1)
    catalog = _catalog(disk)
    catalog.poll()

    for order in (catalog.load, catalog.unload, lambda name: catalog.promote(name, 1)):
        with pytest.raises(UnknownModel):
            order("wine")
    with pytest.raises(UnknownVersion, match="it serves 1"):
        catalog.promote("iris", 2)


def test_repository_that_cannot_be_read_takes_no_orders(disk: Disk) -> None:
    found = disk.export(1)
    catalog = _catalog(disk)
    catalog.poll()
    disk.error = PermissionError(13, "Permission denied")

    for order in (catalog.load, catalog.unload, lambda name: catalog.promote(name, 1)):
        with pytest.raises(Unavailable, match="cannot be read"):
            order("iris")

    assert _answers(catalog) == found


def test_what_one_process_orders_the_others_follow_at_their_next_poll(disk: Disk, tmp_path: Path) -> None:
    disk.export(1)
    asked, other = (_catalog(disk, orders=Orders(tmp_path / "orders.json")) for _ in range(2))
    asked.poll()
    other.poll()

    asked.unload("iris")
    other.poll()
    late = _catalog(disk, orders=Orders(tmp_path / "orders.json"))
    late.poll()

    for catalog in (asked, other, late):
        assert [summary.state for summary in catalog.summaries()] == [UNLOADED]
    assert disk.loads == [("iris", 1)] * 2
    asked.load("iris")
    other.poll()
    late.poll()
    assert [_answers(catalog).version for catalog in (asked, other, late)] == [1, 1, 1]


def test_process_knows_of_an_order_before_it_takes_the_next(disk: Disk, tmp_path: Path) -> None:
    disk.export(1)
    first, second = (_catalog(disk, orders=Orders(tmp_path / "orders.json")) for _ in range(2))
    first.poll()
    second.poll()

    first.unload("iris")
    assert not second.unload("iris")
    first.load("iris", again=False)
    with pytest.raises(AlreadyLoaded):
        second.load("iris", again=False)

    assert _answers(second).version == 1


# Leases


def test_drained_version_stays_in_memory_until_the_last_lease_is_released(disk: Disk) -> None:
    disk.export(1)
    catalog = _catalog(disk)
    catalog.poll()
    leases = [catalog.lease(Target("iris")), catalog.lease(Target("iris"))]
    memory = weakref.ref(_model(leases[0]))

    disk.export(2)
    catalog.poll()
    leases.pop().release()
    gc.collect()
    assert memory() is not None

    leases.pop().release()
    gc.collect()
    assert memory() is None


@fault("M26", sent="a version that is let go", expected="its memory is freed")
def test_version_that_nobody_uses_leaves_the_memory_at_once(disk: Disk) -> None:
    disk.export(1)
    catalog = _catalog(disk)
    catalog.poll()
    lease = catalog.lease(Target("iris"))
    memory = weakref.ref(_model(lease))
    lease.release()
    del lease

    disk.export(2)
    catalog.poll()
    gc.collect()

    assert memory() is None


def test_lease_of_a_drained_version_still_answers(disk: Disk) -> None:
    first = disk.export(1)
    catalog = _catalog(disk)
    catalog.poll()
    lease = catalog.lease(Target("iris"))

    disk.delete(1)
    catalog.poll()

    assert _model(lease).found == first
    lease.release()


def test_forgotten_catalog_loads_everything_again(disk: Disk) -> None:
    found = disk.export(1)
    catalog = _catalog(disk)
    catalog.poll()

    catalog.forget()

    assert not catalog.is_loaded
    with pytest.raises(Unavailable):
        catalog.lease(Target("iris"))
    catalog.poll()
    assert _answers(catalog) == found
    assert disk.loads == [("iris", 1)] * 2


def test_move_that_the_table_lacks_is_a_bug() -> None:
    version = Version(Disk().export(1), NO_ORDER)

    with pytest.raises(AssertionError, match="iris/1: loading to gone"):
        version.move(State.GONE)


# What requests ask


def test_before_the_first_poll_everything_is_unavailable(disk: Disk) -> None:
    catalog = _catalog(disk)

    assert not catalog.is_loaded
    for target in (Target(), Target("iris"), Target("iris", version=1), Target("iris", label="stable")):
        with pytest.raises(Unavailable, match="models are being loaded"):
            catalog.lease(target)
    with pytest.raises(Unavailable):
        catalog.details("iris")


def test_during_the_first_poll_models_still_to_come_are_unavailable(disk: Disk) -> None:
    disk.export(1, "apple")
    disk.export(1, "pear")
    catalog = _catalog(disk)
    errors: list[TandemError] = []

    def ask(found: Found) -> None:
        with pytest.raises(TandemError) as caught:
            catalog.lease(Target("pear"))
        errors.append(caught.value)
        assert not catalog.is_loaded
        assert [summary.name for summary in catalog.summaries()] == (["apple"] if found.name == "pear" else [])

    disk.while_loading = ask
    catalog.poll()

    assert [type(error) for error in errors] == [Unavailable, Unavailable]
    assert catalog.is_loaded


@pytest.mark.parametrize(
    ("target", "error", "told"),
    [
        pytest.param(Target("wine"), UnknownModel, "no such model", id="model"),
        pytest.param(Target("iris", version=9), UnknownVersion, "no such version; it serves 2, 3", id="version"),
        pytest.param(Target("iris", version=1), UnknownVersion, "it serves 2, 3", id="version on disk, not live"),
        pytest.param(Target("iris", label="canary"), UnknownLabel, "no such label on a served version; it has stable",
                     id="label"),
        pytest.param(Target("iris", label="lost"), UnknownLabel, "it has stable", id="label of what is not live"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_unknown(disk: Disk, target: Target, error: type[TandemError], told: str) -> None:
    for number in (1, 2, 3):
        disk.export(number)
    disk.labels["iris"] = {"stable": 2, "lost": 7}
    catalog = _catalog(disk, keep=2)
    catalog.poll()

    with pytest.raises(error) as caught:
        catalog.lease(target)

    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("target", "number"),
    [
        pytest.param(Target("iris"), 1, id="stable"),
        pytest.param(Target("iris", version=3), 3, id="version"),
        pytest.param(Target("iris", label="canary"), 2, id="label"),
        pytest.param(Target(), 1, id="the only model"),
    ],
)
def test_target_means_a_version(disk: Disk, target: Target, number: int) -> None:
    for version in (1, 2, 3):
        disk.export(version)
    disk.labels["iris"] = {"stable": 1, "canary": 2}
    catalog = _catalog(disk)
    catalog.poll()

    assert _answers(catalog, target).version == number


def test_model_of_which_no_version_loads_is_unavailable(disk: Disk) -> None:
    disk.export(1, bad=DigestMismatch("cut"))
    catalog = _catalog(disk)
    catalog.poll()

    with pytest.raises(Unavailable, match="no version of model 'iris' could be loaded") as caught:
        catalog.lease(Target("iris"))

    assert caught.value.retry_after_s == 10
    summary, loaded = catalog.details("iris")
    assert (summary.state, summary.served, loaded) == (State.FAILED, None, None)


def test_default_model_answers_where_none_is_named(disk: Disk) -> None:
    disk.export(1, "apple")
    found = disk.export(1, "pear")
    catalog = _catalog(disk, default_model="pear")
    catalog.poll()

    assert _answers(catalog, Target()) == found


def test_of_several_models_without_a_default_one_must_be_named(disk: Disk) -> None:
    disk.export(1, "apple")
    disk.export(1, "pear")
    catalog = _catalog(disk)
    catalog.poll()

    with pytest.raises(UnknownModel, match="2 models are served and none is the default"):
        catalog.lease(Target())


def test_default_model_that_is_not_there_is_unknown_even_beside_another(disk: Disk) -> None:
    disk.export(1, "apple")
    catalog = _catalog(disk, default_model="pear")
    catalog.poll()

    with pytest.raises(UnknownModel):
        catalog.lease(Target())


def test_empty_repository_has_no_model_to_mean(disk: Disk) -> None:
    catalog = _catalog(disk)
    catalog.poll()

    with pytest.raises(UnknownModel):
        catalog.lease(Target())


# What people ask


def test_details_are_those_of_the_served_version(disk: Disk) -> None:
    disk.export(1)
    disk.export(2)
    disk.labels["iris"] = {"stable": 1}
    catalog = _catalog(disk, keep=2)
    catalog.poll()

    summary, loaded = catalog.details("iris")

    assert (summary.versions, summary.labels, summary.served) == ((1, 2), {"stable": 1}, 1)
    assert loaded is not None
    assert loaded.manifest.version == 1
    with pytest.raises(UnknownModel):
        catalog.details("wine")


def test_served_versions_are_told_by_name(disk: Disk) -> None:
    disk.export(1, "pear")
    disk.export(2, "apple")
    disk.export(1, "quince", bad=DigestMismatch("cut"))
    catalog = _catalog(disk)
    catalog.poll()

    assert [(loaded.manifest.name, loaded.manifest.version) for loaded in catalog.served()] == [
        ("apple", 2),
        ("pear", 1),
    ]


# The law


_MOSTLY = st.sampled_from([True, True, True, False])


class Life(RuleBasedStateMachine):
    """Exports, failures, deletions, promotions, loads, unloads, leases and polls in any order.

    A move that the table lacks would fail by itself.
    """

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk()
        self.catalog = _catalog(self.disk, keep=2)
        self.is_wanted = True

    @rule(version=st.integers(1, 4), good=_MOSTLY)
    def export(self, version: int, good: bool) -> None:
        self.disk.export(version, bad=None if good else DigestMismatch("cut"))

    @rule(version=st.integers(1, 4))
    def delete(self, version: int) -> None:
        if version in self.disk.found.get("iris", {}):
            self.disk.delete(version)

    @rule(version=st.integers(1, 4), label=st.sampled_from(["stable", "canary"]))
    def promote(self, version: int, label: str) -> None:
        self.disk.labels.setdefault("iris", {})[label] = version

    @rule(wanted=st.booleans())
    def order(self, wanted: bool) -> None:
        self.disk.error = None
        if "iris" not in self.disk.found:
            return
        self.is_wanted = wanted
        if wanted:
            with suppress(Unavailable):
                self.catalog.load("iris")
        else:
            self.catalog.unload("iris")

    @rule(target=leases, wanted=st.sampled_from([Target("iris"), Target(), Target("iris", label="canary")]))
    def lease(self, wanted: Target) -> Any:
        try:
            return self.catalog.lease(wanted)
        except TandemError:
            return multiple()

    @rule(lease=consumes(leases))
    def release(self, lease: Lease) -> None:
        assert _model(lease).found.name == "iris"
        lease.release()

    @rule(readable=_MOSTLY)
    def poll(self, readable: bool) -> None:
        self.disk.error = None if readable else PermissionError(13, "Permission denied")
        before = _versions(self.catalog)
        self.catalog.poll()
        if not readable:
            assert _versions(self.catalog) == before
            return
        on_disk = self.disk.found.get("iris", {}) if self.is_wanted else {}
        good = {number for number, found in on_disk.items() if found not in self.disk.bad}
        live = set(_versions(self.catalog))
        # Whatever happened: what can be live is, and nothing of which the files were deleted.
        assert bool(live) >= bool(good)
        assert live <= set(on_disk)
        assert max(good, default=0) in live | {0}
        stable = self.disk.labels.get("iris", {}).get("stable")
        if stable in good:
            assert _answers(self.catalog) == on_disk[stable]

    @invariant()
    def live_versions_answer_and_failed_ones_have_a_reason(self) -> None:
        for summary in self.catalog.summaries():
            assert (summary.served in summary.versions) == bool(summary.versions)
            assert all(summary.reasons.values())
            for number in summary.versions:
                assert _answers(self.catalog, Target(summary.name, version=number)).version == number


def test_no_sequence_of_events_leaves_a_model_without_a_live_version() -> None:
    run_state_machine_as_test(Life, settings=settings(max_examples=300, stateful_step_count=25))


def test_found_is_compared_by_its_files() -> None:
    found = Disk().export(1)

    assert found != replace(found, stamp=())
