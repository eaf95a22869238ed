"""What a catalog does about versions that are older than what it served, or that cannot even be looked at."""

from __future__ import annotations

import logging

import pytest

from service.core.artefact_errors import FileUnsafe
from service.core.errors import Unavailable
from service.core.messages import Target
from service.repository.catalog import Catalog
from service.repository.floors import Floors
from service.repository.sources import Found, Snapshot
from service.repository.versions import State
from tests.faults.cases import fault
from tests.service.repository.test_catalog import Disk


class Skipping(Disk):
    """A disk on which some versions cannot be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped: dict[str, dict[int, FileUnsafe]] = {}

    def skip(self, version: int) -> None:
        del self.found["iris"][version]
        self.skipped["iris"] = {version: FileUnsafe(f"iris/{version}/model is a named pipe")}

    def scan(self) -> Snapshot:
        seen = super().scan()
        return Snapshot({n: v for n, v in seen.versions.items() if v}, seen.labels, self.skipped)


@pytest.fixture
def disk() -> Skipping:
    return Skipping()


def _catalog(disk: Disk, floors: Floors | None, keep: int = 2) -> Catalog:
    catalog = Catalog(disk, disk.load, keep=keep, floors=floors)
    catalog.poll()
    return catalog


def _answers(catalog: Catalog, version: int | None = None) -> Found:
    lease = catalog.lease(Target("iris", version))
    lease.release()
    found: Found = lease.loaded.submit.found  # type: ignore[attr-defined]
    return found


@fault(
    "M06",
    sent="the newest signed version taken away, an older one left or put back",
    expected="the older one is refused (rollback-refused), and what served serves on from memory",
)
def test_older_version_does_not_come_back_unasked(disk: Skipping, caplog: pytest.LogCaptureFixture) -> None:
    disk.export(2)
    newest = disk.export(3)
    catalog = _catalog(disk, Floors())

    disk.delete(3)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            catalog.poll()

    (summary,) = catalog.summaries()
    assert _answers(catalog) == newest
    assert (summary.state, summary.served, summary.codes) == (State.LIVE, 3, {2: "rollback-refused"})
    assert summary.reasons[2].startswith("version 2 is older than version 3, which was served before.")
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "version 2 of iris is not served (rollback-refused)"
    ]
    assert disk.loads == [("iris", 3)]


@fault("M06", sent="the same, and the service started again", expected="refused; nothing serves the model")
def test_service_that_was_started_again_remembers_what_it_served(disk: Skipping) -> None:
    floors = Floors()
    floors.lift("iris", 3)
    disk.export(2)
    catalog = _catalog(disk, floors)

    (summary,) = catalog.summaries()
    assert (summary.state, summary.versions, summary.codes) == (State.FAILED, (), {2: "rollback-refused"})
    for version in (None, 2):
        with pytest.raises(Unavailable):
            _answers(catalog, version)
    with pytest.raises(Unavailable, match="older than version 3"):
        catalog.load("iris")
    assert disk.loads == []


@fault("M06", sent="the same, and `tandem promote`", expected="the older version serves: an operator said so")
def test_older_version_that_is_promoted_serves(disk: Skipping) -> None:
    older = disk.export(2)
    disk.export(3)
    catalog = _catalog(disk, Floors())
    disk.delete(3)
    catalog.poll()

    disk.labels["iris"] = {"stable": 2}
    catalog.poll()

    (summary,) = catalog.summaries()
    assert _answers(catalog) == older
    assert (summary.served, summary.codes) == (2, {})


def test_another_label_brings_a_version_back_for_those_who_ask_by_it(disk: Skipping) -> None:
    floors = Floors()
    floors.lift("iris", 3)
    older = disk.export(2)
    disk.labels["iris"] = {"old": 2}
    catalog = _catalog(disk, floors)

    assert _answers(catalog, 2) == older
    assert catalog.served() == []
    with pytest.raises(Unavailable, match="answers by version or label only"):
        _answers(catalog)


@fault("M06", sent="the newest version damaged before it was ever served", expected="the one before serves on")
def test_version_that_never_was_live_lifts_no_floor(disk: Skipping) -> None:
    older = disk.export(2)
    catalog = _catalog(disk, Floors())

    disk.export(3, bad=ValueError("damaged"))
    catalog.poll()

    assert _answers(catalog) == older


@fault("M06", sent="the newest signed version taken away, with --allow-rollback", expected="the older one serves")
def test_without_floors_versions_come_and_go(disk: Skipping) -> None:
    older = disk.export(2)
    disk.export(3)
    catalog = _catalog(disk, None)

    disk.delete(3)
    catalog.poll()

    assert _answers(catalog) == older


def test_next_version_ends_the_refusal(disk: Skipping) -> None:
    disk.export(2)
    disk.export(3)
    catalog = _catalog(disk, Floors())
    disk.delete(3)
    catalog.poll()

    newest = disk.export(4)
    catalog.poll()

    (summary,) = catalog.summaries()
    assert _answers(catalog) == newest
    assert (summary.versions, summary.codes) == ((4,), {})


def test_model_whose_folder_is_gone_is_let_go(disk: Skipping) -> None:
    disk.export(3)
    catalog = _catalog(disk, Floors())

    disk.delete(3)
    catalog.poll()

    assert catalog.summaries() == []


# What cannot be looked at


@fault("M04", "M15", sent="a live version that cannot be looked at any more", expected="it serves on, and says why")
def test_live_version_that_cannot_be_looked_at_serves_on(disk: Skipping) -> None:
    live = disk.export(1)
    catalog = _catalog(disk, None)

    disk.skip(1)
    for _ in range(2):
        catalog.poll()

    (summary,) = catalog.summaries()
    assert _answers(catalog) == live
    assert (summary.state, summary.reasons) == (State.LIVE, {1: "iris/1/model is a named pipe"})
    assert summary.codes == {1: "file-unsafe"}
    assert disk.loads == [("iris", 1)]


def test_model_of_which_nothing_can_be_looked_at_is_unavailable(disk: Skipping) -> None:
    disk.export(1)
    disk.skip(1)
    catalog = _catalog(disk, None)

    with pytest.raises(Unavailable, match="no version of model 'iris' could be loaded"):
        _answers(catalog)
    assert [summary.codes for summary in catalog.summaries()] == [{1: "file-unsafe"}]
