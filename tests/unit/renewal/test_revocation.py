"""What was asked to be replaced is remembered until the CA has revoked the old certificates."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certcast.acme.account import AccountRecord
from certcast.acme.ca import Ca
from certcast.acme.issued import Issued
from certcast.acme.protocol.answers import NoAnswer, Problem
from certcast.certbot.lineage import Lineage
from certcast.config.model import (
    AbsolutePath,
    CertificateConfig,
    CertificateName,
    Config,
    DnsName,
    RenewalConfig,
    StoreConfig,
    StoreUrl,
)
from certcast.release import certificate, documents
from certcast.release.certificate import Leaf
from certcast.release.manifest import release_key
from certcast.release.source import Source
from certcast.renewal import replacement, revocation
from certcast.renewal.reconcile import Renewal
from certcast.renewal.replacement import OldLeaf, Reason, Replacement
from certcast.report.errors import CertcastError, LineageUnusable, LocalFault
from certcast.storage import open_store
from certcast.storage.store import Store
from certcast_lab.serving.authority import Authority, Pair
from held import DIRECTORY, CertbotFiles, issued, leaf_of

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
NAME = "example.test"
DAY = timedelta(days=1)
CONFIGURED = "https://configured.test/directory"


@dataclass
class Asked:
    """One request to revoke, as a CA gets it: signed by the certificate's own key, or by the account's."""

    directory: str
    leaf: str
    reason: int
    by_own_key: bool


class AskedCa(Ca):
    """A CA at which its answer is what matters: it notes what it was asked. It knows this host's account."""

    def __init__(self, url: str, host: Renewing) -> None:
        super().__init__(url, host.state_dir, RenewalConfig(), clock=lambda: NOW, note=print)
        self._host = host
        self._key: Any = None
        if host.has_account:
            record = AccountRecord(url, "https://ca.test/account/1", NOW)
            documents.write(self.folder / "account.json", record)

    @property
    def directory(self) -> dict[str, Any]:
        return {"revokeCert": f"{self.url}/revoke"}

    def network(self, *, signed_by: Any = None, uri: str | None = None) -> Any:
        self._key = signed_by
        return self

    def post(self, url: str, wanted: Any) -> None:
        assert url == f"{self.url}/revoke"
        pem = wanted.certificate.public_bytes(Encoding.PEM)
        leaf = certificate.describe(certificate.read_chain(pem).leaf)
        assert self._key is None or certificate.key_fits(self._key, leaf), "another certificate's key"
        self._host.asked.append(Asked(self.url, leaf.sha256, wanted.reason, self._key is not None))
        if self._host.refusal is not None:
            raise self._host.refusal


@dataclass
class Renewing:
    """A renewal host that holds versions of one certificate, and a CA that answers as told."""

    folder: Path
    issuer: Authority
    source: Source = field(init=False)
    refusal: Exception | None = None
    has_account: bool = True
    is_configured: bool = True
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source = Issued(self.state_dir, NAME)

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    def issue(self, *, days_ago: float, life: float = 90) -> Pair:
        begin = NOW - timedelta(days=days_ago)
        end = begin + timedelta(days=life)
        return self.issuer.issue(NAME, not_before=begin, not_after=end)

    def held(self, *, days_ago: float, life: float = 90) -> Leaf:
        """One more version on this host."""
        return issued(self.state_dir, NAME, self.issue(days_ago=days_ago, life=life)).leaf

    def ask(
        self, reason: Reason = "keyCompromise", after: timedelta | None = DAY, now: datetime = NOW
    ) -> Replacement:
        return replacement.ask(self.state_dir, self.source, NAME, reason=reason, after=after, now=now)

    def published(self, now: datetime = NOW) -> Replacement:
        return replacement.mark_published(self.state_dir, NAME, now)

    def pending(self) -> Replacement | None:
        return replacement.pending(self.state_dir, NAME)

    def store(self) -> Store:
        return open_store(StoreConfig(StoreUrl(f"file://{self.folder}/store")))

    def carry_out(self, now: datetime) -> tuple[list[str], list[CertcastError]]:
        return revocation.carry_out(RevokingRenewal.of(self, now))


class RevokingRenewal(Renewal):
    """A run on this host whose CAs note what they are asked."""

    host: Renewing

    @classmethod
    def of(cls, host: Renewing, now: datetime) -> RevokingRenewal:
        wanted = CertificateConfig(CertificateName(NAME), (DnsName(NAME),))
        config = Config(
            StoreConfig(StoreUrl(f"file://{host.folder}/store")),
            (wanted,) if host.is_configured else (),
            state_dir=AbsolutePath(host.state_dir),
        )
        silent = {"progress": lambda _text: None, "warn": print, "note": print}
        nothing: Any = None  # is published here
        found = cls(config, RenewalConfig(), host.store, nothing, lambda: now, **silent)
        found.host = host
        return found

    def ca(self, url: str | None = None) -> Ca:
        return AskedCa(url or CONFIGURED, self.host)

    def source(self, wanted: CertificateConfig) -> Source:
        return self.host.source


@pytest.fixture
def renewing(tmp_path: Path) -> Renewing:
    (tmp_path / "store").mkdir()
    return Renewing(tmp_path, Authority("Test Issuer", parent=Authority("Test Root")))


def test_every_valid_certificate_is_to_be_revoked(renewing: Renewing) -> None:
    """Not the live one alone: hosts keep earlier versions, and who took one key took those, too."""
    expired = renewing.held(days_ago=100)
    earlier, live = renewing.held(days_ago=70), renewing.held(days_ago=10)
    asked = renewing.ask()

    assert (live.sha256, earlier.sha256) == asked.leaves
    assert expired.sha256 not in asked.leaves
    assert asked == renewing.pending()


def test_the_ca_is_asked_after_the_time_given(renewing: Renewing) -> None:
    """Before it is published nothing is due, however long that takes; each is then asked for once."""
    renewing.held(days_ago=10)
    renewing.ask()
    assert ([], []) == renewing.carry_out(NOW + 30 * DAY)
    renewing.published(NOW + 30 * DAY)
    assert ([], []) == renewing.carry_out(NOW + 31 * DAY - timedelta(seconds=1))
    assert [] == renewing.asked

    done, failures = renewing.carry_out(NOW + 31 * DAY)
    assert [] == failures
    assert 1 == len(done)
    assert done[0].endswith("is revoked at the CA (keyCompromise)")
    assert ([], []) == renewing.carry_out(NOW + 32 * DAY)
    assert 1 == len(renewing.asked)
    assert renewing.pending() is None


def test_only_a_compromised_key_asks_for_itself(renewing: Renewing) -> None:
    """
    For keyCompromise the request is signed by the certificate's own key, which the CA then refuses ever
    after; for another reason by the account, since a CA would write keyCompromise.
    """
    leaf = renewing.held(days_ago=10)
    for reason in ("keyCompromise", "superseded"):
        renewing.ask(reason, after=timedelta())
        renewing.published()
        renewing.carry_out(NOW)

    compromised, superseded = renewing.asked
    assert Asked(DIRECTORY, leaf.sha256, 1, True) == compromised
    assert Asked(DIRECTORY, leaf.sha256, 4, False) == superseded


def test_without_an_account_a_certificate_speaks_for_itself(renewing: Renewing) -> None:
    """Whoever has lost the account at a CA can still revoke there, whatever the reason is."""
    leaf = renewing.held(days_ago=10)
    renewing.has_account = False
    renewing.ask("superseded", after=timedelta())
    renewing.published()
    renewing.carry_out(NOW)
    assert [Asked(DIRECTORY, leaf.sha256, 4, True)] == renewing.asked


def test_the_ca_that_issued_is_the_one_that_is_asked(renewing: Renewing) -> None:
    """After a change of the CA the old one revokes; where nobody knows which it was, the configured one."""
    renewing.held(days_ago=10)
    unknown = renewing.held(days_ago=5)
    (renewing.source.place / renewing.source.live().version / "order.json").unlink()
    renewing.ask(after=timedelta())
    renewing.published()
    renewing.carry_out(NOW)
    assert [CONFIGURED, DIRECTORY] == [asked.directory for asked in renewing.asked]
    assert unknown.sha256 == renewing.asked[0].leaf


def test_an_unconfigured_certificate_is_revoked(renewing: Renewing) -> None:
    """Who takes it out of the configuration meanwhile still gets what was asked for."""
    renewing.held(days_ago=10)
    renewing.ask(after=timedelta())
    renewing.published()
    renewing.is_configured = False
    assert [] == renewing.carry_out(NOW)[1]
    assert [False] == [asked.by_own_key for asked in renewing.asked]
    assert renewing.pending() is None


def test_asking_again_goes_on_with_the_first(renewing: Renewing) -> None:
    """
    A second `--replace` before the end keeps what is to be revoked, so that the new certificate is not
    taken for an old one; its reason and its time are the ones that count now.
    """
    old = renewing.held(days_ago=10)
    renewing.ask()
    renewing.published()
    renewing.held(days_ago=0)
    asked = renewing.ask("superseded", after=timedelta(hours=1), now=NOW + DAY)

    assert (old.sha256,) == asked.leaves
    assert ("superseded", NOW + timedelta(hours=1)) == (asked.reason, asked.due)


def test_asking_again_keeps_the_time_given(renewing: Renewing) -> None:
    """
    The command that an error shows goes on with the replacement, and neither puts the revocation off nor
    brings it forward; only a first request without a time takes the usual day.
    """
    renewing.held(days_ago=10)
    assert replacement.REVOKE_AFTER.total_seconds() == renewing.ask(after=None).after_seconds
    renewing.ask(after=7 * DAY)
    assert (7 * DAY).total_seconds() == renewing.ask(after=None).after_seconds
    assert 0 == renewing.ask(after=timedelta()).after_seconds
    assert 0 == renewing.ask(after=None).after_seconds


def test_when_it_was_published_first_is_what_counts(renewing: Renewing) -> None:
    """Runs that publish it again don't put the revocation off."""
    renewing.held(days_ago=10)
    renewing.ask()
    renewing.published()
    assert NOW + DAY == renewing.published(NOW + timedelta(hours=6)).due


def test_revoked_already_is_done(renewing: Renewing) -> None:
    """A run that was killed after the CA's answer is finished by the next one."""
    renewing.held(days_ago=10)
    renewing.ask(after=timedelta())
    renewing.published()
    renewing.refusal = Problem(400, "alreadyRevoked", "it is")

    assert [] == renewing.carry_out(NOW)[1]
    assert renewing.pending() is None


def test_a_refusal_is_asked_again_and_stops_no_other(renewing: Renewing) -> None:
    """Each failure is told with the CA's words, and what is still to be revoked is remembered."""
    renewing.held(days_ago=20)
    renewing.held(days_ago=10)
    renewing.ask(after=timedelta())
    renewing.published()
    renewing.refusal = Problem(400, "badRevocationReason", "unsupported revocation reason code provided")
    done, failures = renewing.carry_out(NOW)

    assert [] == done
    assert ["REVOCATION", "REVOCATION"] == [failure.code for failure in failures]
    assert "unsupported revocation reason" in (failures[0].found or "")
    assert "--reason superseded" in (failures[0].next or "")
    renewing.refusal = None
    assert 2 == len(renewing.carry_out(NOW)[0])
    assert renewing.pending() is None


def test_a_ca_that_is_away_is_asked_again(renewing: Renewing) -> None:
    """What could not be asked stays on the list, and the message says what happens next."""
    renewing.held(days_ago=10)
    renewing.ask(after=timedelta())
    renewing.published()
    renewing.refusal = NoAnswer("https://ca.test", "connection refused")
    (failure,) = renewing.carry_out(NOW)[1]
    assert "REVOCATION" == failure.code
    assert "connection refused" in (failure.found or "")
    assert renewing.pending() is not None


def test_an_expired_certificate_needs_no_revocation(renewing: Renewing) -> None:
    """A CA would refuse to revoke it, for ever; it is forgotten instead."""
    renewing.held(days_ago=10)
    renewing.ask()
    renewing.published()

    assert ([], []) == renewing.carry_out(NOW + 90 * DAY)
    assert [] == renewing.asked
    assert renewing.pending() is None


def test_the_versions_may_be_gone_by_then(renewing: Renewing) -> None:
    """Where this host holds the certificate no more, it is still revoked, by the account's key."""
    leaf = renewing.held(days_ago=10)
    renewing.ask(after=timedelta())
    renewing.published()
    shutil.rmtree(renewing.source.place)

    assert [] == renewing.carry_out(NOW)[1]
    assert [Asked(DIRECTORY, leaf.sha256, 1, False)] == renewing.asked


def test_a_reused_number_is_not_the_compromised_key(renewing: Renewing) -> None:
    """
    After `certbot delete` and a new order, privkey1.pem is the new key: the old certificate is revoked
    by the account's, since the CA would refuse this one at each run.
    """
    certbot = CertbotFiles(renewing.folder / "letsencrypt", NAME)
    renewing.source = Lineage(renewing.folder / "letsencrypt", NAME)
    old, new = renewing.issue(days_ago=10), renewing.issue(days_ago=0)
    certbot.add(old)
    renewing.ask(after=timedelta())
    certbot.archived(1, new)
    renewing.published()

    assert [] == renewing.carry_out(NOW)[1]
    assert [Asked(DIRECTORY, leaf_of(old).sha256, 1, False)] == renewing.asked


def test_one_that_only_the_store_has_is_revoked_too(renewing: Renewing) -> None:
    """
    A host that was restored from a backup does not hold what is published: its certificate comes from the
    store. If that has another one, or none, the error says where it can be found.
    """
    renewing.held(days_ago=40)
    foreign = renewing.issue(days_ago=10)
    renewing.ask(after=timedelta())
    replacement.add(renewing.state_dir, NAME, leaf_of(foreign))
    renewing.published()
    key = release_key(NAME, leaf_of(foreign).sha256, "fullchain.pem")
    for body in (None, b"no certificate", renewing.issue(days_ago=5).fullchain_pem):
        if body is not None:
            renewing.store().put(key, body)
        (failure,) = renewing.carry_out(NOW)[1]
        assert "Certificate Transparency" in (failure.next or "")
    # Whoever may write to the bucket has a say in what is read there, but for the leaf.
    others = renewing.issue(days_ago=5).fullchain_pem
    renewing.store().put(key, "# Zürich\n".encode() + foreign.fullchain_pem + others)

    assert [] == renewing.carry_out(NOW)[1]
    assert 2 == len(renewing.asked)
    assert (CONFIGURED, leaf_of(foreign).sha256) == (renewing.asked[1].directory, renewing.asked[1].leaf)
    assert renewing.pending() is None


def test_there_must_be_something_to_replace(renewing: Renewing) -> None:
    """Without a valid certificate the command says that a first one is what is needed."""
    renewing.held(days_ago=100)
    with pytest.raises(LineageUnusable, match="no certificate to replace") as caught:
        renewing.ask()
    assert f"`certcast renew {NAME}`" in (caught.value.next or "")
    assert renewing.pending() is None


@pytest.mark.parametrize("damage", ["{", "[]", '{"example.test": {}}', '{"example.test": {"reason": "x"}}'])
def test_a_damaged_list_stops_instead_of_forgetting(renewing: Renewing, damage: str) -> None:
    """What was to be revoked is not dropped because a file cannot be read."""
    renewing.state_dir.mkdir()
    (renewing.state_dir / "revocations.json").write_text(damage)
    with pytest.raises(LocalFault, match="is damaged"):
        renewing.carry_out(NOW)


def test_what_an_earlier_certcast_wrote_down_is_carried_out(renewing: Renewing) -> None:
    """An update between `--replace` and the revocation loses nothing."""
    leaf = renewing.held(days_ago=10)
    renewing.ask(after=timedelta())
    path = renewing.state_dir / "revocations.json"
    document = json.loads(path.read_text())
    (old,) = document[NAME]["olds"]
    del old["directory"]
    old["version"] = 7
    path.write_text(json.dumps(document))
    renewing.published()
    assert [] == renewing.carry_out(NOW)[1]
    assert [leaf.sha256] == [asked.leaf for asked in renewing.asked]


def test_a_list_that_is_on_disk_today_is_read(tmp_path: Path) -> None:
    """What was asked for before an update stays asked for, with every field that the file has."""
    (tmp_path / "revocations.json").write_text(
        """{
  "example.test": {
    "reason": "superseded",
    "after_seconds": 86400.0,
    "asked_at": "2026-11-23T12:00:00Z",
    "published_at": null,
    "olds": [
      {
        "sha256": "8000000000000000000000000000000000000000000000000000000000000000",
        "serial": "0a1b",
        "not_after": "2026-12-23T12:00:00Z",
        "pem": "-----BEGIN CERTIFICATE-----",
        "directory": "https://ca.test/directory"
      },
      {
        "sha256": "9000000000000000000000000000000000000000000000000000000000000000",
        "serial": "0a1c",
        "not_after": "2026-12-23T12:00:00Z",
        "pem": null,
        "directory": null
      }
    ]
  }
}
"""
    )
    end = NOW + 30 * DAY
    known = OldLeaf("8" + "0" * 63, "0a1b", end, "-----BEGIN CERTIFICATE-----", DIRECTORY)
    unknown = OldLeaf("9" + "0" * 63, "0a1c", end)
    expected = Replacement("superseded", 86400.0, NOW, None, (known, unknown))
    assert {NAME: expected} == replacement.everything(tmp_path)
    before = (tmp_path / "revocations.json").read_text()
    replacement.forget(tmp_path, "other.test", known)
    assert replacement.mark_published(tmp_path, NAME, NOW).due == NOW + DAY
    assert before.replace("null", '"2026-11-23T12:00:00Z"', 1) == (tmp_path / "revocations.json").read_text()
