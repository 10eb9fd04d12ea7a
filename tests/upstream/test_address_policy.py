"""The address policy: kinds of addresses, their spellings, and which are allowed."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis.strategies import integers, ip_addresses, sampled_from
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import DNSLookupError

from proxpi.simple import urls
from proxpi.upstream.address_policy import AddressPolicy, kind_of, literal
from proxpi.upstream.errors import AddressBlocked
from tests.support.cases import Case, run
from tests.support.indexes import PUBLIC

OUTSIDE = "https://index.example/simple/"
INSIDE = "http://10.1.1.1:8080/simple/"
NAMED = "http://index.corp/simple/"

_WITHIN_IPV6 = ("::ffff:0:0", "64:ff9b::", "::ffff:0:0:0")


@pytest.mark.parametrize(
    ("expected", "addresses"),
    [
        ("public", "1.2.3.4 2600::1 ::ffff:1.2.3.4 64:ff9b::1.2.3.4 2002:102:304::1"),
        ("private", "127.0.0.1 127.255.255.254 ::1 10.0.0.1 172.16.0.1 192.168.1.1 100.64.0.1"),
        ("private", "198.18.0.1 fd12:3456::1 fec0::1 64:ff9b:1::7f00:1 ::ffff:127.0.0.1"),
        ("private", "64:ff9b::10.0.0.1 2002:7f00:1:: ::127.0.0.1"),
        ("special", "169.254.169.254 fe80::1 fe80::1%eth0 0.0.0.0 0.1.2.3 :: 224.0.0.1 ff02::1"),
        ("special", "240.0.0.1 255.255.255.255 fd00:ec2::254 fd20:ce::254 100.100.100.200"),
        ("special", "192.0.0.192 168.63.129.16 ::ffff:169.254.169.254 64:ff9b::169.254.169.254"),
        ("special", "2002:a9fe:a9fe::1"),
    ],
)
def test_kinds(expected: str, addresses: str) -> None:
    """Each address has its kind, also one that is embedded in another."""
    for address in addresses.split():
        assert kind_of(address) == expected, address


@given(ip_addresses(v=4), sampled_from(_WITHIN_IPV6))
def test_an_embedded_address_counts(address: IPv4Address, prefix: str) -> None:
    """An IPv6 address that embeds an IPv4 address has the kind of that one."""
    embedding = IPv6Address(int(IPv6Address(prefix)) + int(address))
    assert kind_of(str(embedding)) == kind_of(str(address))


@given(ip_addresses(v=4), integers(1, 3))
def test_spellings(address: IPv4Address, parts: int) -> None:
    """However resolvers take an IPv4 address to be written, it is understood."""
    number = int(address)
    octets = address.packed
    rest = int.from_bytes(octets[parts:], "big")
    head = ".".join(str(octet) for octet in octets[:parts])
    for host in (
        str(address),
        f"{address}.",
        str(number),
        hex(number),
        f"{head}.{rest}",
        ".".join(f"0{octet:o}" for octet in octets),
        ".".join(hex(octet) for octet in octets),
        str(address).replace(".", "%2e"),
    ):
        assert literal(host) == str(address)


def test_other_spellings() -> None:
    """IPv6 may be long or short, and have a scope; a name stays a name, numbers in it or not."""
    for host in ("2600::1", "2600:0000:0000:0000:0000:0000:0000:0001", "2600:0::0001"):
        assert literal(host) == "2600::1"
    assert literal("fe80::1%25eth0") == "fe80::1%eth0"
    for host in ("index.example", "localhost", "1.2.3.example", "1e1", "", "256.256.256.256"):
        assert literal(host) is None


class PolicyCase(Case):
    """Tests with a DNS resolver in memory."""

    def setUp(self) -> None:
        self.addresses = {"index.corp": ["10.2.2.2"], "index.example": [PUBLIC]}
        self.asked: list[str] = []

    def look_up(self, host: str) -> Deferred[list[str]]:
        self.asked.append(host)
        found = self.addresses.get(host)
        return succeed(found) if found else fail(DNSLookupError())

    def policy(self, *index_urls: str, allow: tuple[str, ...] = ()) -> AddressPolicy:
        return AddressPolicy(index_urls, allow, self.look_up)

    def _allowed(
        self, policy: AddressPolicy, *addresses: str, host: str = "files.example", port: int = 80
    ) -> list[str]:
        return list(self.result(run(policy.allowed(host, port, addresses))))

    def blocked(
        self, policy: AddressPolicy, address: str, host: str = "files.example", port: int = 80
    ) -> AddressBlocked:
        return self.error(run(policy.allowed(host, port, [address])), AddressBlocked)


class ResolvedTests(PolicyCase):
    def test_public(self) -> None:
        """Public addresses are allowed, and no index is looked up for that."""
        assert self._allowed(self.policy(OUTSIDE), PUBLIC, "2600::1") == [PUBLIC, "2600::1"]
        assert self.asked == []

    def test_private(self) -> None:
        """A private address is blocked, and the error says what to set."""
        for address in ("127.0.0.1", "10.0.0.1", "::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1"):
            error = self.blocked(self.policy(OUTSIDE), address)
            assert str(error) == (
                f"files.example is {address}, a private address, where no link or redirect may "
                "lead unless PROXPI_ALLOW_HOSTS has files.example"
            )
            assert not error.temporary

    def test_index_inside(self) -> None:
        """If an index has a private address, others are allowed; a name is looked up once."""
        for index in (INSIDE, "http://[fd00::1]/", "http://2130706433/", "http://10.1/", NAMED):
            policy = self.policy(OUTSIDE, index)
            assert self._allowed(policy, "10.0.0.1", "127.0.0.1") == ["10.0.0.1", "127.0.0.1"]
            assert self._allowed(policy, "10.0.0.1") == ["10.0.0.1"]
        assert self.asked.count("index.corp") == 1

    def test_index_that_moves(self) -> None:
        """An index allows private addresses only as long as it has had no public one."""
        policy = self.policy(OUTSIDE)
        self._allowed(policy, PUBLIC, host="index.example")
        self.blocked(policy, "127.0.0.1", host="Index.Example.")
        self.blocked(policy, "127.0.0.1")
        policy = self.policy(NAMED)
        self._allowed(policy, "10.0.0.1")
        self._allowed(policy, PUBLIC, host="index.corp")
        self.blocked(policy, "10.0.0.1")

    def test_index_without_an_address(self) -> None:
        """As long as an index cannot be looked up, waiting may help; behind a proxy it is not."""
        del self.addresses["index.corp"]
        policy = self.policy(NAMED)
        assert self.blocked(policy, "10.0.0.1").temporary
        self.addresses["index.corp"] = ["10.2.2.2"]
        assert self._allowed(policy, "10.0.0.1") == ["10.0.0.1"]
        self.asked.clear()
        policy = AddressPolicy(
            [NAMED], (), self.look_up, lambda origin: origin != urls.origin(NAMED)
        )
        assert not self.blocked(policy, "10.0.0.1").temporary
        assert self.asked == []

    def test_special(self) -> None:
        """Special addresses are blocked wherever the indexes are; a named network allows none."""
        policy = self.policy(INSIDE, allow=("0.0.0.0/0", "::/0"))
        for address in ("169.254.169.254", "0.0.0.0", "fe80::1", "fd00:ec2::254", "224.0.0.1"):
            assert "a link-local or special address" in str(self.blocked(policy, address))
            assert self._allowed(policy, address, "10.0.0.1") == ["10.0.0.1"]

    def test_index_itself(self) -> None:
        """Host and port of an index are allowed at any address, which allows no other one."""
        for host in ("169.254.7.7", "index.example"):
            policy = self.policy(f"http://{host}:80/")
            assert self._allowed(policy, "169.254.7.7", host=host) == ["169.254.7.7"]
            self.blocked(policy, "169.254.7.7", host=host, port=81)
            self.blocked(policy, "10.0.0.1", host="x.example")

    def test_allowed_hosts(self) -> None:
        """``PROXPI_ALLOW_HOSTS``: a name or an address, also special, or a network's private ones.

        A name counts in any case, and not for its subdomains.
        """
        policy = self.policy(OUTSIDE, allow=("files.corp",))
        for host in ("files.corp", "Files.CORP", "files.corp."):
            for address in ("10.0.0.1", "127.0.0.1", "169.254.1.1"):
                assert self._allowed(policy, address, host=host) == [address]
        self.blocked(policy, "10.0.0.1", host="more.files.corp")
        policy = self.policy(OUTSIDE, allow=("10.0.0.1", "169.254.1.1", "fd00::1"))
        for address in ("10.0.0.1", "169.254.1.1", "fd00::1", "::ffff:10.0.0.1"):
            assert self._allowed(policy, address) == [address]
        self.blocked(policy, "10.0.0.2")
        policy = self.policy(OUTSIDE, allow=("10.0.0.0/8", "fd00::/8", "169.254.0.0/16"))
        for address in ("10.1.2.3", "fd12::1"):
            assert self._allowed(policy, address) == [address]
        self.blocked(policy, "192.168.0.1")
        self.blocked(policy, "169.254.1.1")


class LiteralTests(PolicyCase):
    """Hosts of URLs that are addresses, which are checked behind forward proxies, too."""

    def check(self, policy: AddressPolicy, url: str) -> Deferred[None]:
        return run(policy.check_host(urls.origin(url)))

    def test_addresses(self) -> None:
        """Addresses are checked in each of their spellings; names are not looked up here."""
        policy = self.policy(OUTSIDE)
        self.result(self.check(policy, "http://files.corp/x"))
        assert self.asked == []
        for host in ("127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.1."):
            self.error(self.check(policy, f"http://{host}:8000/x"), AddressBlocked)
        for host in ("[::1]", "[::ffff:7f00:1]", "[fe80::1%25lo]", "127%2e0.0.1", "0"):
            self.error(self.check(policy, f"https://{host}/x"), AddressBlocked)
        self.result(self.check(policy, f"https://{PUBLIC}/x"))
        self.result(self.check(policy, "https://[2600::1]/x"))
        # The error names the address, as the setting takes no odd spelling.
        for spelling, host in (
            ("127.1", "127.0.0.1"),
            ("2130706433", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("127%2e0.0.1", "127.0.0.1"),
            ("127.0.0.1%20x", "127.0.0.1"),
            ("local%68ost", "127.0.0.1"),
            ("[fe80::1%25lo]", "fe80::1%25lo"),
            ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1"),
            ("X.localhost", "x.localhost"),
        ):
            url = f"http://{spelling}/x"
            error = self.error(self.check(self.policy(OUTSIDE), url), AddressBlocked)
            assert str(error).endswith(f" unless PROXPI_ALLOW_HOSTS has {host}")
            allowed = self.policy(OUTSIDE, allow=(urls.host(host),))
            self.result(self.check(allowed, url))

    def test_this_machine(self) -> None:
        """The names of loopback are its addresses, for any resolver (RFC 6761 6.3)."""
        for host in ("localhost", "LOCALHOST.", "x.localhost", "local%68ost", "x%2Elocalhost"):
            self.error(self.check(self.policy(OUTSIDE), f"http://{host}/"), AddressBlocked)
        self.result(self.check(self.policy(OUTSIDE), "http://notlocalhost/"))
        self.result(self.check(self.policy("http://localhost:81/"), "http://localhost:81/"))
        allowed = self.policy(OUTSIDE, allow=("localhost",))
        self.result(self.check(allowed, "http://localhost/"))
