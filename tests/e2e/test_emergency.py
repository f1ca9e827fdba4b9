"""Stories of emergencies: a key got out, a release must be taken back, and what interrupts it.

pebble, DNS and nginx are real, and certbot where it renews; `certcast` runs as the installed command.
Whether the CA has revoked is asked of pebble itself.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from certcast.acme.ca import folder_of
from certcast.release.lifetime import from_utc_text, utc_text
from certcast.report.errors import GateRefused, Overdue
from certcast_lab.lab import CERTCAST, Lab
from certcast_lab.oss.oss_bucket import Stored
from consuming import DAY, consumer, sha256
from journey import Done, Journey

HOSTS = ("web1", "web2", "web3")
POLL = 5
COMPROMISED = ("--replace", "example.test", "--reason", "keyCompromise")
CERTONLY = (
    *("certonly", "--agree-tos", "--register-unsafely-without-email"),
    *("--cert-name", "example.test", "-d", "example.test", "-d", "*.example.test"),
)


@pytest.fixture
def journey(lab: Lab) -> Journey:
    return Journey(lab)


def manifest(journey: Journey) -> dict[str, Any]:
    """Return what is published, as the bucket has it."""
    stored = journey.lab.cloud.bucket.get("certcast/certs/example.test/manifest")
    assert stored is not None
    document: dict[str, Any] = json.loads(stored.body.partition(b"-----BEGIN SSH SIGNATURE-----")[0])
    return document


def revoked(journey: Journey, serial: str) -> bool:
    """Ask the CA."""
    status = journey.lab.pebble.certificate_status(int(serial, 16))
    assert status is not None
    return status.revoked


def publish(journey: Journey, *arguments: str) -> Done:
    """Run `certcast publish` on the renewal host."""
    return journey.lab.certcast(journey.renewal.certcast_toml, "publish", *arguments, user="renewal")


def asked(journey: Journey) -> Any:
    """Return what the renewal host still has to do about example.test."""
    path = journey.renewal.certcast_folder / "revocations.json"
    return json.loads(path.read_text()).get("example.test") if path.exists() else None


def age(journey: Journey, **by: float) -> None:
    """Let the new certificate have been published for some time already."""
    path = journey.renewal.certcast_folder / "revocations.json"
    book = json.loads(path.read_text())
    moment = from_utc_text(book["example.test"]["published_at"]) - timedelta(**by)
    book["example.test"]["published_at"] = utc_text(moment)
    path.write_text(json.dumps(book))


@contextmanager
def started(journey: Journey, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start `certcast renew` on the renewal host; end it whatever happens."""
    with subprocess.Popen(
        [CERTCAST, "--config", str(journey.renewal.certcast_toml), "renew", *arguments],
        env={**os.environ, **journey.lab.environment("renewal")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


@contextmanager
def watching(journey: Journey, *hosts: str) -> Iterator[None]:
    """Let hosts run `certcast pull --watch`, each POLL seconds; end them whatever happens."""
    with ExitStack() as stack:
        for name in hosts:
            child = subprocess.Popen(
                [
                    *(CERTCAST, "--config", str(journey.lab.host(name).certcast_toml)),
                    *("pull", "--watch", f"{POLL}s"),
                ],
                env={**os.environ, **journey.lab.environment("consumer")},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(ended, child)
        yield


def ended(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(timeout=60)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def serving(journey: Journey, name: str) -> float:
    """Let a host serve what is published, and ask at each poll; return how long an installation takes."""
    host = journey.first_pull(name)
    # Without it the release is installed anew, all but the download of two small files.
    (host.certcast_folder / "certs/example.test/state.json").unlink()
    begun = time.monotonic()
    assert 0 == journey.pull(name).returncode
    took = time.monotonic() - begun
    text = host.certcast_toml.read_text()
    host.certcast_toml.write_text(text.replace("[consumer]\n", '[consumer]\nidle_check = "0.5s"\n'))
    return took


def off_after(journey: Journey, leaf: str) -> dict[str, float]:
    """Wait until no host shows a leaf any more; return after how many seconds that was so, for each."""
    begun, gone = time.monotonic(), dict[str, float]()

    def look() -> bool:
        for name in HOSTS:
            if journey.served(name) != leaf:
                gone.setdefault(name, time.monotonic() - begun)
            else:  # old and new workers of nginx answer side by side for a moment
                gone.pop(name, None)
        return len(gone) == len(HOSTS)

    wait_until(look)
    return gone


def wait_until(true: Callable[[], bool], *, seconds: float = 60.0) -> float:
    """Wait; return how many seconds it took."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() < begun + seconds, "it never came to that"
        time.sleep(0.02)
    return time.monotonic() - begun


def test_key_compromise(journey: Journey) -> None:
    """
    A key got out: one command gets a certificate with a new key. From the moment that it is published, no
    host shows the old one for longer than one poll interval and an installation, long before the renewal
    window. A day later the CA has revoked the old one, and not the new one.
    """
    journey.renew()
    old = journey.live().leaf
    # All hosts share this machine: installing at the same time takes them as long as one after the other.
    installations = sum(serving(journey, name) for name in HOSTS)
    with watching(journey, *HOSTS), started(journey, *COMPROMISED) as replacing:
        wait_until(lambda: manifest(journey)["revoked"] == [old.sha256])
        seconds = off_after(journey, old.sha256)
        printed, _ = replacing.communicate(timeout=60)
    assert {name: took for name, took in seconds.items() if took > POLL + installations} == {}
    new = journey.live().leaf
    assert {new.sha256} == {journey.served(name) for name in HOSTS}

    assert (0, new.sha256) == (replacing.returncode, journey.published())
    assert old.public_key_sha256 != new.public_key_sha256
    assert old.serial in printed
    assert not revoked(journey, old.serial)
    silent = journey.renew()
    assert (0, "", "") == (silent.returncode, silent.stdout, silent.stderr)
    assert not revoked(journey, old.serial)

    age(journey, hours=24)
    later = journey.renew()
    assert 0 == later.returncode, later.stderr
    assert f"serial {old.serial} is revoked at the CA (keyCompromise)" in later.stdout
    assert (True, False) == (revoked(journey, old.serial), revoked(journey, new.serial))
    assert asked(journey) is None
    silent = journey.renew()
    assert (0, "", "") == (silent.returncode, silent.stdout, silent.stderr)


def test_key_compromise_where_the_key_is_reused(journey: Journey) -> None:
    """
    With `reuse_key` each renewal keeps the key; a replacement makes another one all the same, and the
    renewal after it keeps that. Both certificates of the compromised key are revoked, at once if asked.
    """
    journey.configure("[[certificate]]", "[[certificate]]\nreuse_key = true")
    journey.renew()
    first = journey.live().leaf
    journey.want_replaced()
    journey.renew()
    second = journey.live().leaf
    done = journey.renew(*COMPROMISED, "--revoke-after", "0s")
    new = journey.live().leaf

    assert 0 == done.returncode, done.stderr
    assert first.public_key_sha256 == second.public_key_sha256 != new.public_key_sha256
    assert {first.sha256, second.sha256} == set(manifest(journey)["revoked"])
    assert [True, True, False] == [revoked(journey, leaf.serial) for leaf in (first, second, new)]


def test_fifth_order_of_the_week(journey: Journey) -> None:
    """
    After two orders today and four this week a renewal would wait; an emergency does not. A sixth order,
    which the CA would refuse and count, is not placed.
    """
    journey.renew()
    book = order_book(journey)
    ((names, placed),) = json.loads(book.read_text())["orders"].items()
    book.write_text(json.dumps({"orders": {names: placed * 4}, "not_before": {}}))
    before = journey.live().leaf
    journey.want_replaced()
    assert 15 == journey.renew().returncode
    done = journey.renew(*COMPROMISED, "--revoke-after", "0s")
    assert 0 == done.returncode, done.stderr
    new = journey.live().leaf
    assert before != new

    refused = journey.renew(*COMPROMISED)
    assert 15 == refused.returncode
    assert "nothing was revoked" in refused.stderr
    assert (new, new.sha256) == (journey.live().leaf, journey.published())


def test_the_order_fails(journey: Journey) -> None:
    """
    The order fails: nothing is revoked, the old certificate stays, and the error says what goes on. The
    next run of the timer gets the new one without being told again.
    """
    journey.renew()
    old = journey.live().leaf
    journey.lab.cloud.alidns.faults.turn_on("server_error", action="AddDomainRecord")
    failed = journey.renew(*COMPROMISED)
    assert ["error: "] == [line[:7] for line in failed.stderr.splitlines() if line.startswith("error")]
    assert "DNS-API" in failed.stderr
    assert "nothing was revoked" in failed.stderr
    assert "`certcast renew --replace example.test --reason keyCompromise` does so at once" in failed.stderr
    assert ([], old.sha256) == (manifest(journey)["revoked"], journey.published())

    journey.lab.cloud.alidns.faults.turn_off()
    done = journey.renew()
    assert 0 == done.returncode, done.stderr
    assert old.public_key_sha256 != journey.live().leaf.public_key_sha256
    assert ([old.sha256], journey.live().leaf.sha256) == (
        manifest(journey)["revoked"],
        journey.published(),
    )


def test_publish_fails(journey: Journey) -> None:
    """
    The order succeeds, and the bucket cannot be written: the next `renew`, and a second `--replace` just
    as well, publish that certificate with the old one as revoked, without another order.
    """
    journey.renew()
    old = journey.live().leaf
    journey.lab.cloud.oss.faults.turn_on("server_error", action="PutObject")
    assert 20 == journey.renew(*COMPROMISED).returncode
    orders, new = journey.lab.renewal_info.orders, journey.live().leaf
    assert old != new
    assert 20 == journey.renew(*COMPROMISED, "--revoke-after", "0s").returncode
    assert not revoked(journey, old.serial)
    journey.lab.cloud.oss.faults.turn_off()
    done = journey.renew()

    assert 0 == done.returncode, done.stderr
    assert orders == journey.lab.renewal_info.orders == 2
    assert ([old.sha256], new.sha256) == (manifest(journey)["revoked"], journey.published())
    assert revoked(journey, old.serial)


def test_asked_twice(journey: Journey) -> None:
    """
    A second `--replace` before the CA has revoked orders nothing, and says so: nobody believes that there is
    one more new key. The time that was given stays. With `--revoke-after 0s` it finishes, and then another
    one makes a new key.
    """
    journey.renew()
    old = journey.live().leaf
    first = journey.renew(*COMPROMISED, "--revoke-after", "7d")
    orders, new = journey.lab.renewal_info.orders, journey.live().leaf
    again = journey.renew(*COMPROMISED)
    assert 0 == again.returncode
    due = re.compile(r"the first `certcast renew` after (\S+) revokes it")
    assert due.findall(first.stdout) == due.findall(again.stdout) != []
    assert re.search(r"example\.test: was replaced at \S+, not again now\n", again.stdout)
    assert "The same with `--revoke-after 0s` ends this replacement; then ask again" in again.stderr
    done = journey.renew(*COMPROMISED, "--revoke-after", "0s")

    assert 0 == done.returncode, done.stderr
    assert orders == journey.lab.renewal_info.orders
    assert new == journey.live().leaf
    assert (True, False) == (revoked(journey, old.serial), revoked(journey, new.serial))
    assert 0 == journey.renew(*COMPROMISED).returncode
    assert new.public_key_sha256 != journey.live().leaf.public_key_sha256


@pytest.mark.parametrize(
    ("at", "by"),
    [
        *((at, "kill -9") for at in ("asked", "ordering", "issued", "uploading", "published")),
        *((at, "SIGTERM") for at in ("ordering", "uploading")),
    ],
)
def test_interrupted(journey: Journey, at: str, by: str) -> None:
    """
    `renew --replace` is stopped before the order, in the middle of it, when the certificate is stored,
    while it is published, or right after: the next `renew` of the timer ends with one new certificate
    published, the old one as revoked, no TXT record, and no order more.
    """
    journey.renew()
    old, lab = journey.live().leaf, journey.lab
    reached = killing_point(journey, at)
    with started(journey, *COMPROMISED) as replacing:
        wait_until(lambda: reached() or replacing.poll() is not None)
        (replacing.kill if by == "kill -9" else replacing.terminate)()
        replacing.wait(timeout=60)
    lab.cloud.oss.faults.turn_off()
    lab.dns.servers[1].lag = 0
    done = journey.renew()

    assert 0 == done.returncode, done.stderr
    assert [] == lab.cloud.challenge_records()
    assert 2 == lab.renewal_info.orders == lab.renewal_info.issued
    new = journey.live().leaf
    assert old.public_key_sha256 != new.public_key_sha256
    assert ([old.sha256], new.sha256) == (manifest(journey)["revoked"], journey.published())
    assert asked(journey)["published_at"] is not None
    orders = lab.renewal_info.orders
    assert 0 == journey.renew().returncode
    assert (orders, new) == (lab.renewal_info.orders, journey.live().leaf)


def test_the_ca_is_down_when_it_is_to_revoke(journey: Journey) -> None:
    """
    The CA cannot be reached when the old certificate is to be revoked: the error says so, what is published
    stays, hosts have given it up long ago, and the next run asks again.
    """
    journey.renew()
    old = journey.live().leaf
    assert 0 == journey.renew(*COMPROMISED).returncode
    age(journey, hours=24)
    journey.lab.acme_faults.turn_on("lost_reply")
    failed = journey.renew()
    assert 45 == failed.returncode, failed.stderr
    assert f"the CA has not revoked serial {old.serial}" in failed.stderr
    assert (False, journey.live().leaf.sha256) == (revoked(journey, old.serial), journey.published())

    journey.lab.acme_faults.turn_off()
    assert 0 == journey.renew().returncode
    assert revoked(journey, old.serial)


def test_another_certbot(lab: Lab) -> None:
    """
    A lineage that another certbot renews through hooks is left to it: the error has the command with which
    it makes a new key. Its deploy hook then publishes, with the old one as revoked, and the CA follows.
    """
    journey = Journey(lab, by_certbot=("example.test",))
    assert 0 == journey.certbot_with_hooks(*CERTONLY).returncode
    old, orders = journey.live().leaf, journey.lab.renewal_info.orders
    told = journey.renew(*COMPROMISED, "--revoke-after", "0s")
    assert 41 == told.returncode
    command = "renew --cert-name example.test --force-renewal --new-key"
    assert f"`certbot {command}` with that certbot" in told.stderr
    assert (orders, old.sha256) == (journey.lab.renewal_info.orders, journey.published())

    assert 0 == journey.certbot_with_hooks(*command.split(), "--no-random-sleep-on-renew").returncode
    new = journey.live().leaf
    assert old.public_key_sha256 != new.public_key_sha256
    assert (new.sha256, [old.sha256]) == (journey.published(), manifest(journey)["revoked"])
    assert 0 == journey.renew().returncode
    assert (True, False) == (revoked(journey, old.serial), revoked(journey, new.serial))


def test_wrong_use(journey: Journey) -> None:
    """
    What cannot be meant is refused before anything is written down or ordered: no reason, one that no CA
    takes, a certificate that is not configured or was never issued, options without --replace.
    """
    never = journey.renew(*COMPROMISED)
    assert (16, True) == (never.returncode, "no certificate to replace" in never.stderr)
    journey.renew()
    orders = journey.lab.renewal_info.orders
    name = ("--replace", "example.test")
    wrong = {
        (*name,): 2,
        (*name, "--reason", "stolen"): 2,
        (*name, "--reason", "superseded", "--revoke-after", "soon"): 2,
        (*name, "--reason", "superseded", "another.test"): 2,
        ("--reason", "superseded"): 2,
        ("--revoke-after", "1h"): 2,
        ("--replace", "another.test", "--reason", "superseded"): 3,
    }
    assert wrong == {arguments: journey.renew(*arguments).returncode for arguments in wrong}
    assert (None, orders) == (asked(journey), journey.lab.renewal_info.orders)


def test_the_published_one_is_not_on_this_host(journey: Journey) -> None:
    """
    This host was restored from a backup, and what hosts serve is not on it any more: a replacement takes
    that off every host, too, and the CA revokes it by the certificate that the store has.
    """
    journey.renew()
    first = journey.live().leaf
    backup = journey.renewal.root / "backup"
    shutil.copytree(journey.issued().place, backup)
    journey.want_replaced()
    journey.renew()
    lost = journey.live().leaf
    shutil.rmtree(journey.issued().place)
    shutil.copytree(backup, journey.issued().place)
    done = journey.renew("--replace", "example.test", "--reason", "superseded", "--revoke-after", "0s")

    assert 0 == done.returncode, done.stderr
    new = journey.live().leaf
    assert new.sha256 == journey.published()
    assert {first.sha256, lost.sha256} == set(manifest(journey)["revoked"])
    assert [True, True, False] == [revoked(journey, leaf.serial) for leaf in (first, lost, new)]


def killing_point(journey: Journey, at: str) -> Callable[[], bool]:
    """Return what is true once a run has come so far; slow down what would be over too soon."""
    lab = journey.lab
    if at == "asked":
        return lambda: asked(journey) is not None
    if at == "ordering":
        lab.dns.servers[1].lag = 60
        return lambda: len(lab.cloud.challenge_records()) == 2
    if at == "issued":
        before = journey.live().version
        return lambda: journey.live().version > before
    if at == "uploading":
        lab.cloud.oss.faults.turn_on("delay", target="*/fullchain.pem", seconds=5)
        before = journey.live().version
        return lambda: journey.live().version > before
    return lambda: bool(manifest(journey)["revoked"])


def test_held_off(journey: Journey) -> None:
    """
    The new release is not what it should be: `publish --release` brings the earlier one back on every host
    at its next look. `renew` leaves it so, silently, orders nothing, and a newer one ends the step back.
    """
    journey.renew()
    first = journey.live().leaf
    journey.first_pull("web1")
    journey.want_replaced()
    journey.renew()
    second = journey.live().leaf
    journey.pull("web1", "--now")
    assert second.sha256 == journey.served("web1")
    orders = journey.lab.renewal_info.orders

    done = publish(journey, "--release", f"1-{first.sha256[:16]}")
    assert 0 == done.returncode, done.stderr
    assert f"stepped back serial {first.serial}" in done.stdout
    assert 0 == journey.pull("web1", "--now").returncode
    assert first.sha256 == journey.served("web1")
    for _ in range(2):
        again = journey.renew()
        assert (0, "", "") == (again.returncode, again.stdout, again.stderr)
    held = manifest(journey)
    assert (first.sha256, True, [second.sha256]) == (
        held["leaf"]["sha256"],
        held["step_back"],
        held["held_off"],
    )
    assert orders == journey.lab.renewal_info.orders

    forget_orders(journey)
    journey.want_replaced()
    assert 0 == journey.renew("--now").returncode
    third = journey.live().leaf
    ended_by = manifest(journey)
    assert (third.sha256, False, [second.sha256]) == (
        ended_by["leaf"]["sha256"],
        ended_by["step_back"],
        ended_by["held_off"],
    )
    assert 0 == journey.pull("web1", "--now").returncode
    assert third.sha256 == journey.served("web1")


def test_a_step_back_does_not_outlive_its_certificate(journey: Journey) -> None:
    """
    Nobody ends a step back, and a sixth of the older certificate's life is left: `renew` orders another one,
    though the newest one is still good for weeks, and publishes it.
    """
    journey.renew()
    first = journey.live().leaf
    journey.want_replaced()
    journey.renew()
    assert 0 == publish(journey, "--release", first.sha256).returncode
    forget_orders(journey)
    record = journey.renewal.certcast_folder / "publisher/example.test.json"
    remembered = json.loads(record.read_text())
    issued = first.not_before - timedelta(days=76)
    for moment, earlier in ((first.not_before, issued), (first.not_after, issued + timedelta(days=90))):
        remembered["manifest"] = remembered["manifest"].replace(utc_text(moment), utc_text(earlier))
    record.write_text(json.dumps(remembered))
    orders = journey.lab.renewal_info.orders
    done = journey.renew("--now")

    assert 0 == done.returncode, done.stderr
    assert orders + 1 == journey.lab.renewal_info.orders
    assert (journey.live().leaf.sha256, False) == (journey.published(), manifest(journey)["step_back"])


def forget_orders(journey: Journey) -> None:
    """Let the orders of today have been placed long ago."""
    order_book(journey).unlink()


def order_book(journey: Journey) -> Path:
    """Return where the renewal host counts its orders at the lab's CA."""
    return folder_of(journey.renewal.certcast_folder, journey.lab.directory_url) / "limits.json"


def test_step_back_to_what_nobody_may_serve(journey: Journey) -> None:
    """
    Stepping back leads to no release that is unknown, revoked, or current already; each error lists what
    there is, or says what to run, and nothing changes.
    """
    journey.renew()
    old = journey.live().leaf
    journey.renew(*COMPROMISED)
    new, before = journey.live().leaf, manifest(journey)

    unknown = publish(journey, "--release", "0123456789abcdef")
    assert (16, True) == (unknown.returncode, new.sha256[:16] in unknown.stderr)
    taken = publish(journey, "--release", old.sha256)
    assert (16, True) == (taken.returncode, "revoked" in taken.stderr)
    current = publish(journey, "--release", new.sha256[:20])
    assert (16, True) == (current.returncode, "nothing to step back from" in current.stderr)
    assert [2, 2, 2] == [
        publish(journey, *arguments).returncode
        for arguments in ((), ("--release", "0123"), ("--release", "../../../../etc/passwd"))
    ]
    assert before == manifest(journey)


def test_at_least(journey: Journey) -> None:
    """
    The renewal host's memory and the manifest were set back to an earlier day: hosts refuse the lower
    sequence. With `--at-least` and the one that they have seen, they believe this publisher again.
    """
    journey.renew()
    record = journey.renewal.certcast_folder / "publisher/example.test.json"
    bucket, key = journey.lab.cloud.bucket, "certcast/certs/example.test/manifest"
    memory, old = record.read_text(), bucket.get(key)
    journey.want_replaced()
    journey.renew()
    journey.first_pull("web1")
    publish(journey, "--at-least", "41")
    assert 0 == journey.pull("web1", "--now").returncode
    assert 42 == manifest(journey)["sequence"]
    assert old is not None
    bucket.put(key, old)
    record.write_text(memory)
    assert 0 == journey.renew("--now").returncode
    refused = journey.pull("web1", "--now")
    assert (27, True) == (refused.returncode, "42" in refused.stderr)

    assert 0 == publish(journey, "example.test", "--at-least", "42").returncode
    assert 43 == manifest(journey)["sequence"]
    done = journey.pull("web1", "--now")
    assert 0 == done.returncode, done.stderr
    assert journey.live().leaf.sha256 == journey.served("web1")


def test_taken_off_outside_the_window(tmp_path: Path) -> None:
    """
    What a host serves is on the list of revoked ones: it is off at the next look, long before the window, and
    no later manifest brings it back, not even as a step back. (What breaks handshakes may: tests/faults.)
    """
    with consumer(tmp_path) as web:
        web.publish("A")
        web.first_pull()
        web.publish("B", revoked=(web.leaf("A"),))
        hour = timedelta(hours=1)
        assert "installed" == web.pull(now=DAY + hour).result
        assert web.leaf("B") == web.served()

        for step_back in (False, True):
            web.publish("A", web.pairs["A"], revoked=(web.leaf("A"),), step_back=step_back)
            with pytest.raises(GateRefused, match="must not be served here") as caught:
                web.pull(now=DAY + 2 * hour, force=True)
            assert "it is on the list of revoked leaves" in (caught.value.found or "")
            assert web.leaf("B") == web.served()


def test_the_only_release_is_revoked(tmp_path: Path) -> None:
    """A new host does not take up a revoked release, though nothing else is published."""
    with consumer(tmp_path) as web:
        placeholder, pair = web.served(), web.issue()
        web.publish("A", pair, revoked=(sha256(pair),))
        with pytest.raises(GateRefused):
            web.pull()
        assert ([], placeholder) == (web.versions(), web.served())


def test_a_step_back_is_not_overdue(tmp_path: Path) -> None:
    """
    A host that was stepped back to a release in its window does not call that overdue at each look: it is
    meant, until a sixth of the life is left.
    """
    with consumer(tmp_path) as web:
        older = web.issue(days_ago=65)
        web.publish("new")
        web.first_pull()
        web.publish("old", older, step_back=True)
        assert "installed" == web.pull(force=True).result
        assert sha256(older) == web.served()
        assert "current" == web.pull(force=True).result
        with pytest.raises(Overdue):
            web.pull(now=DAY + timedelta(days=11))


def test_publish_tells_what_it_has_put_right(journey: Journey) -> None:
    """A manifest that somebody else has written is put right by `publish` as well, and never silently."""
    journey.renew()
    journey.lab.cloud.bucket.put("certcast/certs/example.test/manifest", Stored(b"theirs", 0))
    done = publish(journey, "--at-least", "9")
    assert (33, 10) == (done.returncode, manifest(journey)["sequence"])
    assert "was not what this host had published" in done.stderr
