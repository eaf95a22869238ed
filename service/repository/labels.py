"""Labels: names such as `stable` that point at versions, so that callers need not know numbers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final
from uuid import uuid4

from service.core.artefact_errors import ManifestInvalid, NameInvalid
from service.core.names import check_name
from service.repository.manifest import LABELS, MANIFEST
from service.repository.reading import read_small

# The label that a request without version or label follows, where it is set.
STABLE: Final = "stable"


def read_labels(folder: Path) -> dict[str, int]:
    """The labels of the model in `folder`; no file sets none.

    Raises:
        ManifestInvalid, FileUnsafe: the file is there but holds no labels.
    """
    try:
        content = json.loads(read_small(folder / LABELS, f"{folder.name}/{LABELS}"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(f"{folder.name}/{LABELS} is not JSON") from error
    if not isinstance(content, dict) or not all(type(version) is int for version in content.values()):
        raise ManifestInvalid(f'{folder.name}/{LABELS}: expected {{"label": version, …}}')
    return content


def promote(repository: Path, name: str, version: int, label: str = STABLE) -> int | None:
    """Point `label` of model `name` at `version`; services follow within a poll. Rolling back is the same call.

    Returns:
        The version it pointed at before, or None.

    Raises:
        NameInvalid: a name that cannot be one, or a model or version that is not there.
    """
    check_name(name)
    check_name(label, "label")
    folder = repository / name
    if not (folder / str(version) / MANIFEST).is_file():
        present = sorted(int(p.parent.name) for p in folder.glob(f"*/{MANIFEST}") if p.parent.name.isdigit())
        raise NameInvalid(f"model {name!r} has no version {version}; it has {', '.join(map(str, present)) or 'none'}")
    labels = read_labels(folder)
    before = labels.get(label)
    labels[label] = version
    # Written beside and renamed: a reader sees the old labels or the new ones.
    draft = folder / f".{LABELS}.{uuid4().hex}"
    draft.write_text(json.dumps(labels, indent=2) + "\n")
    os.replace(draft, folder / LABELS)
    return before
