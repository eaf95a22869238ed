from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.core.artefact_errors import (
    ArtefactError,
    KeyUnusable,
    SignatureMissing,
    SignatureWrong,
    SignerUnknown,
)
from service.repository.manifest import MANIFEST, SIGNATURE
from service.repository.signing import (
    Signer,
    create_keys,
    read_signed_manifest,
    read_signer,
    read_trusted_keys,
    sign_version,
    signer_of,
)
from tests.faults.cases import fault

CONTENT = b'{"name": "iris"}'


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    create_keys(tmp_path / "mine")
    return tmp_path


@pytest.fixture
def signer(keys: Path) -> Signer:
    return read_signer(keys / "mine.key")


@pytest.fixture
def version(tmp_path: Path) -> Path:
    folder = tmp_path / "iris" / "1"
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_bytes(CONTENT)
    return folder


def test_pair_is_written_as_openssl_reads_it_and_the_private_one_for_its_owner_alone(tmp_path: Path) -> None:
    key_id = create_keys(tmp_path / "mine")

    private, public = tmp_path / "mine.key", tmp_path / "mine.pub"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert private.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    assert public.read_text().startswith("-----BEGIN PUBLIC KEY-----")
    assert read_signer(private).key_id == key_id == read_trusted_keys([public])[0].key_id
    assert len(key_id) == 16


@pytest.mark.parametrize("there", ["mine.key", "mine.pub"])
def test_key_is_never_written_over(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("kept")

    with pytest.raises(KeyUnusable, match=f"there is a file {there} already"):
        create_keys(tmp_path / "mine")

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(there, "kept")]


def test_signed_manifest_names_who_signed_it(version: Path, keys: Path, signer: Signer) -> None:
    sign_version(version, CONTENT, signer)

    assert signer_of(CONTENT, version, "iris/1", read_trusted_keys([keys / "mine.pub"])) == signer.key_id
    assert json.loads((version / SIGNATURE).read_text()).keys() == {"key", "signature"}
    assert sorted(path.name for path in version.parent.rglob("*")) == ["1", MANIFEST, SIGNATURE]


def test_one_of_several_keys_is_enough(version: Path, keys: Path, signer: Signer) -> None:
    create_keys(keys / "other")
    sign_version(version, CONTENT, signer)

    trusted = read_trusted_keys([keys / "other.pub", keys / "mine.pub"])

    assert signer_of(CONTENT, version, "iris/1", trusted) == signer.key_id


def test_signature_is_of_manifests_alone(version: Path, keys: Path, signer: Signer) -> None:
    fields = {"key": signer.key_id, "signature": base64.b64encode(signer.key.sign(CONTENT)).decode()}
    (version / SIGNATURE).write_bytes(json.dumps(fields, separators=(",", ":")).encode() + b"\n")

    with pytest.raises(SignatureWrong):
        signer_of(CONTENT, version, "iris/1", read_trusted_keys([keys / "mine.pub"]))


def _flip(content: bytes) -> bytes:
    fields = json.loads(content)
    signature = fields["signature"]
    fields["signature"] = ("B" if signature[0] != "B" else "C") + signature[1:]
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


@fault(
    "M05",
    sent="signatures that are missing, damaged, written otherwise, or of another manifest",
    expected="refused: signature-missing, signature-wrong",
)
@pytest.mark.parametrize(
    ("change", "error"),
    [
        pytest.param(lambda content: None, SignatureMissing, id="none"),
        pytest.param(_flip, SignatureWrong, id="a bit"),
        pytest.param(lambda content: b"", SignatureWrong, id="empty"),
        pytest.param(lambda content: content[:-5], SignatureWrong, id="cut"),
        pytest.param(lambda content: b"[" * 100_000, SignatureWrong, id="deep"),
        pytest.param(lambda content: content.replace(b'{"', b'{ "'), SignatureWrong, id="written otherwise"),
        pytest.param(lambda content: content.replace(b'{"', b'{"more":1,"'), SignatureWrong, id="more in it"),
        pytest.param(lambda content: b'{"key":1,"signature":2}', SignatureWrong, id="numbers"),
    ],
)
def test_signature_that_is_not_fine_is_refused(
    version: Path, keys: Path, signer: Signer, change: Callable[[bytes], bytes | None], error: type[ArtefactError]
) -> None:
    sign_version(version, CONTENT, signer)
    path = version / SIGNATURE
    changed = change(path.read_bytes())
    path.unlink()
    if changed is not None:
        path.write_bytes(changed)

    with pytest.raises(error, match="iris/1"):
        signer_of(CONTENT, version, "iris/1", read_trusted_keys([keys / "mine.pub"]))


def test_signature_of_another_manifest_is_refused(version: Path, keys: Path, signer: Signer) -> None:
    sign_version(version, CONTENT + b" ", signer)

    with pytest.raises(SignatureWrong, match=f"is not the signature of manifest.json by {signer.key_id}"):
        signer_of(CONTENT, version, "iris/1", read_trusted_keys([keys / "mine.pub"]))


@fault("M05", sent="a version signed by a key that the server does not trust", expected="refused: signer-unknown")
def test_unknown_signer_is_refused_before_the_manifest_is_read(version: Path, keys: Path, signer: Signer) -> None:
    create_keys(keys / "other")
    sign_version(version, CONTENT, signer)

    with pytest.raises(SignerUnknown, match=f"signed by {signer.key_id}, which is not one of the trusted keys"):
        read_signed_manifest(version, "iris", 1, read_trusted_keys([keys / "other.pub"]))


def test_key_that_says_it_is_another_is_refused(version: Path, keys: Path, signer: Signer) -> None:
    create_keys(keys / "other")
    forger = read_signer(keys / "other.key")
    forged = forger.sign(CONTENT).replace(forger.key_id.encode(), signer.key_id.encode())
    (version / SIGNATURE).write_bytes(forged)

    with pytest.raises(SignatureWrong):
        signer_of(CONTENT, version, "iris/1", read_trusted_keys([keys / "mine.pub"]))


def test_private_key_that_others_can_read_is_refused(keys: Path) -> None:
    (keys / "mine.key").chmod(0o640)

    with pytest.raises(KeyUnusable, match=r"other users can read the private key mine\.key"):
        read_signer(keys / "mine.key")


def _pem(key: Ed25519PrivateKey | object) -> tuple[bytes, bytes]:
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())  # type: ignore[attr-defined]
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return private, public


def test_what_is_no_such_key_is_refused_by_its_name(tmp_path: Path) -> None:
    private, public = _pem(generate_private_key(SECP256R1()))
    contents = {"text": b"hello", "private": private, "public": public}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)

    for name in (*contents, "nothing"):
        with pytest.raises(KeyUnusable, match=name):
            read_signer(tmp_path / name)
        with pytest.raises(KeyUnusable, match=name):
            read_trusted_keys([tmp_path / name])


def test_private_key_is_no_trusted_one(keys: Path) -> None:
    with pytest.raises(KeyUnusable, match=r"mine\.key is no public key"):
        read_trusted_keys([keys / "mine.key"])
