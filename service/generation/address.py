"""Where the upstream is, and which addresses of the network a request to it may go to."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?|[0-9a-f:.]+", re.ASCII)
_PATH: Final = re.compile(r"(/[A-Za-z0-9._~:@!$&'()*+,;=-]+)*", re.ASCII)

# Where clouds hand out credentials to whoever asks from inside, beside the link-local 169.254.169.254.
_METADATA: Final = frozenset(
    map(ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"))
)
# Addresses of IPv6 that stand for one of IPv4 in their last four bytes (RFC 6052, 2.1).
_NAT64: Final = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Address:
    """Of the upstream: `http://127.0.0.1:11434/v1`. `path` has no slash at its end."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """As the header Host has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


class Kind(StrEnum):
    """Whom an address can be of."""

    LOOPBACK = "loopback"
    PRIVATE = "private"
    PUBLIC = "public"


def parse_address(text: str) -> Address:
    """Raises ValueError where it is no address that requests could go to, or holds more than that."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"expected a URL such as http://127.0.0.1:11434/v1: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL with a user or password in it is shown in too many places: use upstream_key_file")
    host, path = (parts.hostname or "").rstrip("."), parts.path.rstrip("/")
    if parts.scheme not in _PORTS or not _HOST.fullmatch(host) or not _PATH.fullmatch(path) or port == 0:
        raise ValueError(f"expected a URL such as http://127.0.0.1:11434/v1, got {text[:100]!r}")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise ValueError("expected a URL without a query or fragment")
    return Address(parts.scheme, host, port or _PORTS[parts.scheme], path)


def kind_of(address: str) -> Kind | None:
    """None for those that nothing is ever asked at: link-local, of many at once, of nobody, or of a cloud's metadata.

    Raises:
        ValueError: no address.
    """
    ip = _as_meant(ip_address(address.partition("%")[0]))
    if ip in _METADATA or ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return None
    if ip.is_loopback:
        return Kind.LOOPBACK
    return Kind.PUBLIC if ip.is_global else Kind.PRIVATE


def as_address(host: str) -> tuple[str, ...] | None:
    """The addresses of a host that need not be looked up: an address, or localhost (RFC 6761, 6.3)."""
    if host == "localhost" or host.endswith(".localhost"):
        return ("127.0.0.1", "::1")
    try:
        return (str(ip_address(host)),)
    except ValueError:
        return None


def kinds_of_name(host: str) -> frozenset[Kind] | None:
    """Of the addresses that `host` has; None where it has to be looked up."""
    known = as_address(host)
    return None if known is None else frozenset(kind for one in known if (kind := kind_of(one)) is not None)


def allowed(addresses: Iterable[str], kinds: Collection[Kind] | None) -> list[str]:
    """Those of `addresses` that may be asked: of one of `kinds`, or, where none are known yet, of any."""
    return [
        address for address in addresses if (kind := kind_of(address)) is not None and (kinds is None or kind in kinds)
    ]


def _as_meant(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The address of IPv4 that one of IPv6 stands for."""
    if isinstance(ip, IPv4Address):
        return ip
    if ip in _NAT64:
        return IPv4Address(ip.packed[-4:])
    return ip.ipv4_mapped or ip.sixtofour or ip
