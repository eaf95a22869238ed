"""Which versions should be live, and which of them answers: pure functions of what is known."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from service.repository.labels import STABLE


def wanted_versions(
    present: Collection[int], labels: Mapping[str, int], failed: Collection[int], keep: int
) -> set[int]:
    """The newest `keep` versions that did not fail, and every labelled one that is there.

    A version that failed is not wanted, so that the one before it stays.
    """
    usable = sorted(set(present) - set(failed))
    labelled = {version for version in labels.values() if version in usable}
    return labelled | set(usable[-keep:])


def served_version(live: Collection[int], labels: Mapping[str, int]) -> int | None:
    """The version a plain request gets: the stable one, else the newest that is live."""
    stable = labels.get(STABLE)
    if stable is not None and stable in live:
        return stable
    return max(live, default=None)
