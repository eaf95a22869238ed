from __future__ import annotations

import pytest

from service.guards.peers import group_of, networks_of, peer_of

TRUSTED = networks_of(["10.0.0.0/8", "fd00::/8"])


@pytest.mark.parametrize(
    ("address", "forwarded", "peer"),
    [
        pytest.param("203.0.113.9", "198.51.100.1", "203.0.113.9", id="from a stranger it is ignored"),
        pytest.param("10.0.0.1", None, "10.0.0.1", id="a proxy that says nothing"),
        pytest.param("10.0.0.1", "198.51.100.1", "198.51.100.1", id="from a proxy"),
        pytest.param("10.0.0.1", "192.0.2.1, 198.51.100.1", "198.51.100.1", id="the caller's own words are not heard"),
        pytest.param("10.0.0.1", "198.51.100.1,10.0.0.2", "198.51.100.1", id="two proxies"),
        pytest.param("10.0.0.1", "10.9.9.9, 10.0.0.2", "10.9.9.9", id="a caller among the proxies"),
        pytest.param("10.0.0.1", "nonsense", "10.0.0.1", id="nonsense"),
        pytest.param("10.0.0.1", "198.51.100.1, nonsense", "10.0.0.1", id="nonsense of the last proxy"),
        pytest.param("10.0.0.1", "", "10.0.0.1", id="empty"),
        pytest.param("fd00::1", "2001:db8::7", "2001:db8::7", id="IPv6"),
        pytest.param("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1", id="IPv4 as IPv6"),
        pytest.param("", "198.51.100.1", "", id="a local socket"),
    ],
)
def test_peer_is_who_asked_the_last_trusted_proxy(address: str, forwarded: str | None, peer: str) -> None:
    assert peer_of(address, forwarded, TRUSTED) == peer


def test_without_trusted_proxies_nothing_is_believed() -> None:
    assert peer_of("10.0.0.1", "198.51.100.1", ()) == "10.0.0.1"


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="proxy"):
        networks_of(["proxy"])


@pytest.mark.parametrize(
    ("peer", "group"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("", ""),
    ],
)
def test_addresses_of_one_host_count_as_one(peer: str, group: str) -> None:
    assert group_of(peer) == group
