from __future__ import annotations

import pytest

from service.core.errors import UnreadableRequest, WrongHost
from service.guards.hosts import LOOPBACK, require_host


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8000", "localhost:65535"]
)
def test_own_names_are_good_with_any_port(host: str) -> None:
    require_host(host, LOOPBACK)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.2", "[::2]"])
def test_other_names_are_somebody_else(host: str) -> None:
    with pytest.raises(WrongHost):
        require_host(host, LOOPBACK)


@pytest.mark.parametrize(
    "host",
    [
        None, "", "good/?", "localhost/", "localhost#", "a@localhost", "local host", " localhost", "a,b",
        "localhost:", "localhost:x", "[::1", "::1", "localhost:123456", "localhost\t", "löcalhost", "localhost%00",
    ],
)  # fmt: skip
def test_what_is_no_host_is_unreadable(host: str | None) -> None:
    with pytest.raises(UnreadableRequest, match="expected one Host"):
        require_host(host, LOOPBACK)


def test_without_names_every_host_is_good() -> None:
    require_host(None, ())
    require_host("evil.example", ())
