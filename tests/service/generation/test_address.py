from __future__ import annotations

import pytest

from service.generation.address import Address, Kind, allowed, as_address, kind_of, kinds_of_name, parse_address
from tests.faults.cases import fault


@pytest.mark.parametrize(
    ("text", "address", "authority"),
    [
        ("http://127.0.0.1:11434/v1", Address("http", "127.0.0.1", 11434, "/v1"), "127.0.0.1:11434"),
        ("https://API.example.com/v1/", Address("https", "api.example.com", 443, "/v1"), "api.example.com"),
        ("http://[::1]:8000", Address("http", "::1", 8000, ""), "[::1]:8000"),
        ("http://vllm", Address("http", "vllm", 80, ""), "vllm"),
        ("https://example.com.:80/", Address("https", "example.com", 80, ""), "example.com:80"),
    ],
)
def test_address_is_read(text: str, address: Address, authority: str) -> None:
    found = parse_address(text)

    assert found == address
    assert found.authority == authority


@fault("P01", "P13", sent="URLs of an upstream that hold more than an address", expected="refused")
@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:11434", "ftp://x/", "file:///etc/passwd", "http://", "http://:80/", "http://x:0/", "http://x:99999/",
        "http://x:port/", "http://user@x/", "http://user:pass@x/", "http://x/?a=b", "http://x/?", "http://x/#a",
        "http://x/a b", "http://x/a\r\nHost: y", "http://ex ample/", "http://grün.example/", "http://x/%2e%2e",
        "http://[::1", "",
    ],
)  # fmt: skip
def test_what_is_more_than_an_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_address(text)

    assert ":pass@" not in str(caught.value)


@fault("P03", sent="addresses of metadata, link-local, multicast, of nobody, in every spelling", expected="never asked")
@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", Kind.LOOPBACK), ("127.9.9.9", Kind.LOOPBACK), ("::1", Kind.LOOPBACK),
        ("::ffff:127.0.0.1", Kind.LOOPBACK), ("10.0.0.1", Kind.PRIVATE), ("192.168.1.1", Kind.PRIVATE),
        ("100.64.0.1", Kind.PRIVATE), ("fd00::1", Kind.PRIVATE), ("64:ff9b::10.0.0.1", Kind.PRIVATE),
        ("8.8.8.8", Kind.PUBLIC), ("2606:4700::1111", Kind.PUBLIC),
        ("169.254.169.254", None), ("::ffff:169.254.169.254", None), ("64:ff9b::169.254.169.254", None),
        ("2002:a9fe:a9fe::", None), ("fe80::1%eth0", None), ("fd00:ec2::254", None), ("100.100.100.200", None),
        ("0.0.0.0", None), ("::", None), ("224.0.0.1", None), ("ff02::1", None),
    ],
)  # fmt: skip
def test_kinds_of_addresses(address: str, kind: Kind | None) -> None:
    assert kind_of(address) is kind


def test_only_addresses_of_the_same_kind_are_allowed_later() -> None:
    found = ["8.8.8.8", "10.0.0.1", "169.254.169.254"]

    assert allowed(found, None) == ["8.8.8.8", "10.0.0.1"]
    assert allowed(found, {Kind.PUBLIC}) == ["8.8.8.8"]
    assert allowed(found, {Kind.LOOPBACK}) == []


def test_localhost_and_addresses_are_not_looked_up() -> None:
    assert as_address("localhost") == as_address("x.localhost") == ("127.0.0.1", "::1")
    assert as_address("10.0.0.1") == ("10.0.0.1",)
    assert as_address("example.com") is None
    assert kinds_of_name("localhost") == {Kind.LOOPBACK}
    assert kinds_of_name("169.254.169.254") == frozenset()
    assert kinds_of_name("example.com") is None
