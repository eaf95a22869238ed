"""What is live: versions are loaded beside the old ones, swapped in, and let go when nobody uses them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from service.core.artefact_errors import RollbackRefused
from service.core.errors import (
    AlreadyLoaded,
    TandemError,
    Unavailable,
    UnknownLabel,
    UnknownModel,
    UnknownVersion,
)
from service.core.messages import UNLOADED, ModelSummary, Target
from service.repository.control import NO_ORDER, Order, Orders
from service.repository.floors import Floors
from service.repository.policy import served_version, wanted_versions
from service.repository.sources import Found, Snapshot, Source
from service.repository.versions import Lease, Loaded, State, Version, code_of

_log = logging.getLogger(__name__)


class Catalog:
    """The versions in memory. One thread calls `poll`, `load`, `unload` and `promote`; any calls everything else.

    Args:
        load: makes a version answer, or raises; called without the lock, so that loading
            holds up no request.
        keep: how many of the newest versions of a model stay live.
        orders: what was asked to be loaded anew or let go, by callers of this process or of another one.
        floors: with them a version below the highest that ever was live is served only where a label points at it.
    """

    def __init__(
        self,
        source: Source,
        load: Callable[[Found], Loaded],
        *,
        keep: int,
        default_model: str | None = None,
        orders: Orders | None = None,
        floors: Floors | None = None,
    ) -> None:
        self._source = source
        self._load = load
        self._keep = keep
        self._default_model = default_model
        self._orders = orders or Orders()
        self._floors = floors
        self._lock = threading.Lock()
        self._versions: dict[str, dict[int, Version]] = {}
        self._failed: dict[str, dict[int, Version]] = {}
        self._snapshot = Snapshot()
        self._given: Mapping[str, Order] = {}
        self._first_poll_done = False
        self.changes = 0  # how often a version was brought in, or is gone: memory was taken, or is free

    # -- what is on disk becomes what is live ----------------------------------------------------

    def poll(self) -> None:
        """One round: look at the disk, load what is new, let go of what is not wanted any more."""
        try:
            self._look()
        except OSError as error:
            # A repository that cannot be read says nothing about its models: they stay.
            _log.error("the model repository cannot be read: %s", error)
            return
        with self._lock:
            names = sorted({*self._snapshot.versions, *self._versions, *self._failed})
        for name in names:
            self._follow(name)
        self._first_poll_done = True

    def load(self, name: str, *, again: bool = True) -> None:
        """Load what is on disk of model `name` anew, each version beside the one that serves meanwhile.

        Versions that failed are tried again, and a model that was unloaded serves again.

        Raises:
            UnknownModel: it is not on disk.
            AlreadyLoaded: it serves, and was not to be loaded `again`.
            Unavailable: the version that a plain request should get cannot be loaded. What served serves on.
        """
        self._look_for(name)
        if not again:
            self._follow(name)  # another process may have loaded or unloaded it since the last poll
            if self._versions.get(name):
                raise AlreadyLoaded(name)
        self._order(name, wanted=True)
        present = self._snapshot.versions[name]
        self._require(name, served_version(present, self._labels_of(name), self._floor_of(name)) or max(present))

    def unload(self, name: str) -> bool:
        """Let go of model `name`, and of every version of it that comes, until somebody loads it.

        Returns:
            Whether that changed anything; False where it was unloaded before, here or in another process.

        Raises:
            UnknownModel: it is not on disk.
            Unavailable: the disk cannot be read.
        """
        self._look_for(name)
        was_wanted = not self._is_unloaded(name)
        self._order(name, wanted=False)
        return was_wanted

    def promote(self, name: str, version: int) -> None:
        """Make `version` the one that a plain request gets.

        Raises:
            UnknownModel, UnknownVersion: it is not on disk.
            NotAllowed: the labels of this repository cannot be changed.
            Unavailable: the version cannot be loaded. What served serves on.
        """
        self._look_for(name)
        if version not in self._snapshot.versions[name]:
            raise UnknownVersion(name, sorted(self._snapshot.versions[name]))
        self._source.promote(name, version)
        self._look_for(name)
        self._follow(name)
        self._require(name, version)

    def _look(self) -> None:
        """Raises OSError where the disk, or what other processes ordered, cannot be read."""
        snapshot, given = self._source.scan(), self._orders.read()
        with self._lock:
            self._snapshot, self._given = snapshot, given

    def _look_for(self, name: str) -> None:
        try:
            self._look()
        except OSError as error:
            raise Unavailable("the model repository cannot be read") from error
        if name not in self._snapshot.versions:
            raise UnknownModel

    def _order(self, name: str, *, wanted: bool) -> None:
        given = self._orders.give(name, wanted=wanted)
        with self._lock:
            self._given = given
        self._follow(name)

    def _require(self, name: str, number: int) -> None:
        with self._lock:
            failed = self._failed.get(name, {})
            if number in failed:
                raise Unavailable(
                    f"version {number} of model {name!r} could not be loaded: {failed[number].reason}", retry_after_s=10
                )

    def _follow(self, name: str) -> None:
        """Make what is live of a model what should be."""
        order = self._given.get(name, NO_ORDER)
        present = self._snapshot.versions.get(name, {}) if order.wanted else {}
        skipped = self._snapshot.skipped.get(name, {}) if order.wanted else {}
        labels = self._labels_of(name)
        # A failure changes what is wanted: the next older version may have to come instead.
        while True:
            floor = self._floor_of(name)
            with self._lock:
                live = self._versions.setdefault(name, {})
                failed = self._failed.setdefault(name, {})
                for number in [n for n, v in failed.items() if not v.is_of(present.get(n), order)]:
                    del failed[number]  # gone, another file now, or ordered anew: it may be tried again
                is_rollback = self._refuse_rollback(present, labels, floor, order, failed)
                # What cannot be looked at any more, or must not be replaced by what is there, serves on from memory.
                kept = live.keys() if is_rollback else live.keys() & skipped.keys()
                # A version whose files went bad while it was live serves on from memory.
                wanted = wanted_versions(present, labels, failed.keys() - live.keys(), self._keep, floor) | kept
                current = {n for n, v in (live | failed).items() if n in kept or v.is_of(present.get(n), order)}
                if not (missing := wanted - current):
                    self._retire(name, live, wanted)
                    return
            self._bring_in(present[max(missing)], order)

    def _refuse_rollback(
        self,
        present: Mapping[int, Found],
        labels: Mapping[str, int],
        floor: int,
        order: Order,
        failed: dict[int, Version],
    ) -> bool:
        """Whether the newest version is one that was replaced, and nobody said that it should come back."""
        newest = max(present, default=floor)
        if newest >= floor or newest in labels.values():
            for number in [n for n, v in failed.items() if v.code == RollbackRefused.code]:
                del failed[number]
            return False
        if newest not in failed:
            failed[newest] = Version(present[newest], order)
            failed[newest].fail(
                RollbackRefused(
                    f"version {newest} is older than version {floor}, which was served before. If that is meant: "
                    f"tandem promote {present[newest].name} {newest}, or --allow-rollback"
                )
            )
            self._tell(failed[newest])
        return True

    def _tell(self, failed: Version) -> None:
        found = failed.found
        _log.error("version %d of %s is not served (%s): %s", found.version, found.name, failed.code, failed.reason)

    def _bring_in(self, found: Found, order: Order) -> None:
        """Load one version beside whatever serves now, and put it in its place if it is good."""
        version = Version(found, order)
        self.changes += 1
        try:
            loaded = self._load(found)
        except (Exception, SystemExit) as error:  # code in a model may call sys.exit
            version.fail(error)
            self._tell(version)
            with self._lock:
                self._failed[found.name][found.version] = version
            return
        with self._lock:
            version.loaded = loaded
            version.move(State.LIVE)
            live = self._versions[found.name]
            before = live.get(found.version)
            live[found.version] = version
            if before is not None:
                self._drain(before)
        if self._floors is not None:
            self._floors.lift(found.name, found.version)
        _log.info("version %d of %s is live", found.version, found.name)

    def _retire(self, name: str, live: dict[int, Version], wanted: set[int]) -> None:
        for number in [n for n in live if n not in wanted]:
            self._drain(live.pop(number))
            _log.info("version %d of %s is let go", number, name)
        for versions in (self._versions, self._failed):
            if not versions[name]:
                del versions[name]

    def _drain(self, version: Version) -> None:
        version.move(State.DRAINING)
        if version.leases == 0:
            self._let_go(version)

    def _release(self, version: Version) -> None:
        with self._lock:
            version.leases -= 1
            if version.leases == 0 and version.state is State.DRAINING:
                self._let_go(version)

    def _let_go(self, version: Version) -> None:
        version.move(State.GONE)
        self.changes += 1

    def forget(self) -> None:
        """For a forked child: nothing is live yet.

        Locks may be held, and lanes busy, on behalf of threads that only the parent has.
        """
        self._lock = threading.Lock()
        self._versions, self._failed = {}, {}
        self._first_poll_done = False

    # -- what requests ask -----------------------------------------------------------------------

    def lease(self, target: Target) -> Lease:
        """The version that `target` means, kept in memory until the lease is released.

        Raises:
            Unavailable: models are still being loaded, or this one has no version that loads.
            UnknownModel, UnknownVersion, UnknownLabel: it is not there.
        """
        with self._lock:
            name = self._name_of(target.model)
            live = self._versions.get(name, {})
            if not live:
                raise self._why_nothing(name)
            labels = self._labels_of(name)
            if target.version is not None:
                if target.version not in live:
                    raise UnknownVersion(name, sorted(live))
                number = target.version
            elif target.label is not None:
                if labels.get(target.label) not in live:
                    raise UnknownLabel(name, [label for label, v in labels.items() if v in live])
                number = labels[target.label]
            else:
                number = self._served_of(name, live)
            version = live[number]
            assert version.loaded is not None
            version.leases += 1
            return Lease(version.loaded, lambda: self._release(version))

    def _name_of(self, model: str | None) -> str:
        """The model asked for; without a name, the one set as default, or the only one."""
        if model is not None:
            return model
        if self._default_model is not None:
            return self._default_model
        known = [name for name in self._versions if self._versions[name]] or list(self._snapshot.versions)
        if len(known) == 1:
            return known[0]
        if not known:
            raise self._why_nothing(None)
        raise UnknownModel(
            f"{len(known)} models are served and none is the default: ask /models/{{name}}/predict, "
            "or set a default model"
        )

    def _why_nothing(self, name: str | None) -> TandemError:
        if not self._first_poll_done:
            return Unavailable("models are being loaded")
        if name is not None and (self._failed.get(name) or self._snapshot.skipped.get(name)):
            return Unavailable(f"no version of model {name!r} could be loaded", retry_after_s=10)
        if name is not None and self._is_unloaded(name):
            return UnknownModel(f"model {name!r} is unloaded; it answers again once it is loaded")
        return UnknownModel()

    def _is_unloaded(self, name: str) -> bool:
        return name in self._snapshot.versions and not self._given.get(name, NO_ORDER).wanted

    def _served_of(self, name: str, live: Mapping[int, Version]) -> int:
        number = served_version(live, self._labels_of(name), self._floor_of(name))
        if number is None:
            raise Unavailable(f"model {name!r} answers by version or label only: what is left is older than it was")
        return number

    def _floor_of(self, name: str) -> int:
        return self._floors.of(name) if self._floors is not None else 0

    def _labels_of(self, name: str) -> Mapping[str, int]:
        return self._snapshot.labels.get(name, {})

    # -- what people ask -------------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        """Whether the first round is over: every model that can be live is."""
        return self._first_poll_done

    def summaries(self) -> list[ModelSummary]:
        with self._lock:
            unloaded = filter(self._is_unloaded, self._snapshot.versions)
            known = {*filter(self._is_known, {*self._versions, *self._failed, *self._snapshot.skipped}), *unloaded}
            return [self._summary(name) for name in sorted(known)]

    def _is_known(self, name: str) -> bool:
        """A name may stand there empty for a moment, while its first version is being loaded."""
        return bool(self._versions.get(name) or self._failed.get(name) or self._snapshot.skipped.get(name))

    def _summary(self, name: str) -> ModelSummary:
        live = self._versions.get(name, {})
        failed = self._failed.get(name, {})
        labels = dict(self._labels_of(name))
        skipped = self._snapshot.skipped.get(name, {})
        reasons = {n: str(error) for n, error in skipped.items()} | {n: v.reason or "" for n, v in failed.items()}
        codes = {n: code_of(error) for n, error in skipped.items()} | {n: v.code or "" for n, v in failed.items()}
        state: str = State.LIVE if live else State.FAILED
        if not live and self._is_unloaded(name):
            state, reasons, codes = UNLOADED, dict.fromkeys(self._snapshot.versions[name], UNLOADED), {}
        return ModelSummary(
            name=name,
            versions=tuple(sorted(live)),
            labels=labels,
            state=state,
            served=served_version(live, labels, self._floor_of(name)),
            reasons=dict(sorted(reasons.items())),
            codes=dict(sorted(codes.items())),
        )

    def details(self, name: str) -> tuple[ModelSummary, Loaded | None]:
        """A model's summary, and its served version. Raises UnknownModel."""
        with self._lock:
            if not self._is_known(name):
                raise self._why_nothing(name)
            summary = self._summary(name)
            version = self._versions.get(name, {}).get(summary.served or 0)
            return summary, version.loaded if version else None

    def served(self) -> list[Loaded]:
        """The served version of each model, by name."""
        with self._lock:
            chosen = [
                live.get(served_version(live, self._labels_of(name), self._floor_of(name)) or 0)
                for name, live in sorted(self._versions.items())
            ]
            return [version.loaded for version in chosen if version is not None and version.loaded is not None]
