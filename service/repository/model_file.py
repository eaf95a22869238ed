"""The file of a version that holds its estimator: in which format, and how that is opened.

The name declares the format and the content must equal it; no other loader is tried. A version may have no such
file: then compiled engines answer all of its outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final, Literal

from service.core.artefact_errors import EstimatorUnusable, ManifestInvalid
from service.repository.manifest import MODEL, Manifest
from service.repository.opener import needed_trust, open_model
from service.repository.skops_file import needed_skops_trust, open_skops

Format = Literal["joblib", "skops", "compiled"]

SKOPS: Final = "model.skops"
# By format, the name of the file; a version that is compiled only has none.
NAMES: Final[dict[Format, str]] = {"joblib": MODEL, "skops": SKOPS}


def model_file(manifest: Manifest) -> str | None:
    """The name of the estimator's file, None where the version is compiled only.

    Raises:
        ManifestInvalid: there are two.
    """
    found = [name for name in NAMES.values() if name in manifest.files]
    if len(found) > 1:
        raise ManifestInvalid(f"{manifest.name}/{manifest.version} has two model files: {' and '.join(found)}")
    return found[0] if found else None


def required_model_file(manifest: Manifest) -> str:
    """As `model_file`. Raises EstimatorUnusable where there is none."""
    found = model_file(manifest)
    if found is None:
        raise EstimatorUnusable(f"{manifest.name}/{manifest.version} has no model file: it is compiled only")
    return found


def open_estimator(name: str, content: bytes, trusted: Collection[str] = ()) -> Any:
    """The estimator in a file called `name`. `.skops` is a skops file, everything else joblib or pickle.

    Raises:
        ArtefactError: as `open_model` and `open_skops`, whichever the name asks for.
    """
    opener: Callable[..., Any] = open_skops if name.endswith(".skops") else open_model
    return opener(content, trusted=trusted)


def trust_for(name: str, content: bytes) -> list[str]:
    """The names that a server must be told to trust before it opens the file called `name`, sorted."""
    return needed_skops_trust(content) if name.endswith(".skops") else needed_trust(content)
