"""Who gets the private key: hosts that are enrolled, set up anew, removed, in groups, or none of ours.

certbot, pebble, nginx, ssh-keygen and age are real; `certcast` runs as the installed command, and
what an error tells an administrator to run is run.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from answering import answering
from certcast.release.ssh_keys import PublicKey
from certcast.report.errors import ManifestReplayed, SigningFailed
from certcast_lab.lab import CERTCAST, Lab
from certcast_lab.web.hosts import WebHost
from journey import Done, Journey

TWO = {
    "example.test": ("example.test", "*.example.test"),
    "example-two.test": ("example-two.test", "*.example-two.test"),
}


@dataclass
class Fleet:
    """A renewal host where nobody is enrolled yet, and hosts with no identity yet."""

    journey: Journey

    def __post_init__(self) -> None:
        self.hosts_file.write_text("")

    @property
    def lab(self) -> Lab:
        return self.journey.lab

    @property
    def hosts_file(self) -> Path:
        return self.lab.trust.hosts_file

    def web(self, name: str, old: str = "", new: str = "") -> WebHost:
        """Return a host that is configured, but not enrolled; its identity's file isn't there yet."""
        before = self.hosts_file.read_text()
        host = self.journey.consumer(name, old, new)
        self.hosts_file.write_text(before)  # the lab enrols whom it configures
        text = host.certcast_toml.read_text()
        host.certcast_toml.write_text(
            re.sub(r"(?m)^identity = .*$", f"identity = {json.dumps(str(self.identity_file(name)))}", text)
        )
        return host

    def identity_file(self, name: str) -> Path:
        return self.lab.host(name).root / "etc/certcast/identity"

    def identity(self, name: str) -> Done:
        """Run `certcast identity` on a host."""
        return self.lab.certcast(self.lab.host(name).certcast_toml, "identity", user="consumer")

    def host(self, *arguments: str) -> Done:
        """Run `certcast host …` on the renewal host."""
        return self.lab.certcast(self.journey.renewal.certcast_toml, "host", *arguments, user="renewal")

    def run(self, command: str) -> Done:
        """Run, on the renewal host, a command that an error or `certcast identity` has printed."""
        program, *words = shlex.split(command)
        assert "certcast" == program
        return self.lab.certcast(self.journey.renewal.certcast_toml, *words, user="renewal")

    def enrolled(self, name: str) -> WebHost:
        """Return a host that is set up, enrolled, and serves what is published."""
        host = self.web(name)
        line = self.identity(name).stdout
        done = self.host("add", name, line)
        assert 0 == done.returncode, done.stderr
        assert 39 == self.journey.pull(name).returncode
        host.include(host.certcast_folder / "certs/example.test/nginx.conf")
        assert 0 == self.journey.pull(name).returncode
        return host

    def sealed(self, name: str) -> list[str]:
        """Return the certificates of which a private key is sealed to a name, older versions included."""
        pattern = rf".*/certs/(.*)/releases/.*/keys/{name}\.\w{{16}}\.age"
        versions = self.lab.cloud.bucket.versions("certcast/certs/")
        found = [re.fullmatch(pattern, key) for key, version in versions if version.stored]
        return sorted(match[1] for match in found if match)


@pytest.fixture
def fleet(lab: Lab) -> Fleet:
    fleet = Fleet(Journey(lab))
    assert 0 == fleet.journey.renew().returncode
    return fleet


def commands(report: str) -> list[str]:
    """Return the commands for the renewal host in a report."""
    return re.findall(r"`(certcast host [^`]+)`", report)


def test_the_way_of_a_new_host(fleet: Fleet) -> None:
    """
    A host that nobody has enrolled is told so, with the very command; once that has been run on the
    renewal host, the key is there for it, and it serves.
    """
    host = fleet.web("web1")
    missing = fleet.journey.pull("web1")
    assert 7 == missing.returncode  # no identity yet: IDENTITY
    assert "`certcast identity`" in missing.stderr

    shown = fleet.identity("web1")
    refused = fleet.journey.pull("web1")
    assert (0, 34) == (shown.returncode, refused.returncode)
    assert "NOT-ENROLLED" in refused.stderr
    command = commands(refused.stderr)[0]
    assert command in shown.stderr
    done = fleet.run(command)

    assert 0 == done.returncode, done.stderr
    assert ["web1: enrolled, " + fingerprint_of(shown), "example.test: private key sealed to web1"] == (
        done.stdout.splitlines()
    )
    assert 39 == fleet.journey.pull("web1").returncode
    host.include(host.certcast_folder / "certs/example.test/nginx.conf")
    assert 0 == fleet.journey.pull("web1").returncode
    assert fleet.journey.published() == fleet.journey.served("web1")


def test_a_new_host_takes_nothing_older_than_it_was_told(fleet: Fleet) -> None:
    """
    `certcast publisher show` has the line that tells a new host how far things are: whoever can
    write to the bucket shows it no release of before, one that is revoked by now, say.
    """
    bucket, pointer = fleet.lab.cloud.bucket, "certcast/certs/example.test/manifest"
    old = bucket.get(pointer)
    assert old is not None
    fleet.journey.renew("--replace", "example.test", "--reason", "keyCompromise")
    shown = fleet.lab.certcast(fleet.journey.renewal.certcast_toml, "publisher", "show", user="renewal")
    (line,) = re.findall(r"(?m)^at_least = 2 +# example\.test$", shown.stdout)

    host = fleet.web("web1")
    toml = host.certcast_toml.read_text()
    host.certcast_toml.write_text(toml.replace("[[certificate]]\n", f"[[certificate]]\n{line}\n"))
    fleet.host("add", "web1", fleet.identity("web1").stdout)
    bucket.put(pointer, old)
    refused = fleet.journey.pull("web1")
    assert ManifestReplayed.exit_status == refused.returncode, refused.stderr
    fleet.journey.renew()
    assert 39 == fleet.journey.pull("web1").returncode


def fingerprint_of(identity: Done) -> str:
    return PublicKey.parse(identity.stdout).fingerprint


def test_identity_is_made_once_and_shown_after(fleet: Fleet) -> None:
    """
    The public line alone is on stdout, what a person reads on stderr; a second run shows the same key. The
    file is 0600, and ssh-keygen finds that key in it.
    """
    fleet.web("web1")
    first, second = fleet.identity("web1"), fleet.identity("web1")
    path = fleet.identity_file("web1")
    derived = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(path)], capture_output=True, text=True, check=True
    )

    assert first.stdout == second.stdout == " ".join([*derived.stdout.split()[:2], "web1\n"])
    assert "made now" in first.stderr
    assert "made now" not in second.stderr
    assert fingerprint_of(first) in first.stderr
    assert 0o600 == path.stat().st_mode & 0o777


def test_an_identity_that_cannot_be_used(fleet: Fleet) -> None:
    """A key with a passphrase, an RSA key, one that others may read: refused, and nothing is replaced."""
    fleet.web("web1")
    path = fleet.identity_file("web1")
    for options, status in (("-t ed25519 -N secret", 7), ("-t rsa -N", 7), ("-t ed25519 -N", 6)):
        path.unlink(missing_ok=True)
        words = options.split()
        subprocess.run(
            ["ssh-keygen", "-q", *words, *([] if "secret" in words else [""]), "-f", str(path)], check=True
        )
        path.chmod(0o644 if status == 6 else 0o600)
        before = path.read_bytes()
        done = fleet.identity("web1")
        assert (status, "") == (done.returncode, done.stdout), done.stderr
        assert before == path.read_bytes()


def test_the_ssh_host_key_as_identity(fleet: Fleet, tmp_path: Path) -> None:
    """
    sshd's own key serves as identity by one line of the configuration: it is shown, never written to, and
    enrolled by the known_hosts that an administrator has already. Where sshd has none, none is made.
    """
    host = fleet.web("web1")
    key = host.root / "etc/ssh/ssh_host_ed25519_key"
    key.parent.mkdir()
    configured = host.certcast_toml.read_text().replace(str(fleet.identity_file("web1")), str(key))
    host.certcast_toml.write_text(configured)
    none = fleet.identity("web1")
    assert 7 == none.returncode
    assert "ssh-keygen -A" in none.stderr
    assert [] == list(key.parent.iterdir())

    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in key.parent.iterdir()}
    assert 0 == fleet.identity("web1").returncode
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"web1,10.0.0.1 {public}\ngithub.com ssh-rsa AAAA\n")
    done = fleet.host("add", "--from", str(known_hosts))
    assert 0 == done.returncode, done.stderr
    assert "left out: line 2" in done.stderr

    assert 39 == fleet.journey.pull("web1").returncode
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in key.parent.iterdir()}


def test_a_host_that_was_set_up_anew_says_so(fleet: Fleet) -> None:
    """
    A host with a new identity, or none, says so at each poll, also where nothing is due, weeks before it
    would need the key; it goes on serving. The commands that it shows mend it, and nothing stays sealed
    to the old one.
    """
    fleet.enrolled("web1")
    served = fleet.journey.served("web1")
    assert 0 == fleet.journey.pull("web1").returncode
    fleet.identity_file("web1").unlink()
    assert 7 == fleet.journey.pull("web1").returncode
    fleet.identity("web1")
    assert 34 == fleet.journey.pull("web1").returncode
    noticed = fleet.journey.pull("web1")

    assert 34 == noticed.returncode
    assert "NOT-ENROLLED" in noticed.stderr
    assert served == fleet.journey.served("web1")
    add, remove = commands(noticed.stderr)
    refused = fleet.run(add)
    assert 18 == refused.returncode
    assert [remove, add] == commands(refused.stderr)
    for command in (remove, add):
        assert 0 == fleet.run(command).returncode
    assert 0 == fleet.journey.pull("web1").returncode
    asked = len(fleet.lab.cloud.oss.requests)
    assert 0 == fleet.journey.pull("web1").returncode
    assert asked == len(fleet.lab.cloud.oss.requests)  # nothing is due any more
    assert ["example.test"] == fleet.sealed("web1")


def test_a_removed_host(fleet: Fleet) -> None:
    """
    What is sealed to a removed host is deleted, in every release and every older version of a bucket with
    versioning; the administrator is told that what it has it keeps, and how to make that worthless. It says
    so itself at its next look, the others go on, and nothing is sealed to it again.
    """
    fleet.lab.cloud.bucket.versioning = "Enabled"
    for name in ("web1", "web2"):
        fleet.enrolled(name)
    fleet.host("add", "web1", fleet.identity("web1").stdout)  # sealed anew: an older version
    fleet.journey.want_replaced()
    fleet.journey.renew()
    assert 3 == len(fleet.sealed("web1"))
    done = fleet.host("remove", "web1")

    assert 0 == done.returncode, done.stderr
    assert "web1: removed, SHA256:" in done.stdout
    assert "What web1 has fetched it still has" in done.stderr
    assert "`certcast renew --replace NAME --reason superseded`" in done.stderr
    assert [] == fleet.sealed("web1")
    assert 34 == fleet.journey.pull("web1", "--now").returncode
    assert 0 == fleet.journey.pull("web2", "--now").returncode
    assert fleet.journey.published() == fleet.journey.served("web2")
    assert fleet.journey.published() != fleet.journey.served("web1")
    fleet.journey.renew()
    assert [] == fleet.sealed("web1")
    assert 18 == fleet.host("remove", "web1").returncode


def test_hosts_where_the_publisher_cannot_sign(fleet: Fleet) -> None:
    """
    Removing a host deletes what is sealed to it also while the publisher's own files are refused: nobody has
    to sign for that. Adding one says what is wrong, and that `certcast renew` does the rest.
    """
    for name in ("web1", "web2"):
        fleet.web(name)
    fleet.host("add", "web1", fleet.identity("web1").stdout)
    public = fleet.lab.trust.signing_key.with_suffix(".pub")
    public.chmod(0o664)
    try:
        removed = fleet.host("remove", "web1")
        added = fleet.host("add", "web2", fleet.identity("web2").stdout)
    finally:
        public.chmod(0o644)

    assert 0 == removed.returncode, removed.stderr
    assert "web1: 1 sealed key of example.test deleted" in removed.stdout
    assert [] == fleet.sealed("web1")
    assert SigningFailed.exit_status == added.returncode
    assert "can be written by others" in added.stderr
    assert "web2: in the list; `certcast renew` seals to them too" in added.stderr
    fleet.journey.renew()
    assert ["example.test"] == fleet.sealed("web2")


def test_older_versions_that_may_not_be_deleted(fleet: Fleet) -> None:
    """
    Where the renewal host has no right to older versions, removing says so and that they may still be read;
    the command that it shows, run with the right, deletes them, though no listing shows the key any more.
    """
    fleet.lab.cloud.bucket.versioning = "Enabled"
    fleet.web("web1")
    fleet.host("add", "web1", fleet.identity("web1").stdout)
    usual = copy.deepcopy(fleet.lab.cloud.renewal.policies)
    for policy in fleet.lab.cloud.renewal.policies:
        for statement in policy["Statement"]:
            statement["Action"] = [a for a in statement["Action"] if a != "oss:ListObjectVersions"]
    done = fleet.host("remove", "web1")
    assert 21 == done.returncode, done.stderr
    assert "older versions of it may still be read" in done.stderr
    assert ["example.test"] == fleet.sealed("web1")

    fleet.lab.cloud.renewal.policies = usual
    again = fleet.run(commands(done.stderr)[0])
    assert 0 == again.returncode, again.stderr
    assert [] == fleet.sealed("web1")


def test_a_group_shares_one_identity(fleet: Fleet) -> None:
    """
    The hosts of a scaling group carry one identity in their image and are enrolled once, as the group;
    each of them pulls, also one that was not there at enrolment.
    """
    first = fleet.web("node1", "[consumer]\n", '[consumer]\ngroup = "pool"\n')
    shown = fleet.identity("node1")
    assert "copy this file to every host of the group" in shown.stderr
    command = next(
        line.strip() for line in shown.stderr.splitlines() if line.strip().startswith("certcast host")
    )
    assert command.startswith("certcast host add --group pool ")
    assert 0 == fleet.run(command).returncode
    second = fleet.web("node2", "[consumer]\n", '[consumer]\ngroup = "pool"\n')
    shutil.copy2(fleet.identity_file("node1"), fleet.identity_file("node2"))

    for host in (first, second):
        assert 39 == fleet.journey.pull(host.name).returncode
    assert f"@pool {PublicKey.parse(shown.stdout).bare}\n" == fleet.hosts_file.read_text()
    assert "@pool" in fleet.host("list").stdout


def test_a_host_with_one_of_two_certificates(lab: Lab) -> None:
    """
    A host may be enrolled for some certificates only: the others are not sealed to it, and what it is no
    longer to get is taken away.
    """
    lab.cloud.add_zone("example-two.test")
    fleet = Fleet(Journey(lab, TWO))
    fleet.journey.renew()
    fleet.web("web1")
    line = fleet.identity("web1").stdout
    done = fleet.host("add", "web1", line, "--certificate", "example.test")
    assert 0 == done.returncode, done.stderr
    assert ["example.test"] == fleet.sealed("web1")
    assert 39 == fleet.journey.pull("web1", "example.test").returncode
    assert 34 == fleet.journey.pull("web1", "example-two.test").returncode

    fleet.host("add", "web1", line)
    assert ["example-two.test", "example.test"] == fleet.sealed("web1")
    fleet.host("add", "web1", line, "--certificate", "example-two.test")
    assert ["example-two.test"] == fleet.sealed("web1")
    assert 3 == fleet.host("add", "web1", line, "--certificate", "example.tset").returncode


def test_a_key_that_two_hosts_have(fleet: Fleet) -> None:
    """A copied image brings its identity along: enrolling the copy is refused, naming both hosts."""
    fleet.web("web1")
    line = fleet.identity("web1").stdout
    fleet.host("add", "web1", line)
    done = fleet.host("add", "web2", line)

    assert 18 == done.returncode
    assert "web2 has the key of web1" in done.stderr
    assert [] == fleet.sealed("web2")


def test_enrolling_again_seals_anew(fleet: Fleet) -> None:
    """A sealed key that was damaged in the bucket is mended by the command that its host shows."""
    fleet.enrolled("web1")
    bucket = fleet.lab.cloud.bucket
    (key,) = [key for key in bucket.keys("certcast/certs/") if "/keys/web1." in key]
    stored = bucket.get(key)
    assert stored
    bucket.put(key, type(stored)(stored.body[:-1], stored.modified, stored.headers))
    damaged = fleet.journey.pull("web1", "--now")
    assert 43 == damaged.returncode
    done = fleet.run(commands(damaged.stderr)[0])

    assert 0 == done.returncode, done.stderr
    assert "web1: enrolled already" in done.stdout
    assert 0 == fleet.journey.pull("web1", "--now").returncode


def test_when_the_store_cannot_be_reached(fleet: Fleet) -> None:
    """
    Enrolling and removing hold in the list also when the store refuses; the report says what is still to
    be done there, and the next `renew`, or the command that it shows, does it. `list` lists all the same.
    """
    fleet.web("web1")
    fleet.lab.cloud.renewal.active = False
    added = fleet.host("add", "web1", fleet.identity("web1").stdout)
    listed = fleet.host("list")
    assert (21, 21) == (added.returncode, listed.returncode)
    assert "in the list; `certcast renew` seals to them too" in added.stderr
    assert "web1" in listed.stdout
    assert "?" in listed.stdout
    fleet.lab.cloud.renewal.active = True
    assert "NO: example.test" in fleet.host("list").stdout
    assert 0 == fleet.journey.renew().returncode
    assert ["example.test"] == fleet.sealed("web1")
    assert "NO" not in fleet.host("list").stdout.replace("NOT", "")

    fleet.lab.cloud.renewal.active = False
    removed = fleet.host("remove", "web1")
    assert 21 == removed.returncode
    fleet.lab.cloud.renewal.active = True
    (command,) = commands(removed.stderr)
    assert 0 == fleet.run(command).returncode
    assert [] == fleet.sealed("web1")


def test_a_list_of_hosts_is_taken_whole_or_not_at_all(fleet: Fleet, tmp_path: Path) -> None:
    """One wrong line in a list enrols nobody, and all mistakes are told; mended, it enrols everybody."""
    names = ("web1", "web2")
    for name in names:
        fleet.web(name)
    lines = [f"{name} {fleet.identity(name).stdout}" for name in names]
    path = tmp_path / "hosts.txt"
    path.write_text("".join(lines) + "web3 ssh-ed25519 AAAA\n" + lines[0].replace("web1", "web4", 1))
    refused = fleet.host("add", "--from", str(path))
    assert 18 == refused.returncode
    assert "line 3" in refused.stderr
    assert "web4 has the key of web1" in refused.stderr
    assert "" == fleet.hosts_file.read_text()

    path.write_text("".join(lines))
    done = fleet.host("add", "--from", str(path))
    assert 0 == done.returncode, done.stderr
    assert "example.test: private key sealed to web1, web2" in done.stdout


def test_a_person_sees_whom_a_list_enrols(fleet: Fleet, tmp_path: Path) -> None:
    """At a terminal a list is shown before anybody gets the key: known_hosts has strangers in it."""
    fleet.web("web1")
    path = tmp_path / "known_hosts"
    path.write_text(f"github.com {fleet.identity('web1').stdout}")
    argv = [
        CERTCAST,
        "--config",
        str(fleet.journey.renewal.certcast_toml),
        "host",
        "add",
        "--from",
        str(path),
    ]
    status, shown = answering(argv, ["n"], {**os.environ, **fleet.lab.environment("renewal")})
    assert 18 == status
    assert "github.com  SHA256:" in shown
    assert "the list was not confirmed" in shown
    assert "" == fleet.hosts_file.read_text()


@pytest.mark.parametrize(
    "name", ["../../etc/x", "web/1", "a..b", "recovery", "@", "-x", "", "web1\n", "WEB1", "x" * 64]
)
def test_names_with_tricks(name: str, tmp_path: Path) -> None:
    """What would leave a host's place in the store, or be another's, is no name to add or remove."""
    toml = tmp_path / "certcast.toml"
    toml.write_text(
        f'state_dir = "{tmp_path}/state"\n[store]\nurl = "file://{tmp_path}"\n'
        '[[certificate]]\nname = "example.test"\nnames = ["example.test"]\n'
        f'[renewal]\nhosts_file = "{tmp_path}/hosts"\nsigning_key = "{tmp_path}/publisher"\n'
    )
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBLT7YcrAqXavuSH3EMizsUpdyeOGQh4dioljbFQePA1"
    for words in (["add", "--", name, key], ["remove", "--", name]):
        done = subprocess.run(
            [CERTCAST, "--config", str(toml), "host", *words], capture_output=True, text=True, check=False
        )
        assert 18 == done.returncode, done.stderr
        assert "no name of a host" in done.stderr
    assert [toml] == [path for path in tmp_path.iterdir() if path.name != "state"]


def test_hosts_that_cannot_be_read(fleet: Fleet) -> None:
    """A hosts file that others may write, or that is no file, stops each command that needs it."""
    fleet.hosts_file.chmod(0o666)
    for done in (fleet.host("list"), fleet.host("add", "web1", "ssh-ed25519 AAAA"), fleet.journey.renew()):
        assert 18 == done.returncode, done.stderr
    fleet.hosts_file.unlink()
    fleet.hosts_file.mkdir()
    for done in (fleet.host("list"), fleet.journey.renew()):
        assert 4 == done.returncode, done.stderr


def test_enrolling_on_a_host_that_does_not_renew(fleet: Fleet) -> None:
    """The commands belong on the renewal host; elsewhere they say so and change nothing."""
    host = fleet.web("web1")
    done = fleet.lab.certcast(host.certcast_toml, "host", "list", user="consumer")
    assert 3 == done.returncode
    assert "[renewal]" in done.stderr
