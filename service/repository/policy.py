"""Which versions should be live, and which of them answers: pure functions of what is known."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from service.repository.labels import STABLE


def wanted_versions(
    present: Collection[int], labels: Mapping[str, int], failed: Collection[int], keep: int, floor: int = 0
) -> set[int]:
    """The newest `keep` versions that did not fail and are not below `floor`, and every labelled one that is there.

    A version that failed is not wanted, so that the one before it stays.
    """
    usable = set(present) - set(failed)
    labelled = usable.intersection(labels.values())
    return labelled | set(sorted(version for version in usable if version >= floor)[-keep:])


def served_version(live: Collection[int], labels: Mapping[str, int], floor: int = 0) -> int | None:
    """The version a plain request gets: the stable one, else the newest that is live and not below `floor`."""
    stable = labels.get(STABLE)
    if stable is not None and stable in live:
        return stable
    return max((version for version in live if version >= floor), default=None)
