"""Who made a version: Ed25519 signatures of manifests.

The manifest holds the name, the version and the digest of every file, so whoever signs its bytes signs all of them.
`manifest.sig` lies beside it, one line of JSON:

    {"key":"<id of the public key>","signature":"<base64>"}

What is signed is `CONTEXT` and then the bytes of manifest.json as they are; the id of a key is the first 16 hexadecimal
digits of the SHA-256 of its 32 raw bytes. Keys are PEM files as OpenSSL writes them (PKCS #8, SubjectPublicKeyInfo).

Source: RFC 8032 (Ed25519), RFC 8410 (its keys in PEM).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from service.core.artefact_errors import (
    KeyUnusable,
    SignatureMissing,
    SignatureWrong,
    SignerUnknown,
)
from service.repository.manifest import MANIFEST, SIGNATURE, Manifest, parse_manifest, read_manifest_bytes
from service.repository.reading import read_small

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# A signature of a manifest is one of nothing else, whatever else this key may sign.
CONTEXT: Final = b"tandem manifest 1\n"


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key. `key_id` is how signatures name it."""

    key_id: str
    key: Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key: keep it where only you can read it."""

    key: Ed25519PrivateKey

    @property
    def key_id(self) -> str:
        return _key_id(self.key.public_key())

    def sign(self, manifest: bytes) -> bytes:
        """The content of manifest.sig for these bytes of manifest.json."""
        return _write_signature(self.key_id, self.key.sign(CONTEXT + manifest))


def create_keys(path: Path) -> str:
    """Write a new pair, `path`.key (for you alone) and `path`.pub (for servers), and return its id.

    Raises:
        KeyUnusable: there is such a file already.
        OSError: they cannot be written.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    public = private.public_key()
    contents = (
        (".key", 0o600, private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())),
        (".pub", 0o644, public.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)),
    )
    for suffix, _, _ in contents:
        if path.with_name(path.name + suffix).exists():
            raise KeyUnusable(f"there is a file {path.name}{suffix} already; a key is never written over")
    for suffix, mode, content in contents:
        handle = os.open(path.with_name(path.name + suffix), os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
    return _key_id(public)


def read_signer(path: Path) -> Signer:
    """Raises KeyUnusable where the file holds no private Ed25519 key, or others can read it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        mode = path.stat().st_mode
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise KeyUnusable(f"the key {path.name} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise KeyUnusable(f"{path.name} is no private key in PEM without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(f"{path.name} is no Ed25519 key; tandem keys create makes one")
    if stat.S_IMODE(mode) & 0o077:
        raise KeyUnusable(f"other users can read the private key {path.name}: chmod 600 it, or make a new one")
    return Signer(key)


def read_trusted_keys(paths: Sequence[Path]) -> tuple[TrustedKey, ...]:
    """Raises KeyUnusable where a file holds no public Ed25519 key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    keys = []
    for path in paths:
        try:
            key = load_pem_public_key(path.read_bytes())
        except OSError as error:
            raise KeyUnusable(f"the key {path.name} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise KeyUnusable(f"{path.name} is no public key in PEM") from error
        if not isinstance(key, Ed25519PublicKey):
            raise KeyUnusable(f"{path.name} is no Ed25519 key")
        keys.append(TrustedKey(_key_id(key), key))
    return tuple(keys)


def sign_version(folder: Path, manifest: bytes, signer: Signer) -> None:
    """Put a signature of these bytes of the manifest into the folder of a version, in place of any other."""
    # Written beside the folder and renamed: whoever reads sees the old signature or the new one, and no third file.
    draft = folder.parent / f".{SIGNATURE}.{uuid4().hex}"
    try:
        with draft.open("wb") as file:
            file.write(signer.sign(manifest))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, folder / SIGNATURE)
    finally:
        draft.unlink(missing_ok=True)


def read_signed_manifest(folder: Path, name: str, number: int, keys: Sequence[TrustedKey]) -> Manifest:
    """The manifest in `folder`, once its signature is known to be fine; with no `keys`, whoever made it.

    Nothing else of the version is opened, and nothing of the manifest read, before that.

    Raises:
        ManifestInvalid, FileUnsafe: as `read_manifest` does.
        SignatureMissing, SignatureWrong, SignerUnknown: it is not signed by one of the keys.
    """
    content = read_manifest_bytes(folder, name, number)
    if keys:
        signer_of(content, folder, f"{name}/{number}", keys)
    return parse_manifest(content, name, number)


def signer_of(manifest: bytes, folder: Path, where: str, keys: Sequence[TrustedKey]) -> str:
    """The id of the key that signed these bytes of the manifest in `folder`. Raises: see `read_signed_manifest`."""
    from cryptography.exceptions import InvalidSignature

    try:
        content = read_small(folder / SIGNATURE, f"{where}/{SIGNATURE}")
    except FileNotFoundError:
        raise SignatureMissing(f"{where} is not signed, and only versions signed by a trusted key are served") from None
    except OSError as error:
        raise SignatureWrong(f"{where}/{SIGNATURE} cannot be read: {error.strerror}") from error
    key_id, signature = _read_signature(content, where)
    for trusted in keys:
        if trusted.key_id == key_id:
            try:
                trusted.key.verify(signature, CONTEXT + manifest)
            except InvalidSignature:
                raise SignatureWrong(f"{where}/{SIGNATURE} is not the signature of {MANIFEST} by {key_id}") from None
            return key_id
    raise SignerUnknown(f"{where} is signed by {key_id}, which is not one of the trusted keys")


def _write_signature(key_id: str, signature: bytes) -> bytes:
    fields = {"key": key_id, "signature": base64.b64encode(signature).decode()}
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _read_signature(content: bytes, where: str) -> tuple[str, bytes]:
    """Key and signature. There is one way to write them: what reads the same but is written otherwise is refused."""
    try:
        fields = json.loads(content)
        key_id, signature = fields["key"], base64.b64decode(fields["signature"])
        if _write_signature(key_id, signature) == content:
            return key_id, signature
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise SignatureWrong(f"{where}/{SIGNATURE} is not what tandem sign writes")


def _key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]
