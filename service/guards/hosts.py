"""The names by which callers may ask for this service.

A page on the internet can point a name of its own at 127.0.0.1 and ask what listens there (DNS rebinding); its browser
says the name in Host.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Final

from service.core.errors import UnreadableRequest, WrongHost

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

# A name or an address, and a port. Two hosts, which servers join with a comma, are none.
_HOST: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?", re.ASCII)


def require_host(host: str | None, allowed: Collection[str]) -> None:
    """`allowed` are names in small letters, without ports; with none of them every host is good.

    Raises:
        UnreadableRequest: it is missing, or no host.
        WrongHost: it is another one.
    """
    if not allowed:
        return
    name = None if host is None else _name(host)
    if name is None:
        raise UnreadableRequest("expected one Host in the request, a name or an address and maybe a port")
    if name not in allowed:
        raise WrongHost(name)


@lru_cache(maxsize=256)
def _name(host: str) -> str | None:
    match = _HOST.fullmatch(host)
    return (match[1] or match[2]).lower() if match is not None else None
