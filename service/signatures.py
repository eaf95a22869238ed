"""The commands `tandem keys`, `tandem sign` and `tandem verify`: who made a version, and whether it is as it was."""

from __future__ import annotations

from pathlib import Path

import click

from service.inspection import find_version
from service.repository.manifest import check_files, parse_manifest, read_manifest_bytes
from service.repository.signing import create_keys, read_signer, read_trusted_keys, sign_version, signer_of

_MODELS = click.option("--models", type=click.Path(path_type=Path), default=Path("models"), show_default=True)


@click.group()
def keys() -> None:
    """Make the keys that versions are signed with."""


@keys.command()
@click.argument("name", type=click.Path(path_type=Path))
def create(name: Path) -> None:
    """Write NAME.key, with which you sign, and NAME.pub, which servers trust."""
    key_id = create_keys(name)
    click.echo(f"{name}.key   signs: keep it to yourself (tandem sign MODEL VERSION --key {name}.key)")
    click.echo(f"{name}.pub   is trusted by servers (tandem serve --trusted-key {name}.pub); its id is {key_id}")


@click.command()
@click.argument("name", metavar="MODEL")
@click.argument("version", type=click.IntRange(1))
@click.option("--key", type=click.Path(path_type=Path), required=True, help="The private key, NAME.key.")
@_MODELS
def sign(name: str, version: int, key: Path, models: Path) -> None:
    """Sign VERSION of MODEL, once every file of it is known to be the one that was exported."""
    signer = read_signer(key)
    found = find_version(models, name, version)
    content = read_manifest_bytes(found.path, name, version)
    check_files(found.path, parse_manifest(content, name, version), keep=())
    sign_version(found.path, content, signer)
    click.echo(f"{name} {version}: signed by {signer.key_id}")


@click.command()
@click.argument("name", metavar="MODEL")
@click.argument("version", type=click.IntRange(1), required=False)
@click.option(
    "--trusted-key", "trusted_keys", type=click.Path(path_type=Path), required=True, multiple=True,
    help="A public key, NAME.pub. Repeatable.",
)  # fmt: skip
@_MODELS
def verify(name: str, version: int | None, trusted_keys: tuple[Path, ...], models: Path) -> None:
    """Tell who signed VERSION of MODEL, and that every file is the one that was signed.

    Without VERSION it is the one that plain requests get.
    """
    trusted = read_trusted_keys(trusted_keys)
    found = find_version(models, name, version)
    where = f"{name}/{found.version}"
    content = read_manifest_bytes(found.path, name, found.version)
    key_id = signer_of(content, found.path, where, trusted)
    manifest = parse_manifest(content, name, found.version)
    check_files(found.path, manifest, keep=())
    click.echo(f"{name} {found.version}: signed by {key_id}, {len(manifest.files)} files as they were")
