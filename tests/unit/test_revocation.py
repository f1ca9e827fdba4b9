"""What was asked to be replaced is remembered until the CA has revoked the old certificates."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from certcast import certificate
from certcast.certificate import Leaf
from certcast.config import AbsolutePath, Argv, Config, RenewalConfig, StoreConfig, StoreUrl
from certcast.errors import CertcastError, LineageUnusable, LocalFault
from certcast.manifest import release_key
from certcast.renewal import replacement, revocation
from certcast.renewal.replacement import Reason, Replacement
from certcast.storage import open_store
from certcast.storage.store import Store
from certcast_lab.ca import Authority, Pair

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
NAME = "example.test"
DAY = timedelta(days=1)

# Stands for certbot where the CA's answer is what matters: it notes how it was called.
CERTBOT = """
import os
import sys
from pathlib import Path
here, status, says = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
argv = sys.argv[4:]
pem = Path(argv[argv.index("--cert-path") + 1]).read_text()
with (here / "asked").open("a") as file:
    print(*argv, pem.count("BEGIN CERTIFICATE"), *sorted(os.environ), file=file)
print(says)
sys.exit(status)
"""


@dataclass
class Renewing:
    """A renewal host with versions in certbot's archive, and a certbot that ends as told."""

    folder: Path
    issuer: Authority
    status: int = 0
    says: str = ""

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    @property
    def archive(self) -> Path:
        return self.folder / "letsencrypt/archive" / NAME

    def issue(self, *, days_ago: float, life: float = 90) -> Pair:
        begin = NOW - timedelta(days=days_ago)
        end = begin + timedelta(days=life)
        return self.issuer.issue(NAME, not_before=begin, not_after=end)

    def archived(self, version: int, *, days_ago: float, life: float = 90) -> Leaf:
        pair = self.issue(days_ago=days_ago, life=life)
        self.archive.mkdir(parents=True, exist_ok=True)
        (self.archive / f"fullchain{version}.pem").write_bytes(pair.fullchain_pem)
        (self.archive / f"privkey{version}.pem").write_bytes(pair.key_pem)
        return leaf_of(pair)

    def ask(
        self, reason: Reason = "keyCompromise", after: timedelta | None = DAY, now: datetime = NOW
    ) -> Replacement:
        config_dir = self.folder / "letsencrypt"
        return replacement.ask(self.state_dir, config_dir, NAME, reason=reason, after=after, now=now)

    def published(self, now: datetime = NOW) -> Replacement:
        return replacement.published(self.state_dir, NAME, now)

    def pending(self) -> Replacement | None:
        return replacement.pending(self.state_dir, NAME)

    def store(self) -> Store:
        return open_store(StoreConfig(StoreUrl(f"file://{self.folder}/store")))

    def carry_out(self, now: datetime) -> tuple[list[str], list[CertcastError]]:
        script = self.folder / "certbot.py"
        script.write_text(CERTBOT)
        renewal = RenewalConfig(
            certbot=Argv((sys.executable, str(script), str(self.folder), str(self.status), self.says)),
            config_dir=AbsolutePath(self.folder / "letsencrypt"),
        )
        config = Config(
            store=StoreConfig(StoreUrl(f"file://{self.folder}/store")),
            certificates=(),
            renewal=renewal,
            state_dir=AbsolutePath(self.state_dir),
        )
        return revocation.carry_out(
            config, renewal, open_store=self.store, now=now, progress=lambda _text: None
        )

    def asked_of_the_ca(self) -> list[str]:
        notes = self.folder / "asked"
        return notes.read_text().splitlines() if notes.exists() else []


def leaf_of(pair: Pair) -> Leaf:
    return certificate.describe(certificate.read_chain(pair.fullchain_pem).leaf)


@pytest.fixture
def renewing(tmp_path: Path) -> Renewing:
    (tmp_path / "store").mkdir()
    return Renewing(tmp_path, Authority("Test Issuer", parent=Authority("Test Root")))


def test_every_certificate_that_is_still_valid_is_to_be_revoked(renewing: Renewing) -> None:
    """Not the live one alone: hosts keep earlier versions, and who took one key took those, too."""
    expired = renewing.archived(1, days_ago=100)
    earlier, live = renewing.archived(2, days_ago=70), renewing.archived(3, days_ago=10)
    asked = renewing.ask()

    assert (live.sha256, earlier.sha256) == asked.leaves
    assert expired.sha256 not in asked.leaves
    assert asked == renewing.pending()


def test_the_ca_is_asked_when_the_new_one_has_been_published_for_the_time_given(renewing: Renewing) -> None:
    """Before it is published nothing is due, however long that takes; each is then asked for once."""
    renewing.archived(1, days_ago=10)
    renewing.ask()
    assert ([], []) == renewing.carry_out(NOW + 30 * DAY)
    renewing.published(NOW + 30 * DAY)
    assert ([], []) == renewing.carry_out(NOW + 31 * DAY - timedelta(seconds=1))
    assert [] == renewing.asked_of_the_ca()

    done, failures = renewing.carry_out(NOW + 31 * DAY)
    assert [] == failures
    assert 1 == len(done)
    assert done[0].endswith("is revoked at the CA (keyCompromise)")
    assert ([], []) == renewing.carry_out(NOW + 32 * DAY)
    assert 1 == len(renewing.asked_of_the_ca())
    assert renewing.pending() is None


def test_a_compromised_key_asks_for_itself_and_no_other_reason_uses_it(renewing: Renewing) -> None:
    """
    For keyCompromise the request is signed by the certificate's own key, which the CA then refuses ever
    after; for another reason by the account, since a CA would write keyCompromise. Nothing is deleted.
    """
    renewing.archived(4, days_ago=10)
    renewing.ask(after=timedelta())
    renewing.published()
    renewing.carry_out(NOW)
    renewing.ask("superseded", after=timedelta())
    renewing.published()
    renewing.carry_out(NOW)

    compromised, superseded = renewing.asked_of_the_ca()
    assert f"--key-path {renewing.archive}/privkey4.pem --reason keycompromise" in compromised
    assert "--reason superseded" in superseded
    assert "--key-path" not in superseded
    assert "--no-delete-after-revoke" in compromised


def test_who_asks_the_ca_sees_no_keys_of_the_cloud(
    renewing: Renewing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To revoke, certbot changes no DNS record, so it is not given the keys with which that is done."""
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "a-secret")
    renewing.archived(1, days_ago=10)
    renewing.ask(after=timedelta())
    renewing.published()
    renewing.carry_out(NOW)
    (asked,) = renewing.asked_of_the_ca()
    assert "PATH" in asked
    assert "ALIBABA_CLOUD_ACCESS_KEY_SECRET" not in asked


def test_asking_again_goes_on_with_the_first(renewing: Renewing) -> None:
    """
    A second `--replace` before the end keeps what is to be revoked, so that the new certificate is not
    taken for an old one; its reason and its time are the ones that count now.
    """
    old = renewing.archived(1, days_ago=10)
    renewing.ask()
    renewing.published()
    renewing.archived(2, days_ago=0)
    asked = renewing.ask("superseded", after=timedelta(hours=1), now=NOW + DAY)

    assert (old.sha256,) == asked.leaves
    assert ("superseded", NOW + timedelta(hours=1)) == (asked.reason, asked.due)


def test_asked_again_without_a_time_keeps_the_one_that_was_given(renewing: Renewing) -> None:
    """
    The command that an error shows goes on with the replacement, and neither puts the revocation off nor
    brings it forward; only a first request without a time takes the usual day.
    """
    renewing.archived(1, days_ago=10)
    assert replacement.REVOKE_AFTER == renewing.ask(after=None).after
    renewing.ask(after=7 * DAY)
    assert 7 * DAY == renewing.ask(after=None).after
    assert timedelta() == renewing.ask(after=timedelta()).after
    assert timedelta() == renewing.ask(after=None).after


def test_when_it_was_published_first_is_what_counts(renewing: Renewing) -> None:
    """Runs that publish it again don't put the revocation off."""
    renewing.archived(1, days_ago=10)
    renewing.ask()
    renewing.published()
    assert NOW + DAY == renewing.published(NOW + timedelta(hours=6)).due


def test_revoked_already_is_done(renewing: Renewing) -> None:
    """A run that was killed after the CA's answer is finished by the next one."""
    renewing.archived(1, days_ago=10)
    renewing.ask(after=timedelta())
    renewing.published()
    renewing.status, renewing.says = 1, "Certificate has already been revoked."

    assert [] == renewing.carry_out(NOW)[1]
    assert renewing.pending() is None


def test_a_ca_that_refuses_is_asked_again_and_does_not_stop_the_other_one(renewing: Renewing) -> None:
    """Each failure is told with the CA's words, and what is still to be revoked is remembered."""
    renewing.archived(1, days_ago=20)
    renewing.archived(2, days_ago=10)
    renewing.ask(after=timedelta())
    renewing.published()
    renewing.status, renewing.says = 1, "unsupported revocation reason code provided"
    done, failures = renewing.carry_out(NOW)

    assert [] == done
    assert ["REVOCATION", "REVOCATION"] == [failure.code for failure in failures]
    assert "unsupported revocation reason" in (failures[0].found or "")
    assert "--reason superseded" in (failures[0].next or "")
    renewing.status = 0
    assert 2 == len(renewing.carry_out(NOW)[0])
    assert renewing.pending() is None


def test_an_expired_certificate_needs_no_revocation(renewing: Renewing) -> None:
    """A CA would refuse to revoke it, for ever; it is forgotten instead."""
    renewing.archived(1, days_ago=10)
    renewing.ask()
    renewing.published()

    assert ([], []) == renewing.carry_out(NOW + 90 * DAY)
    assert [] == renewing.asked_of_the_ca()
    assert renewing.pending() is None


def test_the_archive_may_be_gone_by_then(renewing: Renewing) -> None:
    """After `certbot delete` the certificate is still revoked, by the account's key."""
    renewing.archived(1, days_ago=10)
    renewing.ask(after=timedelta())
    renewing.published()
    for file in renewing.archive.iterdir():
        file.unlink()

    assert [] == renewing.carry_out(NOW)[1]
    (asked,) = renewing.asked_of_the_ca()
    assert "--key-path" not in asked


def test_another_key_under_its_number_is_not_the_compromised_one(renewing: Renewing) -> None:
    """
    After `certbot delete` and a new order, privkey1.pem is the new key: the old certificate is revoked
    by the account's, since certbot would refuse this one at each run.
    """
    renewing.archived(1, days_ago=10)
    renewing.ask(after=timedelta())
    renewing.archived(1, days_ago=0)
    renewing.published()

    assert [] == renewing.carry_out(NOW)[1]
    (asked,) = renewing.asked_of_the_ca()
    assert "--key-path" not in asked


def test_one_that_only_the_store_has_is_revoked_too(renewing: Renewing) -> None:
    """
    A host that was restored from a backup does not hold what is published: its certificate comes from the
    store. If that has another one, or none, the error says where it can be found.
    """
    renewing.archived(1, days_ago=40)
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
    # Whoever may write to the bucket has a say in what certbot gets to read, but for the leaf.
    others = renewing.issue(days_ago=5).fullchain_pem
    renewing.store().put(key, "# Zürich\n".encode() + foreign.fullchain_pem + others)

    assert [] == renewing.carry_out(NOW)[1]
    assert 2 == len(renewing.asked_of_the_ca())
    assert " 1 " in renewing.asked_of_the_ca()[1]
    assert renewing.pending() is None


def test_there_must_be_something_to_replace(renewing: Renewing) -> None:
    """Without a valid certificate the command says that a first one is what is needed."""
    renewing.archived(1, days_ago=100)
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
