"""Names as administrators have them: wildcards, private zones, delegation, IDN, company at a name, many.

Each test is a renewal by the installed command, with pebble and DNS as they are.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from certcast_lab.aliyun.cloud import ACCOUNT, NAMESERVERS, PROVIDER
from certcast_lab.lab import CERTCAST, Lab
from foreign import Colleagues
from issuing import Certbot, certbot_21
from journey import Journey


def addresses(*servers) -> str:
    """Addresses as certcast.toml has them."""
    return "[" + ", ".join('"{}:{}"'.format(*server.address) for server in servers) + "]"


def inside_a_vpc(journey: Journey) -> None:
    """Let certcast ask the VPC's resolver; the CA goes on asking the public one."""
    dns = journey.lab.dns
    journey.configure(
        f"resolvers = {addresses(dns.resolver)}", f'resolvers = {addresses(dns.vpc)}\nfallback_wait = "2s"'
    )


def asked_by_the_ca(lab: Lab) -> set[str]:
    """The challenge names that the CA looked at."""
    return {query.name for query in lab.dns.resolver.queries if query.type == "TXT"}


def test_nameservers_as_alidns_names_them(lab: Lab) -> None:
    """
    Without `nameservers` in the configuration the zone's own are asked, at port 53: their names are Alidns's
    word, their addresses a resolver's.
    """
    provider = lab.cloud.zones.get("lab-dns.test")
    assert provider is not None
    for record in lab.cloud.zones.records(provider):
        lab.cloud.zones.delete(record)
    for number, server in enumerate(lab.dns.servers):
        host = f"127.{53 + number}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
        try:
            lab.dns.listen_also(server, host, 53)
        except PermissionError:
            pytest.skip("port 53 takes root")
        lab.cloud.zones.add(provider, server.hostname.partition(".")[0], "A", host)
    lab.cloud.let_find(nameservers=True)
    journey = Journey(lab)
    journey.configure(f"nameservers = {addresses(*lab.dns.servers)}", "")

    done = journey.renew()

    assert (0, "") == (done.returncode, done.stderr)
    assert journey.live().leaf.sha256 == journey.published()
    assert lab.cloud.alidns.count("DescribeDomainInfo") > 0
    for server in lab.dns.servers:
        assert "_acme-challenge.example.test" in {query.name for query in server.queries}


def test_cnames_switched_off(lab: Lab) -> None:
    """
    With `follow_cname = false` nothing is written into the zone that a CNAME leads to: Alidns lets no TXT
    stand beside it, which is said before the CA is asked. Without the CNAME the certificate is issued.
    """
    lab.cloud.add_zone("acme.test")
    cname = lab.cloud.zones.add(lab.cloud.zone, "_acme-challenge", "CNAME", "example.acme.test")
    journey = Journey(lab)
    journey.configure("[dns]\n", "[dns]\nfollow_cname = false\n")

    refused = journey.renew()
    lab.cloud.zones.delete(cname)
    done = journey.renew()

    assert 13 == refused.returncode, refused.stderr
    assert "DomainRecordConflict" in refused.stderr
    assert set() == {name for name in asked_by_the_ca(lab) if name.endswith("acme.test")}
    assert (0, "") == (done.returncode, done.stderr)
    assert journey.live().leaf.sha256 == journey.published()
    assert [] == lab.cloud.challenge_records()


def test_private_zone(lab: Lab) -> None:
    """
    The host's resolver has a private zone of the same name, with a CNAME of its own at the challenge's
    name: the record goes where the public sees it, and the certificate is issued.
    """
    private = lab.dns.private.create("example.test", ACCOUNT, NAMESERVERS)
    lab.dns.private.add(private, "www", "A", "10.0.0.1")
    lab.dns.private.add(private, "_acme-challenge", "CNAME", "intranet.elsewhere.test")
    journey = Journey(lab)
    inside_a_vpc(journey)

    done = journey.renew()

    assert (0, "") == (done.returncode, done.stderr)
    assert journey.live().leaf.sha256 == journey.published()
    assert [] == lab.cloud.challenge_records()


def test_private_zone_that_hides_a_delegation(lab: Lab) -> None:
    """
    The challenge's public name is a CNAME into a zone that is managed, its own zone isn't, and the host
    sees a private one instead: refused with the reason, before the CA is asked; with a public resolver
    in [dns] it works.
    """
    lab.cloud.zones.add(lab.cloud.zone, "_acme-challenge", "CNAME", "example-test.acme.test")
    lab.cloud.zone.owner = PROVIDER
    lab.cloud.add_zone("acme.test")
    lab.dns.private.create("example.test", ACCOUNT, NAMESERVERS)
    journey = Journey(lab)
    inside_a_vpc(journey)

    misled = journey.renew()
    assert "no managed zone holds _acme-challenge.example.test" in misled.stderr
    assert "a private zone hides that from this host" in " ".join(misled.stderr.split())
    assert set() == asked_by_the_ca(lab)

    journey.configure()
    done = journey.renew()

    assert (0, "") == (done.returncode, done.stderr)
    assert [] == lab.cloud.challenge_records()


def test_a_zone_that_other_nameservers_serve(lab: Lab) -> None:
    """
    Alidns has the zone, and names servers for it that nobody delegates to; those that serve it, a second
    behind, are in [[zone]]: the listing says what the names are, the real servers when they may be seen.
    """
    lab.cloud.zones.create("imported.test", ACCOUNT, ("unused.elsewhere.test",))
    lab.cloud.add_zone("other.test")  # the policy is written anew, for all zones
    lab.dns.servers[1].lag = 1.0
    names = ("imported.test", "*.imported.test")
    journey = Journey(lab, {"imported.test": names})

    done = journey.renew()

    assert (0, "") == (done.returncode, done.stderr)
    assert set(names) == set(journey.live("imported.test").leaf.names)
    assert 0 == lab.cloud.alidns.count("DescribeDomainInfo")
    assert [] == lab.cloud.challenge_records()


@pytest.mark.parametrize("target", ["cdn.elsewhere.test", "www.acme.test"], ids=["foreign", "managed"])
def test_wildcard_cname(lab: Lab, target: str) -> None:
    """
    `*.example.test` is a CNAME to a CDN, so any challenge's name is one, too, until its TXT stands there:
    the wildcard is no delegation, not even where it leads into a managed zone.
    """
    lab.cloud.add_zone("acme.test")
    lab.cloud.zones.add(lab.cloud.zone, "*", "CNAME", target)
    journey = Journey(
        lab, {"example.test": ("example.test", "*.example.test", "www.example.test", "a.b.example.test")}
    )
    seen_before = lab.cloud.zones.lookup("_acme-challenge.www.example.test", "CNAME").records
    assert [target] == [record.value for record in seen_before]

    done = journey.renew()

    assert (0, "") == (done.returncode, done.stderr)
    assert journey.live().leaf.sha256 == journey.published()
    assert {"example.test"} == {
        logged.parameters["DomainName"]
        for logged in lab.cloud.alidns.log
        if logged.action == "AddDomainRecord"
    }
    assert [] == lab.cloud.challenge_records()


def test_wildcard_cname_outside_the_managed_zones(lab: Lab) -> None:
    """
    A zone that isn't managed answers every name with a CNAME: that is no delegation of the challenge, and
    the report says so; a CNAME of the challenge's own beside the wildcard is one.
    """
    lab.cloud.zones.add(lab.cloud.zone, "*", "CNAME", "wild.acme.test")
    lab.cloud.zone.owner = PROVIDER
    acme = lab.cloud.add_zone("acme.test")
    journey = Journey(lab)

    refused = journey.renew()
    assert "the CNAME to wild.acme.test is a wildcard's" in " ".join(refused.stderr.split())
    assert set() == asked_by_the_ca(lab)

    lab.cloud.zones.add(lab.cloud.zone, "_acme-challenge", "CNAME", "example-test.acme.test")
    done = journey.renew()

    assert (0, "") == (done.returncode, done.stderr)
    assert [] == lab.cloud.zones.records(acme)


def test_a_chain_of_cnames_over_zones(lab: Lab) -> None:
    """
    CNAMEs lead from the domain over a zone in other hands into a managed one: the record stands at their
    end. A chain that comes back to where it began is shown whole.
    """
    zones = lab.cloud.zones
    elsewhere = zones.create("elsewhere.test", PROVIDER, NAMESERVERS)
    lab.cloud.add_zone("acme.test")
    zones.add(lab.cloud.zone, "_acme-challenge", "CNAME", "one.elsewhere.test")
    last = zones.add(elsewhere, "one", "CNAME", "two.acme.test")
    journey = Journey(lab)

    done = journey.renew()
    assert (0, "") == (done.returncode, done.stderr)
    assert ["two", "two"] == [
        logged.parameters["RR"] for logged in lab.cloud.alidns.log if logged.action == "AddDomainRecord"
    ]

    zones.update(last, value="_acme-challenge.example.test")
    journey.want_replaced()
    looped = journey.renew()

    assert "_acme-challenge.example.test → one.elsewhere.test → _acme-challenge.example.test" in looped.stderr
    assert 1 == looped.stderr.count("one.elsewhere.test"), "once around is enough"
    assert [] == lab.cloud.challenge_records()


IDN = "xn--fiq228c.test"  # 中文.test


def test_idn(lab: Lab) -> None:
    """
    A Chinese domain with an internationalised name below it, in punycode in the configuration: issued,
    published, installed and mailed; what a person reads has both forms, and no record is left.
    """
    lab.cloud.add_zone(IDN)
    names = (IDN, f"*.{IDN}", f"xn--fiqs8s.{IDN}")
    journey = Journey(lab, {IDN: names})
    # Without [[zone]]: the zone is found in the account, which calls it 中文.test.
    lab.cloud.let_find(zones=True)
    text = journey.renewal.certcast_toml.read_text()
    nameservers = addresses(*lab.dns.servers)
    zones, kept = text.index("\n[[zone]]"), f'\n[[zone]]\nname = "{IDN}"\nnameservers = {nameservers}\n'

    journey.renewal.certcast_toml.write_text(
        text[:zones].replace("[dns]", '[dns]\npropagation = "wait:10ms"')
    )
    listed = journey.renew()
    assert 0 == listed.returncode, listed.stderr
    assert 1 == lab.cloud.alidns.count("DescribeDomains")

    journey.renewal.certcast_toml.write_text(text[:zones] + kept)
    journey.want_replaced(IDN)
    done = journey.renew()

    assert (0, "") == (done.returncode, done.stderr)
    assert f"{IDN} (中文.test): published" in done.stdout
    assert journey.live(IDN).leaf.sha256 == journey.published(IDN)
    assert set(names) == set(journey.live(IDN).leaf.names)
    assert {"中文.test"} == {
        logged.parameters["DomainName"]
        for logged in lab.cloud.alidns.log
        if logged.action in ("AddDomainRecord", "DescribeDomainRecords")
    }
    assert [] == lab.cloud.challenge_records()
    host = journey.first_pull("web1", IDN)
    assert journey.live(IDN).leaf.sha256 == journey.served(host.name, f"www.{IDN}")
    mail = lab.mailbox.wait_for(lambda received: "serves a new certificate" in received.text)
    assert "中文.test" in str(mail.message["Subject"])
    assert f"xn--fiqs8s.{IDN} (中国.中文.test)" in mail.text


def test_idn_in_a_failure(lab: Lab) -> None:
    """A failure about a Chinese domain names it as it is written, too, on the terminal and in the mail."""
    lab.cloud.add_zone(IDN)
    adding = {"Effect": "Deny", "Action": "alidns:AddDomainRecord", "Resource": "*"}
    lab.cloud.renewal.policies = [*lab.cloud.renewal.policies, {"Version": "1", "Statement": [adding]}]
    journey = Journey(lab, {IDN: (IDN,)})

    done = journey.renew()

    mail = lab.mailbox.wait_for(lambda received: "DNS-DENIED" in received.text)
    assert 12 == done.returncode
    for text in (done.stderr, mail.text, str(mail.message["Subject"])):
        assert f"may not do AddDomainRecord in {IDN} (中文.test)" in " ".join(text.split())
    assert f"acs:alidns:*:*:domain/{IDN}" in done.stderr


def test_idn_in_the_progress(lab: Lab) -> None:
    """Whoever watches `certcast renew` at work, at a terminal, reads which name is meant."""
    lab.cloud.add_zone(IDN)
    journey = Journey(lab, {IDN: (IDN,)})
    at_a_terminal = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
    argv = [CERTCAST, "--config", str(journey.renewal.certcast_toml), "renew"]

    done = subprocess.run(
        [sys.executable, "-c", at_a_terminal, *argv],
        env={**os.environ, **lab.environment("renewal")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stdout
    assert f"at _acme-challenge.{IDN} (_acme-challenge.中文.test)" in done.stdout


def wait_for_records(lab: Lab, count: int) -> None:
    """Wait until so many TXT records stand in the account."""
    until = time.monotonic() + 60
    while len(lab.cloud.challenge_records()) < count:
        assert time.monotonic() < until, lab.cloud.challenge_records()
        time.sleep(0.02)


def changes_by(lab: Lab) -> list[tuple[str, str]]:
    """Who added and who removed a record, in order."""
    verbs = {"AddDomainRecord": "adds", "DeleteDomainRecord": "removes"}
    return [(logged.user, verbs[logged.action]) for logged in lab.cloud.alidns.log if logged.action in verbs]


def test_a_concurrent_client_on_the_same_name(lab: Lab, tmp_path: Path) -> None:
    """
    Another program (certbot-dns-aliyun) validates the same name at the same time, beside a TXT of several
    strings that somebody put there: both get their certificate, each removes its own, the third one stays.
    """
    # Not longer: pebble doesn't ask by TCP for what a datagram of 512 octets has no room for.
    several_strings = "one string holds 255 octets ".ljust(260, ".")
    lab.cloud.zones.add(lab.cloud.zone, "_acme-challenge", "TXT", several_strings)
    journey = Journey(lab)
    lab.dns.servers[1].lag = 3600
    with Colleagues(lab) as colleagues, ThreadPoolExecutor(2) as beside:
        renewing = beside.submit(journey.renew)
        wait_for_records(lab, 3)
        validating = beside.submit(colleagues.certbot_dns_aliyun, tmp_path / "theirs")
        wait_for_records(lab, 4)
        lab.dns.servers[1].work_well()
        done, theirs = renewing.result(), validating.result()
        assert [] == colleagues.proxy.refused

    assert (0, "") == (done.returncode, done.stderr)
    assert 0 == theirs.returncode, theirs.stdout + theirs.stderr
    assert [
        *[("renewal", "adds")] * 2,
        ("colleague", "adds"),
        *[("renewal", "removes")] * 2,
        ("colleague", "removes"),
    ] == changes_by(lab)
    assert [f"_acme-challenge.example.test {several_strings}"] == lab.cloud.challenge_records()


def test_a_client_that_removes_every_value_at_the_name(lab: Lab, tmp_path: Path) -> None:
    """
    lego removes whatever TXT stands at the name, ours included, while we wait: the order ends before the
    CA is asked, the report says what happened, and the next run goes through.
    """
    journey = Journey(lab)
    journey.configure("[dns]\n", '[dns]\ndeadline = "9s"\n')
    lab.dns.servers[1].lag = 3600
    with Colleagues(lab) as colleagues, ThreadPoolExecutor(1) as beside:
        renewing = beside.submit(journey.renew)
        wait_for_records(lab, 2)
        colleagues.lego(tmp_path / "lego")
        assert [] == lab.cloud.challenge_records(), "lego took ours along"
        done = renewing.result()

    assert 11 == done.returncode, done.stderr
    assert "is gone from the zone: another program has removed it" in done.stderr
    assert "DNS-PROPAGATION" in done.stderr
    assert None is journey.published()
    assert ("renewal", "removes") not in changes_by(lab)

    lab.dns.servers[1].work_well()
    assert 0 == journey.renew().returncode
    assert journey.live().leaf.sha256 == journey.published()


def test_a_hundred_names(lab: Lab) -> None:
    """
    The most names that Let's Encrypt takes into one certificate, over two zones and at several depths:
    one order, one wait for all of them, and no record is left.
    """
    lab.cloud.add_zone("sub.example.test")
    deep = tuple(f"{'.'.join('abcd'[:depth])}.example.test" for depth in range(1, 5))
    many = tuple(f"*.site{number}.sub.example.test" for number in range(94))
    names = ("example.test", "*.example.test", *deep, *many)
    journey = Journey(lab, {"example.test": names})

    done = journey.renew()

    assert (0, "") == (done.returncode, done.stderr)
    assert (100, set(names)) == (len(names), set(journey.live().leaf.names))
    assert journey.live().leaf.sha256 == journey.published()
    assert (100, 100) == tuple(map(lab.cloud.alidns.count, ("AddDomainRecord", "DeleteDomainRecord")))
    # Each record is looked up by itself only before its removal; the rest is per zone: CNAME, NS, TXT.
    assert 100 + 2 * 3 == lab.cloud.alidns.count("DescribeDomainRecords")
    assert [] == lab.cloud.challenge_records()


def test_idn_with_hooks(lab: Lab) -> None:
    """Debian 12's certbot gives the hooks the punycode name: the value stands where it belongs, and goes."""
    lab.cloud.add_zone(IDN)
    certbot = Certbot(lab, certbot_21(), certificates={IDN: (IDN, f"*.{IDN}")})

    done = certbot.hooks("certonly", "--cert-name", IDN, "-d", IDN, "-d", f"*.{IDN}")

    assert 0 == done.returncode, done.stderr
    assert {IDN, f"*.{IDN}"} == certbot.names(IDN)
    assert [] == lab.cloud.challenge_records()
