"""Every bad input that an operator can give, through the installed commands.

One day is set up once: web1 serves certificate A, and B is published since, so that
each `pull` has something to spoil; the CA wants B replaced, so that each `renew` has
something to order. A story brings one bad input about and runs one command. Whatever
it was: a documented exit status, a report with what was kept and what to do next, a
mail where the configuration could still say to whom, and A is served as before.
Afterwards the day is put back as it was: files, bucket, keys.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from certcast.host import files
from certcast.report.errors import (
    AccountUnusable,
    Busy,
    CaAnswerInvalid,
    CaUnreachable,
    CertcastError,
    ConfigInvalid,
    DigestMismatch,
    DnsDenied,
    EnrolRefused,
    IdentityUnusable,
    IssuedUnusable,
    LineageUnusable,
    LocalFault,
    NginxMissing,
    NotEnrolled,
    SealedInvalid,
    SecretExposed,
    SignatureInvalid,
    SigningFailed,
    StoreDenied,
    StoreNoBucket,
    ZoneMissing,
)
from certcast_lab.lab import CERTCAST, Lab
from certcast_lab.oss.oss_bucket import Stored
from certcast_lab.web.hosts import WebHost
from journey import Done, Journey

RELEASES = "certcast/certs/example.test/releases"
MANIFEST = "certcast/certs/example.test/manifest"


@dataclass
class Day:
    """The two hosts, and what a story may spoil: their files, the bucket, the shell they are run from."""

    journey: Journey
    web1: WebHost
    saved: Path
    objects: dict[str, bytes] = field(default_factory=dict)
    served: str = ""
    published: str | None = None
    changed: dict[str, str] = field(default_factory=dict)
    limit: list[str] = field(default_factory=list)

    def pull(self) -> Done:
        """Run `certcast pull --now` on web1."""
        return self._run(self.web1, self.journey.lab.environment("consumer"), "pull", "--now")

    def renew(self) -> Done:
        """Run `certcast renew` on the renewal host."""
        return self._run(self.journey.renewal, self.journey.lab.environment("renewal"), "renew")

    def _run(self, host: WebHost, environment: dict[str, str], *arguments: str) -> Done:
        argv = [*self.limit, CERTCAST, "--config", str(host.certcast_toml), *arguments]
        with subprocess.Popen(
            argv,
            env={**os.environ, **environment, **self.changed},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as child:
            try:
                stdout, stderr = child.communicate(timeout=60)
            except BaseException:
                os.killpg(child.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(argv, child.returncode, stdout, stderr)

    # -- where things are

    @property
    def consumer(self) -> Path:
        """What web1's certcast keeps of the certificate."""
        return self.web1.certcast_folder / "certs/example.test"

    @property
    def publisher(self) -> Path:
        """What the renewal host's certcast keeps."""
        return self.journey.renewal.certcast_folder

    def issued(self, name: str) -> Path:
        """A file of the certificate that is live in certcast's own store."""
        return self.publisher / "issued/example.test" / self.journey.live().version / name

    @property
    def limits(self) -> Path:
        """How many orders were placed at the CA."""
        (path,) = self.publisher.glob("acme/*/limits.json")
        return path

    def live(self, name: str) -> Path:
        """One of the four links of certbot."""
        return self.journey.certbot_dir() / "live/example.test" / name

    def rewrite(self, old: str, new: str) -> None:
        """Replace a text, or what matches the expression, in both configurations."""
        for host in (self.web1, self.journey.renewal):
            text, times = re.subn(old, lambda _: new, host.certcast_toml.read_text(), flags=re.MULTILINE)
            if times:
                host.certcast_toml.write_text(text)

    def store(self, key: str, change: Callable[[bytes], bytes]) -> None:
        """Change an object of the bucket behind everybody's back."""
        self.journey.lab.cloud.bucket.put(key, Stored(change(self.stored(key)), 0))

    @property
    def keys(self) -> Path:
        """Where the keys of publisher and hosts are."""
        return self.journey.lab.trust.folder

    @property
    def identity(self) -> Path:
        """The identity of web1."""
        return self.journey.lab.trust.identity("web1")

    def sealed(self, host: str) -> str:
        """The key of what is sealed to a host in the release that is published."""
        found = self.journey.lab.cloud.bucket.keys()
        (key,) = [key for key in found if key.startswith(self.released(f"keys/{host}."))]
        return key

    def stored(self, key: str) -> bytes:
        """What the bucket holds."""
        stored = self.journey.lab.cloud.bucket.get(key)
        assert stored, key
        return stored.body

    def released(self, name: str) -> str:
        """The key of a file of the release that is published."""
        return f"{RELEASES}/{self.published}/{name}"

    # -- the day, as it was

    def save(self) -> None:
        """Remember how everything stands."""
        bucket = self.journey.lab.cloud.bucket
        self.objects = {key: stored.body for key in bucket.keys("") if (stored := bucket.get(key))}
        self.served, self.published = self.journey.served("web1"), self.journey.published()
        for host in (self.web1, self.journey.renewal):
            shutil.copytree(host.root, self.saved / host.name, symlinks=True)
        self.journey.lab.trust.identity("stranger")
        shutil.copytree(self.keys, self.saved / "keys")

    def put_back(self) -> None:
        """Undo whatever a story has done; nginx was left alone by all of them."""
        for host in (self.web1, self.journey.renewal):
            for part in ("etc", "var/lib"):
                shutil.rmtree(host.root / part)
                shutil.copytree(self.saved / host.name / part, host.root / part, symlinks=True)
        shutil.rmtree(self.keys)
        shutil.copytree(self.saved / "keys", self.keys)
        for key, body in self.objects.items():
            self.journey.lab.cloud.bucket.put(key, Stored(body, 0))
        self.journey.lab.cloud.renewal.active = self.journey.lab.cloud.consumer.active = True
        self.changed, self.limit = {}, []


def set_up(journey: Journey, issue: Callable[[], Done], saved: Path) -> Day:
    """Let A be served, B published, and C wanted by the CA."""
    assert 0 == issue().returncode
    web1 = journey.first_pull("web1")
    journey.want_replaced()
    assert 0 == issue().returncode
    journey.want_replaced()
    day = Day(journey, web1, saved)
    day.save()
    return day


@pytest.fixture(scope="module")
def one_day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        journey = Journey(lab)

        def issue() -> Done:
            done = journey.renew("--now")
            for limits in journey.renewal.certcast_folder.glob("acme/*/limits.json"):
                limits.unlink()  # the cap is another file's story
            return done

        yield set_up(journey, issue, tmp_path_factory.mktemp("saved"))


@pytest.fixture
def day(one_day: Day) -> Iterator[Day]:
    one_day.journey.lab.mailbox.clear()
    try:
        yield one_day
    finally:
        one_day.put_back()


@pytest.fixture(scope="module")
def one_day_of_certbots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """The same, where a certbot with the three hooks renews."""
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        journey = Journey(lab, by_certbot=("example.test",))
        yield set_up(journey, lambda: issued_by_certbot(journey), tmp_path_factory.mktemp("saved"))


def issued_by_certbot(journey: Journey) -> Done:
    """Let certbot issue a certificate, as the README says it."""
    names = ("--cert-name", "example.test", "-d", "example.test", "-d", "*.example.test")
    account = ("--agree-tos", "--register-unsafely-without-email")
    return journey.certbot_with_hooks("certonly", "--force-renewal", *names, *account)


@pytest.fixture
def day_of_certbots(one_day_of_certbots: Day) -> Iterator[Day]:
    one_day_of_certbots.journey.lab.mailbox.clear()
    try:
        yield one_day_of_certbots
    finally:
        one_day_of_certbots.put_back()


# -- what an operator can get wrong


def malformed_config(day: Day) -> None:
    day.rewrite(r"^\[store\]", "[store")


def unknown_key(day: Day) -> None:
    day.rewrite("^region", "reigon")


def no_config_file(day: Day) -> None:
    day.web1.certcast_toml.unlink()
    day.journey.renewal.certcast_toml.unlink()


def no_trust_roots(day: Day) -> None:
    day.rewrite("^trust_roots.*", 'trust_roots = "/nowhere/roots.pem"')


def wrong_bucket(day: Day) -> None:
    day.rewrite("oss://certs/", "oss://cetrs/")


def refused_key(day: Day) -> None:
    day.journey.lab.cloud.consumer.active = day.journey.lab.cloud.renewal.active = False


def wrong_secret(day: Day) -> None:
    day.changed["ALIBABA_CLOUD_ACCESS_KEY_SECRET"] = "mistyped"


def no_key_at_all(day: Day) -> None:
    # Empty counts as unset, for certcast and for the official chain; HOME is where that looks next.
    day.changed = {
        "ALIBABA_CLOUD_ACCESS_KEY_ID": "",
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "",
        "HOME": "/nonexistent",
    }


def no_such_profile(day: Day) -> None:
    day.rewrite("^region.*", 'region = "cn-hangzhou"\nprofile = "nobody"')
    day.changed["HOME"] = "/nonexistent"


def keys_of_the_zone(day: Day, access_key_id: str, secret: str) -> None:
    """The store has its good keys, and the zone a profile of its own."""
    home = day.journey.renewal.root / "var/lib/home"
    profile = {"name": "dns", "mode": "AK", "access_key_id": access_key_id, "access_key_secret": secret}
    (home / ".aliyun").mkdir(parents=True)
    (home / ".aliyun/config.json").write_text(json.dumps({"current": "dns", "profiles": [profile]}))
    (home / ".aliyun/config.json").chmod(0o600)
    day.changed["HOME"] = str(home)
    day.rewrite(r"^\[\[zone\]\]", '[[zone]]\nprofile = "dns"')


def refused_key_of_the_zone(day: Day) -> None:
    keys_of_the_zone(day, "lab-removed", "lab-removed-secret")


def wrong_secret_of_the_zone(day: Day) -> None:
    keys_of_the_zone(day, day.journey.lab.cloud.renewal.access_key_id, "mistyped")


def no_such_profile_of_the_zone(day: Day) -> None:
    day.rewrite(r"^\[\[zone\]\]", '[[zone]]\nprofile = "nobody"')
    day.changed["HOME"] = "/nonexistent"


def corrupt_manifest(day: Day) -> None:
    day.store(MANIFEST, lambda body: body[: len(body) // 2])


def manifest_of_another_store(day: Day) -> None:
    day.store(MANIFEST, lambda body: body.replace(b"oss://certs/", b"oss://other/"))


def file_missing_in_the_bucket(day: Day) -> None:
    day.journey.lab.cloud.bucket.delete(day.released("fullchain.pem"))


def file_corrupt_in_the_bucket(day: Day) -> None:
    day.store(day.released("fullchain.pem"), lambda body: body.replace(b"M", b"N", 1))


def sealed_key_missing(day: Day) -> None:
    day.journey.lab.cloud.bucket.delete(day.sealed("web1"))


def sealed_key_damaged(day: Day) -> None:
    day.store(day.sealed("web1"), lambda body: body[:-1] + bytes([body[-1] ^ 1]))


def no_identity(day: Day) -> None:
    day.identity.unlink()


def identity_is_readable(day: Day) -> None:
    day.identity.chmod(0o644)


def identity_is_another_one(day: Day) -> None:
    shutil.copy(day.journey.lab.trust.identity("stranger"), day.identity)


def no_signing_key(day: Day) -> None:
    for name in ("publisher", "publisher.pub"):
        (day.keys / name).unlink()


def signing_key_is_readable(day: Day) -> None:
    (day.keys / "publisher").chmod(0o640)


def signing_key_is_another_one(day: Day) -> None:
    shutil.copy(day.keys / "publisher-spare", day.keys / "publisher")


def hosts_file_is_garbage(day: Day) -> None:
    (day.keys / "hosts").write_text("web1 ssh-rsa AAAA\n")


def full_disk(day: Day) -> None:
    """A limit on the size of files stands for a full disk: it needs no root, and the kernel refuses alike."""
    day.limit = ["prlimit", "--fsize=100"]


def nginx_missing(day: Day) -> None:
    day.rewrite("^test = .*", 'test = ["/nowhere/nginx", "-t"]')


def state_dir_is_a_file(day: Day) -> None:
    """Not writable for anybody: permission bits mean nothing to root."""
    day.rewrite("^state_dir.*", f'state_dir = "{day.web1.certcast_toml}"')


def state_is_not_json(day: Day) -> None:
    (day.consumer / "state.json").write_text("{")


def state_of_something_else(day: Day) -> None:
    (day.consumer / "state.json").write_text("{}")


def other_domain(day: Day) -> None:
    day.rewrite('^name = "example.test"', 'name = "foreign.test"')
    day.rewrite("^names = .*", 'names = ["foreign.test"]')


def zone_of_somebody_else(day: Day) -> None:
    """The file lists a zone that the account does not have."""
    other_domain(day)
    day.rewrite("^nameservers = .*", "")


def zone_not_in_the_account(day: Day) -> None:
    """The file lists no zones, so that the account's are asked for."""
    other_domain(day)
    toml = day.journey.renewal.certcast_toml
    toml.write_text(toml.read_text().partition("[[zone]]")[0])
    day.journey.lab.cloud.let_find(zones=True)


def half_a_version(day: Day) -> None:
    day.issued("fullchain.pem").unlink()


def no_key_in_a_version(day: Day) -> None:
    day.issued("privkey.pem").unlink()


def garbage_in_a_version(day: Day) -> None:
    day.issued("fullchain.pem").write_bytes(b"\x00\xff no certificate")


def key_of_another_version(day: Day) -> None:
    key = day.issued("privkey.pem")
    (older,) = key.parents[1].glob("1-*/privkey.pem")
    shutil.copy(older, key)


def half_an_order(day: Day) -> None:
    """An order that was under way, without its key: a disk that lost it."""
    folder = day.issued("").parent / ".pending"
    folder.mkdir()
    (folder / "order.json").write_text("{}")


def dangling_lineage(day: Day) -> None:
    day.live("fullchain.pem").resolve().unlink()


def lineage_without_live_folder(day: Day) -> None:
    shutil.rmtree(day.live("fullchain.pem").parent)


def garbage_in_the_lineage(day: Day) -> None:
    for name in ("fullchain.pem", "cert.pem"):
        day.live(name).resolve().write_bytes(b"\x00\xff no certificate")


def corrupt_manifest_and_no_record(day: Day) -> None:
    """With its own record the renewal host would put the manifest right."""
    corrupt_manifest(day)
    (day.publisher / "publisher/example.test.json").unlink()


def damaged_limits(day: Day) -> None:
    (ca,) = (day.publisher / "acme").iterdir()
    (ca / "limits.json").write_text('{"orders": {"*.example.test,example.test": ["yesterday"]}}')


def no_account(day: Day) -> None:
    """Account and key are lost, and the new one's terms were never agreed to."""
    shutil.rmtree(day.publisher / "acme")
    day.rewrite("^terms_of_service_agreed = .*", "")


def account_key_is_readable(day: Day) -> None:
    (ca,) = (day.publisher / "acme").iterdir()
    (ca / "account.key").chmod(0o644)


def damaged_account_key(day: Day) -> None:
    (ca,) = (day.publisher / "acme").iterdir()
    (ca / "account.key").write_text("no key")


def damaged_record(day: Day) -> None:
    (day.publisher / "publisher/example.test.json").write_text("{}")


def damaged_ledger(day: Day) -> None:
    (day.publisher / "dns01/ledger.json").write_text('{"records": [{"name": "_acme-challenge"}]}')


def no_ca(day: Day) -> None:
    day.rewrite("^directory = .*", 'directory = "https://127.0.0.1:1/dir"')


def no_acme_directory(day: Day) -> None:
    """The address of something else that answers: the store's."""
    day.rewrite("^directory = .*", f'directory = "{day.journey.lab.oss_url}/"')


Bad = tuple[Callable[[Day], None], type[CertcastError], str]

PULLS: list[Bad] = [
    (malformed_config, ConfigInvalid, "is not TOML"),
    (unknown_key, ConfigInvalid, "'reigon' is not a known key; did you mean 'region'?"),
    (no_config_file, ConfigInvalid, "there is no configuration file"),
    (no_trust_roots, LocalFault, "/nowhere/roots.pem"),
    (wrong_bucket, StoreNoBucket, "oss://cetrs"),
    (refused_key, StoreDenied, "InvalidAccessKeyId"),
    (wrong_secret, StoreDenied, "SignatureDoesNotMatch"),
    (no_key_at_all, StoreDenied, "ALIBABA_CLOUD_ACCESS_KEY_ID"),
    (no_such_profile, StoreDenied, "config.json"),
    (corrupt_manifest, SignatureInvalid, "no SSH signature"),
    (manifest_of_another_store, SignatureInvalid, "the text was changed"),
    (no_identity, IdentityUnusable, "`certcast identity` makes one"),
    (identity_is_readable, SecretExposed, "chmod 600"),
    (identity_is_another_one, NotEnrolled, "certcast host add web1"),
    (sealed_key_missing, NotEnrolled, "certcast host add web1"),
    (sealed_key_damaged, SealedInvalid, "certcast host add web1"),
    (file_missing_in_the_bucket, DigestMismatch, "fullchain.pem of sequence 2"),
    (file_corrupt_in_the_bucket, DigestMismatch, "fullchain.pem of sequence 2"),
    (full_disk, LocalFault, "state.json.new: File too large"),
    (nginx_missing, NginxMissing, "/nowhere/nginx"),
    (state_dir_is_a_file, LocalFault, "a file stands where a directory has to be"),
    (state_is_not_json, LocalFault, "state.json away"),
    (state_of_something_else, LocalFault, "state.json away"),
]

RENEWALS: list[Bad] = [
    (malformed_config, ConfigInvalid, "is not TOML"),
    (unknown_key, ConfigInvalid, "'reigon' is not a known key; did you mean 'region'?"),
    (wrong_bucket, StoreNoBucket, "oss://cetrs"),
    (refused_key, StoreDenied, "InvalidAccessKeyId"),
    (wrong_secret, StoreDenied, "SignatureDoesNotMatch"),
    (no_key_at_all, StoreDenied, "ALIBABA_CLOUD_ACCESS_KEY_ID"),
    (refused_key_of_the_zone, DnsDenied, "InvalidAccessKeyId"),
    (wrong_secret_of_the_zone, DnsDenied, "SignatureDoesNotMatch"),
    (no_such_profile_of_the_zone, DnsDenied, "config.json"),
    (zone_of_somebody_else, DnsDenied, "foreign.test"),
    (zone_not_in_the_account, ZoneMissing, "a name in one of: example.test"),
    (half_a_version, IssuedUnusable, "fullchain.pem: no such file"),
    (no_key_in_a_version, IssuedUnusable, "privkey.pem: no such file"),
    (garbage_in_a_version, IssuedUnusable, "restore "),
    (key_of_another_version, IssuedUnusable, "the private key does not belong to its certificate"),
    (half_an_order, LocalFault, "`rm -r "),
    (corrupt_manifest_and_no_record, SignatureInvalid, "cannot be believed"),
    (no_signing_key, SigningFailed, "certcast publisher init"),
    (signing_key_is_readable, SecretExposed, "chmod 600"),
    (signing_key_is_another_one, SigningFailed, "doesn't match private"),
    (hosts_file_is_garbage, EnrolRefused, "line 1"),
    (full_disk, LocalFault, "File too large"),
    (state_dir_is_a_file, LocalFault, "a file stands where a directory has to be"),
    (damaged_limits, LocalFault, "limits.json away"),
    (damaged_record, LocalFault, "example.test.json away"),
    (damaged_ledger, LocalFault, "look for leftover _acme-challenge records"),
    (no_account, AccountUnusable, "add that line"),
    (account_key_is_readable, SecretExposed, "chmod 600"),
    (damaged_account_key, LocalFault, "account.key.damaged"),
    (no_ca, CaUnreachable, "127.0.0.1:1"),
    (no_acme_directory, CaAnswerInvalid, "renewal.directory"),
]

LINEAGES: list[Bad] = [
    (dangling_lineage, LineageUnusable, "fullchain.pem: No such file or directory"),
    (lineage_without_live_folder, LineageUnusable, "cert.pem: No such file or directory"),
    (garbage_in_the_lineage, LineageUnusable, "certbot delete --cert-name example.test"),
]


# -- the stories


@pytest.mark.parametrize(("bad_input", "error", "says"), PULLS, ids=[bad.__name__ for bad, *_ in PULLS])
def test_bad_input_of_a_consumer(
    day: Day, bad_input: Callable[[Day], None], error: type[CertcastError], says: str
) -> None:
    """A consumer with bad input says what to do in a report and by mail, and goes on serving."""
    bad_input(day)
    require_reported(day, day.pull(), error, says)


@pytest.mark.parametrize(("bad_input", "error", "says"), RENEWALS, ids=[bad.__name__ for bad, *_ in RENEWALS])
def test_bad_input_of_the_renewal_host(
    day: Day, bad_input: Callable[[Day], None], error: type[CertcastError], says: str
) -> None:
    """A renewal host with bad input says what to do in a report and by mail, and leaves no TXT record."""
    bad_input(day)
    require_reported(day, day.renew(), error, says)
    assert [] == day.journey.lab.cloud.challenge_records()


@pytest.mark.parametrize(("bad_input", "error", "says"), LINEAGES, ids=[bad.__name__ for bad, *_ in LINEAGES])
def test_bad_input_of_a_certbot(
    day_of_certbots: Day, bad_input: Callable[[Day], None], error: type[CertcastError], says: str
) -> None:
    """A lineage that cannot be published is told with what mends it; no order is placed for it."""
    orders = day_of_certbots.journey.lab.renewal_info.orders
    bad_input(day_of_certbots)
    require_reported(day_of_certbots, day_of_certbots.renew(), error, says)
    assert orders == day_of_certbots.journey.lab.renewal_info.orders


@pytest.mark.parametrize("bad_input", [dangling_lineage, lineage_without_live_folder])
def test_an_incomplete_lineage_is_mended_as_advised(
    day_of_certbots: Day, bad_input: Callable[[Day], None]
) -> None:
    """
    certbot would issue example.test-0001 beside a lineage whose files are gone, one more at each run. The
    report's advice moves the broken one away, and brings a new certificate of the same name.
    """
    day = day_of_certbots
    bad_input(day)
    done = day.renew()
    assert LineageUnusable.exit_status == done.returncode
    (advised,) = [text for text in done.stderr.split("`") if text.startswith("cd ")]
    subprocess.run(["sh", "-c", advised], check=True)
    assert 0 == issued_by_certbot(day.journey).returncode
    assert ["example.test"] == [path.stem for path in day.journey.certbot_dir().glob("renewal/*.conf")]
    assert day.published != day.journey.published() == day.journey.live().leaf.sha256


def test_a_damaged_version_is_ordered_anew(day: Day) -> None:
    """
    A certificate that this host has lost is told of, and ordered anew within the caps: the new one is
    published in the same run, and the next run has nothing to tell.
    """
    half_a_version(day)
    done = day.renew()
    assert IssuedUnusable.exit_status == done.returncode
    assert day.published != day.journey.published() == day.journey.live().leaf.sha256
    again = day.renew()
    assert (0, "") == (again.returncode, again.stderr)


def test_a_damaged_object_is_put_right_by_renew(day: Day) -> None:
    """What the report of a consumer advises when a file in the bucket is damaged, helps, without an order."""
    file_corrupt_in_the_bucket(day)
    no_ca(day)  # so nothing can be ordered
    day.renew()
    assert day.objects[day.released("fullchain.pem")] == day.stored(day.released("fullchain.pem"))


def test_a_missing_mail_password_never_hides_the_failure(day: Day) -> None:
    """Without the mail's password, the first failure is printed all the same, then that nobody was told."""
    no_trust_roots(day)
    day.rewrite(
        '^security = "starttls"',
        'security = "starttls"\nusername = "certcast"\npassword_file = "/nowhere/password"',
    )
    done = day.pull()
    assert LocalFault.exit_status == done.returncode
    assert "Traceback" not in done.stderr
    assert done.stderr.index("/nowhere/roots.pem") < done.stderr.index("/nowhere/password")
    assert "code     MAIL-NOT-SENT (exit 40)" in done.stderr
    assert day.served == day.journey.served("web1")


def test_signing_key_exposed_with_nothing_to_sign(day: Day) -> None:
    """Each run looks, so that nobody reads it for days until the manifest is dated anew."""
    day.put_back()
    before = day.renew()
    assert 0 == before.returncode, before.stderr
    assert (0, "") == (day.renew().returncode, day.renew().stderr)
    signing_key_is_readable(day)
    require_reported(day, day.renew(), SecretExposed, "chmod 600")


def test_a_second_run_at_once_is_told_so(day: Day) -> None:
    """While another run works on a certificate, a second one ends at once, and says whom to look for."""
    with files.lock(day.consumer / "lock"):
        done = day.pull()
    require_reported(day, done, Busy, "fuser -v")


def test_a_stopped_nginx_can_start_again(day: Day) -> None:
    """While nginx is stopped, pull says that it is not running; nginx then starts with a good pair."""
    day.web1.stop()
    try:
        done = day.pull()
        assert day.web1.test()
    finally:
        day.put_back()
        day.web1.start()
    require_reported(day, done, NginxMissing, "nginx is not running")


def require_reported(day: Day, done: Done, error: type[CertcastError], says: str) -> None:
    """What every story ends with."""
    assert error.exit_status == done.returncode, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    for report in done.stderr.split("error: ")[1:]:
        for label in ("kept     ", "next     ", "code     "):
            assert f"\n  {label}" in report, report
    assert f"code     {error.code} (exit {error.exit_status})" in done.stderr
    assert says in done.stderr
    mails = day.journey.lab.mailbox.messages
    if error is ConfigInvalid:
        assert [] == mails  # the file could not say to whom
    else:
        assert any(f"Code {error.code} " in mail.text for mail in mails)
        assert {("it@example.test",)} == {mail.recipients for mail in mails}
    assert day.served == day.journey.served("web1")
    assert day.web1.test()
    assert [] == list(day.consumer.glob("incoming-*"))
    assert day.journey.lab.cloud.bucket.keys(f"{RELEASES}/{day.published}/")
