"""What is live: versions are loaded beside the old ones, swapped in, and let go when nobody uses them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from service.core.errors import TandemError, Unavailable, UnknownLabel, UnknownModel, UnknownVersion
from service.core.messages import ModelSummary, Target
from service.repository.policy import served_version, wanted_versions
from service.repository.sources import Found, Snapshot, Source
from service.repository.versions import Lease, Loaded, State, Version

_log = logging.getLogger(__name__)


class Catalog:
    """The versions in memory. `poll` is called by one thread; everything else from any.

    Args:
        load: makes a version answer, or raises; called without the lock, so that loading
            holds up no request.
        keep: how many of the newest versions of a model stay live.
    """

    def __init__(
        self, source: Source, load: Callable[[Found], Loaded], *, keep: int, default_model: str | None = None
    ) -> None:
        self._source = source
        self._load = load
        self._keep = keep
        self._default_model = default_model
        self._lock = threading.Lock()
        self._versions: dict[str, dict[int, Version]] = {}
        self._failed: dict[str, dict[int, Version]] = {}
        self._snapshot = Snapshot()
        self._first_poll_done = False

    # -- what is on disk becomes what is live ----------------------------------------------------

    def poll(self) -> None:
        """One round: look at the disk, load what is new, let go of what is not wanted any more."""
        try:
            snapshot = self._source.scan()
        except OSError as error:
            # A repository that cannot be read says nothing about its models: they stay.
            _log.error("the model repository cannot be read: %s", error)
            return
        with self._lock:
            self._snapshot = snapshot
            names = sorted({*snapshot.versions, *self._versions, *self._failed})
        for name in names:
            self._follow(name, snapshot)
        self._first_poll_done = True

    def _follow(self, name: str, snapshot: Snapshot) -> None:
        present = snapshot.versions.get(name, {})
        labels = snapshot.labels.get(name, {})
        # A failure changes what is wanted: the next older version may have to come instead.
        while True:
            with self._lock:
                live = self._versions.setdefault(name, {})
                failed = self._failed.setdefault(name, {})
                for number in [n for n, v in failed.items() if v.found != present.get(n)]:
                    del failed[number]  # gone, or another file now: it may be tried again
                # A version whose files went bad while it was live serves on from memory.
                wanted = wanted_versions(present, labels, failed.keys() - live.keys(), self._keep)
                missing = [n for n in wanted if n not in failed and (n not in live or live[n].found != present[n])]
                if not missing:
                    self._retire(name, live, wanted)
                    return
            self._bring_in(present[max(missing)])

    def _bring_in(self, found: Found) -> None:
        """Load one version beside whatever serves now, and put it in its place if it is good."""
        version = Version(found)
        try:
            loaded = self._load(found)
        except (Exception, SystemExit) as error:  # code in a model may call sys.exit
            version.move(State.FAILED)
            version.reason = str(error) if isinstance(error, TandemError) else f"{type(error).__name__}: {error}"
            _log.error("version %d of %s is not served: %s", found.version, found.name, version.reason)
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
            version.move(State.GONE)

    def _release(self, version: Version) -> None:
        with self._lock:
            version.leases -= 1
            if version.leases == 0 and version.state is State.DRAINING:
                version.move(State.GONE)

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
                number = served_version(live, labels) or max(live)
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
        if name is not None and self._failed.get(name):
            return Unavailable(f"no version of model {name!r} could be loaded", retry_after_s=10)
        return UnknownModel()

    def _labels_of(self, name: str) -> Mapping[str, int]:
        return self._snapshot.labels.get(name, {})

    # -- what people ask -------------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        """Whether the first round is over: every model that can be live is."""
        return self._first_poll_done

    def summaries(self) -> list[ModelSummary]:
        with self._lock:
            known = {*self._versions, *self._failed}
            return [self._summary(name) for name in sorted(known) if self._is_known(name)]

    def _is_known(self, name: str) -> bool:
        """A name may stand there empty for a moment, while its first version is being loaded."""
        return bool(self._versions.get(name) or self._failed.get(name))

    def _summary(self, name: str) -> ModelSummary:
        live = self._versions.get(name, {})
        failed = self._failed.get(name, {})
        labels = dict(self._labels_of(name))
        return ModelSummary(
            name=name,
            versions=tuple(sorted(live)),
            labels=labels,
            state=State.LIVE if live else State.FAILED,
            served=served_version(live, labels),
            reasons={number: version.reason or "" for number, version in sorted(failed.items())},
        )

    def details(self, name: str) -> tuple[ModelSummary, Loaded | None]:
        """A model's summary, and its served version. Raises UnknownModel."""
        with self._lock:
            if not self._is_known(name):
                raise UnknownModel() if self._first_poll_done else Unavailable("models are being loaded")
            summary = self._summary(name)
            version = self._versions.get(name, {}).get(summary.served or 0)
            return summary, version.loaded if version else None

    def served(self) -> list[Loaded]:
        """The served version of each model, by name."""
        with self._lock:
            chosen = [
                live[served_version(live, self._labels_of(name)) or max(live)]
                for name, live in sorted(self._versions.items())
                if live
            ]
            return [version.loaded for version in chosen if version.loaded is not None]
