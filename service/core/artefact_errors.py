"""What can be wrong with a model on disk.

ArtefactError
├── ManifestInvalid           ManifestMissing, ManifestOfAnother
├── DigestMismatch            FileMissing, FileUnlisted
├── FileUnsafe                FileTooLarge, FileNotPrivate
├── SignatureMissing, SignatureWrong, SignerUnknown, KeyUnusable
├── RollbackRefused, OutOfMemory, LoadTookTooLong
├── ModelFileUnreadable, SandboxRefused
├── UntrustedNames, LibraryMismatch, GoldenDisagrees
├── EngineUnusable, EngineMissing
└── VersionExists, NameInvalid (NameReserved), EstimatorUnusable
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import ClassVar

from service.core.errors import TandemError


class ArtefactError(TandemError):
    """A model on disk cannot be used. Shown to operators, so it may name files of the repository.

    `code` is for alerts and dashboards: the name of the class in small letters, as `digest-mismatch`.
    """

    title = "Model unusable"
    code: ClassVar[str] = "artefact-error"

    def __init_subclass__(cls) -> None:
        cls.code = re.sub(r"\B(?=[A-Z])", "-", cls.__name__).lower()


class NameInvalid(ArtefactError):
    """A model, version or label is not spelt as names are (see `names.py`)."""


class NameReserved(NameInvalid):
    """A model is called like the beginning of a route."""


class ManifestInvalid(ArtefactError):
    """The manifest is unreadable, or does not fit together."""


class ManifestMissing(ManifestInvalid):
    """A version without one is not complete, or not there."""


class ManifestOfAnother(ManifestInvalid):
    """The manifest is of another model or version."""


class DigestMismatch(ArtefactError):
    """A file is not the one that was exported."""


class FileMissing(DigestMismatch):
    """A file of the version is not there."""


class FileUnlisted(DigestMismatch):
    """A file lies in the version's folder that was not exported with it."""


class FileUnsafe(ArtefactError):
    """A link, a device, a pipe: what is no regular file of the repository is not opened."""


class FileTooLarge(FileUnsafe):
    """A version is larger than this service takes."""


class FileNotPrivate(FileUnsafe):
    """Other users of this machine can change a file that is code."""


class SignatureMissing(ArtefactError):
    """A key is trusted, and nobody signed the version."""


class SignatureWrong(ArtefactError):
    """The signature is not that of this manifest by the key that it names."""


class SignerUnknown(ArtefactError):
    """Signed by a key that this service does not trust."""


class KeyUnusable(ArtefactError):
    """A file is not the key that it should be, or others can read a private one."""


class RollbackRefused(ArtefactError):
    """The newest version on disk is older than one that was served before."""


class OutOfMemory(ArtefactError):
    """A version does not fit into the memory that is left."""


class LoadTookTooLong(ArtefactError):
    """A version was not loaded and checked in time."""


class ModelFileUnreadable(ArtefactError):
    """The model file is cut, corrupt, or not a joblib file at all."""


class UntrustedNames(ArtefactError):
    """The model file names code outside the allow-list. Nothing of it was executed."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = tuple(sorted(names))
        options = " ".join(f"--trust {name}" for name in self.names)
        super().__init__(
            f"the model file names code that is not on the allow-list: {', '.join(self.names)}. "
            f"Nothing was executed. If you trust it: {options}"
        )


class SandboxRefused(ArtefactError):
    """The model file crashed the process that tried it out, or takes too much time or memory."""


class LibraryMismatch(ArtefactError):
    """Exported with another minor version of scikit-learn than this process runs."""


class GoldenDisagrees(ArtefactError):
    """The model does not repeat the answers recorded at export."""


class EngineUnusable(ArtefactError):
    """A compiled engine cannot be opened here."""


class EngineMissing(ArtefactError):
    """The rules ask for an engine that this version does not have."""


class VersionExists(ArtefactError):
    """Somebody else published this version first."""


class EstimatorUnusable(ArtefactError):
    """The estimator cannot be served: unfitted, without outputs, or its inputs cannot be described."""
