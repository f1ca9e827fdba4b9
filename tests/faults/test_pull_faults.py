"""What a consumer refuses, and what it does when nginx or the disk refuses.

In each story a good release A is served; then something is wrong with B. A stays
served, nothing temporary stays, and the report names what is the matter.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from certcast.config.model import Argv, NginxConfig
from certcast.release.manifest import FULLCHAIN, LAST_SEQUENCE, Digest, manifest_key, release_key, write
from certcast.report.errors import (
    Busy,
    CertcastError,
    DigestMismatch,
    GateRefused,
    LocalFault,
    ManifestInvalid,
    ManifestReplayed,
    NginxMissing,
    NginxRefused,
    NotEnrolled,
    NotProved,
    ReloadFailed,
    SealedInvalid,
    SignatureInvalid,
    StoreDenied,
    StoreTooLarge,
)
from certcast.storage.store import Store
from certcast_lab.serving.authority import Authority, Pair
from consuming import (
    DAY,
    NAME,
    NAMES,
    Consumer,
    Flipping,
    Missing,
    Truncating,
    Wrapped,
    consumer,
    on_both_nginx,
    program,
)
from full_disk import DISK
from publishing import Publisher, release

pytestmark = on_both_nginx

IN_WINDOW = DAY + timedelta(days=60)
SOON = DAY + timedelta(minutes=1)


@pytest.fixture
def web(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Consumer]:
    """A host that serves release A."""
    with consumer(tmp_path, program=program(request)) as started:
        started.publish("A")
        started.first_pull()
        yield started


@contextmanager
def refused(web: Consumer, error: type[CertcastError], match: str) -> Iterator[pytest.ExceptionInfo[Any]]:
    """Expect `error`; afterwards A is served by the very same workers, and nothing is left behind."""
    workers = web.workers()
    with pytest.raises(error, match=match) as caught:
        yield caught
    assert web.leaf("A") == web.served()
    assert workers == web.workers()
    assert [] == web.leftovers()
    assert caught.value.kept is not None
    assert "serial" in caught.value.kept
    assert web.host.test()


# -- the bucket


def comes_once_the_store_is_whole(web: Consumer) -> None:
    assert [1] == web.versions()
    assert "installed" == web.pull(SOON).result
    assert web.leaf("B") == web.served()


@pytest.mark.parametrize("wrapper", [Truncating, Flipping, Missing])
def test_damaged_chain_is_refused_and_named(web: Consumer, wrapper: type[Wrapped]) -> None:
    """A fullchain.pem cut short, changed or missing in the store is named; B comes once it is whole."""
    web.publish("B")
    with refused(web, DigestMismatch, f"{FULLCHAIN} of sequence 2"):
        web.pull(IN_WINDOW, store=wrapper(web.store, FULLCHAIN))
    comes_once_the_store_is_whole(web)


@pytest.mark.parametrize("wrapper", [Truncating, Flipping])
def test_damaged_sealed_key_is_refused_and_named(web: Consumer, wrapper: type[Wrapped]) -> None:
    """A sealed key cut short or changed in the store is named; B comes once it is whole."""
    web.publish("B")
    with refused(web, SealedInvalid, f"{re.escape(web.sealed_name())} does not open"):
        web.pull(IN_WINDOW, store=wrapper(web.store, web.sealed_name()))
    comes_once_the_store_is_whole(web)


def test_missing_sealed_key_is_named(web: Consumer) -> None:
    """Where nothing is sealed to this host, the report names the object that it looked for."""
    web.publish("B")
    with refused(web, NotEnrolled, "no private key is sealed to this host") as caught:
        web.pull(IN_WINDOW, store=Missing(web.store, web.sealed_name()))
    assert (caught.value.expected or "").endswith(f"/{web.sealed_name()}")
    comes_once_the_store_is_whole(web)


@pytest.mark.parametrize("wrapper", [Truncating, Flipping])
def test_damaged_manifest_is_refused(web: Consumer, wrapper: type[Wrapped]) -> None:
    """A manifest cut short or changed in the store has lost its signature, and is not acted on."""
    web.publish("B")
    with refused(web, SignatureInvalid, "not signed by a publisher that this host knows"):
        web.pull(IN_WINDOW, store=wrapper(web.store, "manifest"))
    assert "installed" == web.pull(IN_WINDOW).result
    assert web.leaf("B") == web.served()


def test_signed_half_of_a_manifest_is_refused(web: Consumer) -> None:
    """A publisher that signs half a manifest is believed to be ours, and still not acted on."""
    whole = write(release(web.store, NAME, web.issue(days_ago=0), sequence=2, now=DAY))
    web.store.put(manifest_key(NAME), web.publisher.sign(whole[: len(whole) // 2] + b"\n"))
    with refused(web, ManifestInvalid, "cannot be used"):
        web.pull(IN_WINDOW)


def test_endless_manifest_is_not_read_to_its_end(web: Consumer) -> None:
    """A manifest of more than 64 KiB is refused by its size."""
    web.store.put(manifest_key(NAME), b" " * (64 * 1024 + 1))
    with refused(web, StoreTooLarge, "."):
        web.pull(IN_WINDOW)


def test_manifest_of_another_store_is_refused(web: Consumer) -> None:
    """A manifest that was written for another bucket, and copied here, is not believed."""
    manifest = release(web.store, NAME, web.issue(), sequence=2, now=DAY)
    web.publisher.point(web.store, replace(manifest, store="oss://somebody-elses/bucket"))
    with refused(web, ManifestInvalid, "another store"):
        web.pull(IN_WINDOW)


def test_older_sequence_is_refused(web: Consumer) -> None:
    """A bucket that was set back to an earlier release does not bring it back."""
    web.publish("C", sequence=5)
    web.pull(IN_WINDOW)
    web.publish("B", sequence=4)
    with pytest.raises(ManifestReplayed, match="older manifest") as caught:
        web.pull(IN_WINDOW)
    assert caught.value.expected == "sequence 5 or higher"
    assert web.leaf("C") == web.served()


def test_version_directories_remember_the_sequence(web: Consumer) -> None:
    """Moving a damaged state file away, as its report advises, opens no door to older releases."""
    web.folder.state.write_text("{")
    with pytest.raises(LocalFault, match="damaged"):
        web.pull(IN_WINDOW)
    web.folder.state.unlink()
    web.publish("B", sequence=1)
    with pytest.raises(ManifestInvalid, match="two different manifests have sequence 1"):
        web.pull(IN_WINDOW)
    web.publish("A", web.pairs["A"], sequence=1)
    assert "installed" == web.pull(IN_WINDOW).result


def test_state_older_than_the_version_directories(web: Consumer) -> None:
    """
    A state file that was restored from a backup, from before two releases that are held here, lets nobody
    bring the older of them back.
    """
    backup = web.folder.state.read_bytes()
    for letter in ("B", "C"):
        web.publish(letter)
        web.pull(IN_WINDOW)
    web.folder.state.write_bytes(backup)
    web.publish("B", web.pairs["B"], sequence=2)
    with pytest.raises(ManifestReplayed, match="older manifest") as caught:
        web.pull(IN_WINDOW)
    assert "sequence 3 or higher" == caught.value.expected
    assert web.leaf("C") == web.served()


def test_a_stolen_key_that_counted_to_the_end(web: Consumer, tmp_path: Path) -> None:
    """
    A thief of the signing key published under the highest sequence that there is. Once the key is not
    pinned any more, what it signed holds nobody back: the new publisher's releases are taken, in their order,
    also under a sequence that the former one has used.
    """
    web.publish("former", sequence=2)
    assert "installed" == web.pull(IN_WINDOW).result
    web.publish("thief's", web.issue(days_ago=0.5), sequence=LAST_SEQUENCE)
    assert "installed" == web.pull(IN_WINDOW).result
    (tmp_path / "new").mkdir()
    former, web.publisher = web.publisher, Publisher(tmp_path / "new")
    web.publisher.recipients = former.recipients
    web.config = replace(web.config, store=replace(web.config.store, publishers=(web.publisher.public,)))

    for letter, sequence in (("B", 1), ("C", 2)):
        web.publish(letter, web.issue(days_ago=0.5 - sequence / 10), sequence=sequence)
        assert "installed" == web.pull(IN_WINDOW).result
        assert web.leaf(letter) == web.served()
    web.publish("B", web.pairs["B"], sequence=1)
    with pytest.raises(ManifestReplayed, match="older manifest"):
        web.pull(IN_WINDOW)


def test_second_release_of_one_sequence_is_refused(web: Consumer) -> None:
    """Two publishers that use the same sequence are noticed, and the first one's release stays."""
    web.publish("B", sequence=1)
    with refused(web, ManifestInvalid, "two different manifests have sequence 1"):
        web.pull(IN_WINDOW)


def test_manifest_with_an_earlier_expiry_is_a_replay(web: Consumer) -> None:
    """An old copy of the current manifest, which expires earlier, is refused."""
    web.publish("A", web.pairs["A"], sequence=1, expires=DAY + timedelta(days=100))
    with refused(web, ManifestReplayed, "older manifest"):
        web.pull(IN_WINDOW)


# -- the gate


def refuse_release(web: Consumer, pair: Pair, why: str, **changes: Any) -> None:
    web.publish("B", pair, **changes)
    with refused(web, GateRefused, "must not be served") as caught:
        web.pull(IN_WINDOW)
    assert why in caught.value.found


def test_key_of_another_certificate_is_refused(web: Consumer) -> None:
    """A certificate that was published with somebody else's key never reaches nginx."""
    pair = web.issue()._replace(key_pem=web.issue().key_pem)
    refuse_release(web, pair, "privkey.pem is not the key of this certificate")


def test_certificate_for_other_names_is_refused(web: Consumer) -> None:
    """A certificate that lacks a configured name is refused, and the report names it."""
    refuse_release(web, web.issue("example.test", "www.example.test"), "does not hold *.example.test")


def test_expired_certificate_is_refused(web: Consumer) -> None:
    """A certificate whose life is over is refused, though it is the newest."""
    refuse_release(web, web.issue(days_ago=0, life=30), "valid from 2026-11-23")


def test_certificate_of_tomorrow_is_refused(web: Consumer) -> None:
    """A certificate that is not valid yet is refused: browsers would refuse it too."""
    refuse_release(web, web.issue(days_ago=-61), "valid from 2027-01-23")


def test_certificate_of_an_unknown_authority_is_refused(web: Consumer) -> None:
    """A certificate that no trusted root vouches for is refused."""
    pair = Authority("Somebody").issue(*NAMES, not_before=DAY, not_after=DAY + timedelta(days=90))
    refuse_release(web, pair, "no chain to a trusted root")


def test_certificate_without_its_intermediate_is_refused(web: Consumer) -> None:
    """A fullchain.pem with the leaf alone is refused: clients could not build the path either."""
    pair = web.issue(days_ago=0)
    end = b"-----END CERTIFICATE-----\n"
    alone = pair._replace(fullchain_pem=pair.fullchain_pem.split(end)[0] + end)
    refuse_release(web, alone, "no chain to a trusted root")


def test_older_certificate_is_refused(web: Consumer) -> None:
    """Under a higher sequence, too, a certificate issued before the served one needs a `step_back`."""
    refuse_release(web, web.issue(days_ago=3), "the one that is served")


def test_revoked_certificate_is_refused(web: Consumer) -> None:
    """A leaf on the manifest's list of revoked ones is never served."""
    pair = web.issue(days_ago=0)
    leaf = release(web.store, NAME, pair, sequence=2, now=DAY).leaf.sha256
    refuse_release(web, pair, "revoked", revoked=(leaf,))


def test_file_that_is_no_certificate_is_refused(web: Consumer) -> None:
    """Bytes that match their digest and are still no certificate end in a report, not a traceback."""
    pair = web.issue(days_ago=0)
    manifest = release(web.store, NAME, pair, sequence=2, now=DAY, expires=DAY + timedelta(days=365))
    junk = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    manifest = replace(manifest, files={FULLCHAIN: Digest.of(junk)})
    web.store.put(release_key(NAME, manifest.leaf.sha256, FULLCHAIN), junk)
    web.publisher.seal(web.store, manifest, b"no key")
    web.publisher.point(web.store, manifest)
    with refused(web, GateRefused, "must not be served") as caught:
        web.pull(IN_WINDOW)
    assert "cannot be read" in caught.value.found


def test_missing_trust_roots_are_reported(web: Consumer, tmp_path: Path) -> None:
    """A `trust_roots` that leads nowhere is a report that names the path."""
    web.configure(trust_roots=tmp_path / "nowhere.pem")
    web.publish("B")
    with refused(web, LocalFault, "root certificates") as caught:
        web.pull(IN_WINDOW)
    assert "nowhere.pem" in caught.value.found


# -- nginx


def with_commands(
    web: Consumer, *, test: list[str] | None = None, reload: list[str] | None = None
) -> NginxConfig:
    """Replace nginx's commands in the configuration; return what they were."""
    assert web.config.consumer
    before = web.config.consumer.nginx[0]
    changed = replace(
        before, test=Argv(tuple(test or before.test)), reload=Argv(tuple(reload or before.reload))
    )
    web.configure(nginx=(changed,))
    return before


def test_broken_configuration_keeps_what_is_served(web: Consumer) -> None:
    """
    A configuration that somebody broke is not reloaded: the report quotes nginx, the snippet names
    A again, and once it is mended the next run brings B, window or not.
    """
    web.publish("B")
    web.host.break_configuration()
    with pytest.raises(NginxRefused) as caught:
        web.pull(IN_WINDOW)
    assert "certcast_lab_broke_this_on_purpose" in (caught.value.found or "")
    assert "switched back to version 1-" in (caught.value.kept or "")
    assert web.leaf("A") == web.served()
    assert web.folder.is_pointed_at(f"1-{web.leaf('A')[:16]}")

    web.host.mend()
    assert web.host.test()
    assert "installed" == web.pull(SOON).result
    assert web.leaf("B") == web.served()


def test_failing_reload_command_switches_back(web: Consumer) -> None:
    """When the reload command fails, the snippet names A again and the report says which command failed."""
    web.publish("B")
    before = with_commands(web, reload=["sh", "-c", "echo no rights; exit 4"])
    with refused(web, ReloadFailed, "not reloaded") as caught:
        web.pull(IN_WINDOW)
    assert caught.value.found == "`sh -c echo no rights; exit 4`, exit status 4\nno rights"
    assert web.folder.is_pointed_at(f"1-{web.leaf('A')[:16]}")

    web.configure(nginx=(before,))
    assert "installed" == web.pull(SOON).result


def test_second_nginx_not_reloaded_rolls_both_back(web: Consumer) -> None:
    """Of two nginx on a host, both serve A again when the second one cannot be reloaded."""
    assert web.config.consumer
    good = web.config.consumer.nginx[0]
    web.configure(nginx=(good, replace(good, reload=Argv(("false",)))))
    web.publish("B")
    with pytest.raises(ReloadFailed) as caught:
        web.pull(IN_WINDOW)
    assert "reloaded; what worked before works again" in (caught.value.kept or "")
    assert web.leaf("A") == web.served()


def test_reload_that_does_nothing_is_not_believed(web: Consumer) -> None:
    """A reload command that exits 0 without reloading ends in "not proved": the old workers still accept."""
    web.publish("B")
    web.configure(proof_deadline=0.5)
    before = with_commands(web, reload=["true"])
    with pytest.raises(NotProved, match="does not serve the new certificate") as caught:
        web.pull(IN_WINDOW)
    assert "workers from before still accept" in (caught.value.found or "")
    assert DAY == web.state.last_downloaded

    web.configure(nginx=(before,))
    assert "installed" == web.pull(SOON).result
    assert web.leaf("B") == web.served()


def test_missing_nginx_is_reported(web: Consumer) -> None:
    """A host without the nginx program gets a report that names the command."""
    web.publish("B")
    with_commands(web, test=["/nowhere/nginx", "-t"])
    with refused(web, NginxMissing, "/nowhere/nginx"):
        web.pull(IN_WINDOW)


def test_stopped_nginx_finds_the_new_release_when_it_starts(web: Consumer) -> None:
    """While nginx is stopped the run says so; nginx then starts with B, and the next run proves it."""
    web.publish("B")
    web.host.stop()
    with pytest.raises(NginxMissing, match="nginx is not running") as caught:
        web.pull(IN_WINDOW)
    assert "passed the test" in (caught.value.kept or "")
    web.host.start()
    assert web.leaf("B") == web.served()
    assert "installed" == web.pull(SOON).result


def test_store_and_installation_both_fail(web: Consumer) -> None:
    """
    While a release waits for nginx, a refused key or a silent renewal host shows in the same report: who
    mends nginx would not know else that no newer release can come.
    """

    def denied() -> Store:
        raise StoreDenied("the store refused the request")

    web.publish("B", expires=IN_WINDOW + timedelta(days=1))
    web.host.break_configuration()
    with pytest.raises(NginxRefused):
        web.pull(IN_WINDOW)
    with pytest.raises(NginxRefused) as caught:
        web.pull(IN_WINDOW, open_store=denied)
    assert "besides, the store refused the request (STORE-DENIED)" in caught.value.report()
    with pytest.raises(NginxRefused) as caught:
        web.pull(IN_WINDOW + timedelta(days=2))
    assert "the renewal host is silent (MANIFEST-EXPIRED)" in caught.value.report()
    assert web.leaf("A") == web.served()


def test_stale_pid_file_is_not_taken_for_nginx(web: Consumer) -> None:
    """A pid file that a dead nginx left behind, and whose pid another program has now, is not believed."""
    web.publish("B")
    web.host.stop()
    web.host.pid_file.write_text(f"{os.getpid()}\n")
    with pytest.raises(NginxMissing) as caught:
        web.pull(IN_WINDOW)
    assert "is not an nginx master" in (caught.value.found or "")


def test_later_line_that_wins_over_the_include_is_found(web: Consumer) -> None:
    """
    A second ssl_certificate below the include makes nginx serve that one, without any complaint of
    its test: the proof notices, says where, and gives the likely reason.
    """
    old = web.pairs["A"].write(web.host.root / "etc/nginx/old")
    site = web.host.site_conf
    include = f"include {web.folder.snippet};"
    site.write_text(
        site.read_text().replace(
            include, f"{include}\nssl_certificate {old[0]};\nssl_certificate_key {old[1]};"
        )
    )
    web.publish("B")
    with pytest.raises(NotProved) as caught:
        web.pull(IN_WINDOW)
    assert f"127.0.0.1:{web.host.ports[0]} as example.test: still leaf {web.leaf('A')[:16]}" in (
        caught.value.found or ""
    )
    line = 1 + site.read_text().splitlines().index(f"ssl_certificate {old[0]};")
    assert f"{site}:{line} names another ssl_certificate after ours (the last of a key type wins)" in (
        caught.value.next or ""
    )
    assert web.state.unfinished == web.leaf("B")


def forgotten_vhost(web: Consumer) -> Path:
    """Let one vhost name A's files instead of the include, and nginx serve it; return its configuration."""
    fullchain, privkey = web.pairs["A"].write(web.host.root / "etc/nginx/forgotten")
    conf = web.host.site_conf.with_name("vhost.conf")  # behind site.conf, which has the default server
    conf.write_text(
        f"server {{ listen 127.0.0.1:{web.host.ports[0]} ssl; server_name forgotten.example.test;\n"
        f"ssl_certificate {fullchain};\nssl_certificate_key {privkey};\n}}\n"
    )
    web.reload(until=lambda: web.leaf("A") == web.served("forgotten.example.test"))
    return conf


def not_proved(web: Consumer, **options: Any) -> str:
    """Run once, with one vhost still on A; return the alarm's words."""
    with pytest.raises(NotProved, match="does not serve the new certificate everywhere") as caught:
        web.pull(IN_WINDOW, **options)
    assert (web.leaf("B"), web.leaf("A")) == (web.served(), web.served("forgotten.example.test"))
    return caught.value.report()


@pytest.mark.parametrize("mended", ["the include", "no such vhost", "its files, and a reload"])
def test_forgotten_vhost_is_told_of_and_reloads_nginx_only_once(web: Consumer, mended: str) -> None:
    """
    As long as one vhost still shows the old certificate, each run says so in the same words and leaves
    nginx alone. `--now` reloads, and so does a run that finds another configuration, which nginx may not have
    loaded; what its operator has reloaded with the same one is only looked at.
    """
    conf = forgotten_vhost(web)
    web.publish("B")
    before = web.workers()
    told = not_proved(web)
    reloaded = web.workers()
    assert not before & reloaded
    assert [told, told] == [not_proved(web), not_proved(web)]
    assert reloaded == web.workers()
    assert told == not_proved(web, force=True)
    assert not reloaded & web.workers()

    include = f"include {web.folder.snippet};\n"
    if mended == "the include":
        conf.write_text(re.sub("ssl_certificate .*\n.*\n", include, conf.read_text()))
    elif mended == "no such vhost":
        conf.unlink()
    else:
        web.pairs["B"].write(web.host.root / "etc/nginx/forgotten")
        web.reload(until=lambda: web.leaf("B") == web.served("forgotten.example.test"))
    before = web.workers()
    assert "installed" == web.pull(IN_WINDOW).result
    assert (mended == "its files, and a reload") != before.isdisjoint(web.workers())
    assert web.leaf("B") == web.served("forgotten.example.test")


@pytest.mark.parametrize("file", ["nginx.conf", "combined.pem", "fullchain.pem"])
def test_unproved_release_with_changed_files(web: Consumer, file: str) -> None:
    """
    An unproved release whose snippet, derived file or copy somebody changed is put right and reloaded, for
    nginx may have read what was there meanwhile.
    """
    copy = web.host.root / "fullchain.pem"
    web.copy_to(fullchain=copy)
    web.configure(derive=("combined.pem",))
    forgotten_vhost(web)
    web.publish("B")
    not_proved(web)
    reloaded = web.workers()
    version = web.folder.versions / f"2-{web.leaf('B')[:16]}"
    path = {"nginx.conf": web.folder.snippet, "combined.pem": version / file, "fullchain.pem": copy}[file]
    was = path.read_bytes()
    path.write_bytes(was + b"# somebody\n")
    not_proved(web)
    assert was == path.read_bytes()
    assert not reloaded & web.workers()


def test_include_that_was_taken_out_is_noticed(web: Consumer) -> None:
    """When a site no longer includes the snippet, the next release is not called installed."""
    web.host.name_files(*web.pairs["A"].write(web.host.root / "etc/nginx/old"))
    web.publish("B")
    with pytest.raises(NotProved) as caught:
        web.pull(IN_WINDOW)
    assert f"add `include {web.folder.snippet};`" in (caught.value.next or "")


def allow_rsa_only(web: Consumer) -> str:
    """Let the site take clients with RSA keys only, and certcast any key; return the site as it was."""
    web.configure(allow_key_type_change=True)
    rsa_only = "ssl_protocols TLSv1.2; ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256;"
    site = web.host.site_conf.read_text()
    web.host.site_conf.write_text(site.replace("server_name", f"{rsa_only}\nserver_name"))
    web.reload(until=lambda: True)
    return site


def test_release_that_breaks_handshakes(tmp_path: Path, nginx_program: str) -> None:
    """
    An ECDSA certificate where the site allows only RSA ciphers passes nginx's test and then serves
    nobody: it is taken back at once, later runs leave nginx alone, and `--now` tries again.
    """
    with consumer(tmp_path, program=nginx_program) as web:
        web.publish("A", web.issue(key_type="rsa"))
        web.first_pull()
        site = allow_rsa_only(web)
        web.publish("B")

        with pytest.raises(NotProved, match="handshakes failed that had worked") as caught:
            web.pull(IN_WINDOW)
        assert "what worked before works again" in (caught.value.kept or "")
        assert web.leaf("A") == web.served()

        with refused(web, NotProved, "broke handshakes here"):
            web.pull(IN_WINDOW)

        web.host.site_conf.write_text(site)
        assert "installed" == web.pull(IN_WINDOW, force=True).result
        assert web.leaf("B") == web.served()


def break_handshakes(web: Consumer, letter: str, **changes: Any) -> str:
    """Publish an ECDSA release for a site that allows only RSA, run once, and return what was kept."""
    now = changes.pop("at", IN_WINDOW)
    web.publish(letter, **changes)
    with pytest.raises(NotProved, match="handshakes failed that had worked") as caught:
        web.pull(now)
    assert "what worked before works again" in (caught.value.kept or "")
    return caught.value.kept or ""


def test_way_back_leads_to_what_was_served_though_not_proved(tmp_path: Path, nginx_program: str) -> None:
    """
    B works, and one forgotten vhost keeps it from being proved; then C breaks handshakes. What comes back is
    B, not the older A that was proved: its clients have seen B for days.
    """
    with consumer(tmp_path, program=nginx_program) as web:
        web.publish("A", web.issue(key_type="rsa"))
        web.first_pull()
        allow_rsa_only(web)
        forgotten_vhost(web)
        web.publish("B", web.issue(key_type="rsa", days_ago=0.5))
        not_proved(web)
        kept = break_handshakes(web, "C", pair=web.issue(days_ago=0.4))
        assert f"switched back to version 2-{web.leaf('B')[:16]}, reloaded" in kept
        assert web.leaf("B") == web.served()


@pytest.mark.parametrize("flaw", ["revoked", "expired"])
@pytest.mark.parametrize("other", [True, False])
def test_way_back_leads_to_nothing_revoked_or_expired(
    tmp_path: Path, nginx_program: str, flaw: str, other: bool
) -> None:
    """
    A release breaks handshakes, and the one before it is revoked or has expired: an earlier one that is
    neither is served again. Where there is none, the bad one is, for an outage is worse; and it is said.
    """
    with consumer(tmp_path, program=nginx_program) as web:
        if other:
            web.publish("A", web.issue(key_type="rsa", days_ago=2))
            web.first_pull()
        web.publish("B", web.issue(key_type="rsa", life=30), sequence=2)
        web.pull(force=True) if other else web.first_pull()
        allow_rsa_only(web)
        is_revoked = flaw == "revoked"
        kept = break_handshakes(
            web,
            "C",
            pair=web.issue(days_ago=0.5),
            revoked=(web.leaf("B"),) if is_revoked else (),
            at=DAY + timedelta(days=25 if is_revoked else 35),
        )
        back = "A" if other else "B"
        assert web.leaf(back) == web.served()
        said = "which is REVOKED: mend" if is_revoked else "which EXPIRED 2026-12-22T"
        version = f"{1 if other else 2}-{web.leaf(back)[:16]}"
        assert f"switched back to version {version}, {'reloaded' if other else said}" in kept


def test_way_back_leads_to_nothing_that_broke_before(tmp_path: Path, nginx_program: str) -> None:
    """
    Two releases in a row break handshakes while the one that is served is revoked: neither of them is a way
    back, however new. What served people before does so again, and that it is revoked is said.
    """
    with consumer(tmp_path, program=nginx_program) as web:
        web.publish("A", web.issue(key_type="rsa", days_ago=2))
        web.first_pull()
        allow_rsa_only(web)
        revoked = (web.leaf("A"),)
        for letter, days_ago in (("B", 0.6), ("C", 0.5)):
            kept = break_handshakes(web, letter, pair=web.issue(days_ago=days_ago), revoked=revoked)
            assert f"switched back to version 1-{web.leaf('A')[:16]}, which is REVOKED" in kept
            assert web.leaf("A") == web.served()
        with pytest.raises(NotProved, match="handshakes failed that had worked"):
            web.pull(SOON, force=True)
        assert web.leaf("A") == web.served()


def test_way_back_of_copies_is_that_of_the_snippet(tmp_path: Path, nginx_program: str) -> None:
    """
    Where fixed paths are written, too, both go back to what was served, revoked or not: sites of one host
    do not come to show two certificates. It is said.
    """
    with consumer(tmp_path, program=nginx_program) as web:
        web.publish("A", web.issue(key_type="rsa", days_ago=2))
        web.first_pull()
        copy = web.host.root / "fullchain.pem"
        web.copy_to(fullchain=copy)
        pair = web.publish("B", web.issue(key_type="rsa"))
        web.pull(force=True)
        allow_rsa_only(web)
        kept = break_handshakes(web, "C", pair=web.issue(days_ago=0.5), revoked=(web.leaf("B"),))
        assert "which is REVOKED" in kept
        assert (web.leaf("B"), pair.fullchain_pem) == (web.served(), copy.read_bytes())


def test_no_handshake_fails_while_releases_roll_over(web: Consumer) -> None:
    """Clients that connect without a pause meet no failed handshake while three releases are installed."""
    stop = threading.Event()
    seen: list[str] = []
    failures: list[Exception] = []

    def connect_without_pause() -> None:
        while not stop.is_set():
            try:
                seen.append(web.served())
            except OSError as error:
                failures.append(error)

    client = threading.Thread(target=connect_without_pause)
    client.start()
    try:
        for letter in "BCD":
            web.publish(letter)
            web.pull(force=True)
    finally:
        stop.set()
        client.join()
    assert [] == failures
    assert {web.leaf(letter) for letter in "ABCD"} >= set(seen) > {web.leaf("A")}


def test_foreign_reload_never_meets_a_torn_pair(web: Consumer) -> None:
    """Whenever somebody else tests or starts nginx while releases are installed, it accepts what it reads."""
    stop = threading.Event()
    results: list[bool] = []

    def test_without_pause() -> None:
        while not stop.is_set():
            results.append(web.host.test())

    somebody = threading.Thread(target=test_without_pause)
    somebody.start()
    try:
        for letter in "BCDEF":
            web.publish(letter)
            web.pull(force=True)
    finally:
        stop.set()
        somebody.join()
    assert len(results) > 10
    assert all(results)


def test_nginx_commands_see_no_cloud_keys(
    web: Consumer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The bucket's AccessKey does not reach the commands that test and reload nginx."""
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "canary-4711")
    seen = tmp_path / "environment"
    before = with_commands(web, test=["sh", "-c", f"env > {seen}"])
    web.publish("B")
    web.pull(IN_WINDOW)
    assert before
    assert "PATH=" in seen.read_text()
    assert "canary-4711" not in seen.read_text()


# -- this host


def test_two_runs_at_once(web: Consumer) -> None:
    """A second run of the same certificate ends at once and says that another one is at work."""
    web.publish("B")
    met: list[CertcastError] = []

    def second_run(step: str) -> None:
        if step == "fetched":
            with pytest.raises(Busy) as caught:
                web.pull(IN_WINDOW)
            met.append(caught.value)

    assert "installed" == web.pull(IN_WINDOW, after=second_run).result
    assert 1 == len(met)


def pull_with_full_disk(web: Consumer, call: int) -> LocalFault | None:
    """Return how the run ended whose n-th write failed; None if it does not write so often."""
    with DISK.at(call, web.config.state_dir):
        try:
            web.pull(force=True)
        except LocalFault as fault:
            return fault
    assert DISK.left > 0, "a write failed, and the run called itself a success"
    return None


def test_disk_full_at_any_write(web: Consumer) -> None:
    """
    Whichever write meets a full disk, the run ends with a report that says so, nginx serves a good
    pair and could start; with room again the next run brings the release into service.
    """
    for call in range(1, 100):
        web.publish("B")
        fault = pull_with_full_disk(web, call)
        if fault is None:
            break
        assert "No space left on device" in (fault.found or "")
        assert "df -h" in (fault.next or "")
        assert web.host.test()
        assert web.served() in {web.leaf("A"), web.leaf("B")}
        web.pull(force=True)
        assert web.leaf("B") == web.served()
        assert [] == web.leftovers()
        web.pairs["A"] = web.pairs["B"]
    assert call > 10, "the run writes more often than that"


def test_file_size_limit_of_the_kernel(web: Consumer) -> None:
    """When the kernel itself refuses to write (here: `ulimit -f`), the command line user gets a report."""
    web.publish("B")
    script = (
        "import sys; from certcast.cli import main;"
        f"sys.argv = ['certcast', '--config', {str(web.host.certcast_toml)!r}, 'pull', '--now'];"
        "sys.exit(main())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert 4 == ended.returncode, ended.stderr
    assert "File too large" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert web.leaf("A") == web.served()
    assert web.host.test()
