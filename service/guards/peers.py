"""Whose address a request comes from, where proxies that the operator trusts hand it on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

Network: TypeAlias = IPv4Network | IPv6Network


def networks_of(texts: Sequence[str]) -> tuple[Network, ...]:
    """Addresses and CIDR blocks. Raises ValueError, which names the one that is neither."""
    return tuple(ip_network(text) for text in texts)


def peer_of(address: str, forwarded_for: str | None, trusted: tuple[Network, ...]) -> str:
    """The caller's address: that of the connection, unless it is a trusted proxy's.

    Each proxy adds to X-Forwarded-For who asked it, so the entries are true from the right, up to the first that no
    trusted proxy wrote. What is to the left of it is whatever the caller liked to write.
    """
    if not trusted or forwarded_for is None:
        return address
    peer = address
    for entry in reversed(forwarded_for.split(",")):
        if not _is_among(peer, trusted):
            break
        entry = entry.strip()
        if not _is_address(entry):
            break
        peer = entry
    return peer


@lru_cache(maxsize=4096)
def group_of(peer: str) -> str:
    """Whom limits count as one: an IPv4 address, or the /64 of an IPv6 address, which one host has for itself."""
    try:
        address = ip_address(peer)
    except ValueError:  # a local socket has no address
        return peer
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or IPv6Network((address, 64), strict=False))
    return str(address)


@lru_cache(maxsize=1024)
def _is_among(peer: str, trusted: tuple[Network, ...]) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return any((mapped or address) in network for network in trusted)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
