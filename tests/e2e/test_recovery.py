"""What docs/runbook.md says of lost hosts, played on real parts with the commands that stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from answering import answering
from certcast.config.reading import load
from certcast.release import manifest, signing
from certcast.release.manifest import Manifest
from certcast.release.ssh_keys import PublicKey
from certcast_lab.aliyun.cloud import PREFIX
from certcast_lab.configuration import renewal_toml
from certcast_lab.lab import Lab
from certcast_lab.oss.oss_bucket import Stored
from certcast_lab.web.hosts import WebHost
from journey import CERTBOT, Done, Journey

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"
WORDS = "correct-horse-battery"
PUBLISHERS = r"(?ms)^publishers = \[.*?\]$"


class Company:
    """A fleet whose publisher was made by `certcast publisher init`; `safe` is what no machine has.

    The list of hosts is in configuration management: it is the lab's, outside of any host.
    """

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.journey = Journey(lab)
        self.safe = folder / "safe"
        self.safe.mkdir()
        self.words = self.safe / "words"
        self.words.write_text(WORDS)
        self.words.chmod(0o600)
        self.renewal = self.journey.renewal
        self.install_renewal(self.renewal, lab.trust.publishers)
        self.kit = self.safe / "kit.age"
        done = self.publisher("init", "--kit", str(self.kit))
        assert 0 == done.returncode, done.stderr
        self.pins = self.printed(done)
        self.pin(self.renewal, self.pins)

    def install_renewal(self, host: WebHost, pins: list[str]) -> None:
        """Write a renewal host's configuration; its keys lie on the host itself."""
        text = renewal_toml(self.lab, host, self.journey.certificates, serves=False)
        key = re.search(r'(?m)^signing_key = "(.*)"$', text)
        assert key
        host.certcast_toml.write_text(text.replace(key[1], str(host.root / "etc/certcast/publisher")))
        self.pin(host, pins)

    def pin(self, host: WebHost, pins: list[str]) -> None:
        """Exchange the line `publishers` in a host's configuration."""
        text = host.certcast_toml.read_text()
        line = f"publishers = {json.dumps(pins)}"
        assert re.search(PUBLISHERS, text)
        host.certcast_toml.write_text(re.sub(PUBLISHERS, lambda _: line, text))

    def printed(self, done: Done) -> list[str]:
        """Return the first line `publishers` that a command printed for somebody to paste."""
        found = re.search(PUBLISHERS, done.stdout + done.stderr)
        assert found, done.stdout + done.stderr
        return [str(line) for line in json.loads(found[0].removeprefix("publishers = "))]

    def certcast(self, *arguments: str) -> Done:
        """Run a command on the renewal host of the day."""
        return self.lab.certcast(self.renewal.certcast_toml, *arguments, user="renewal")

    def publisher(self, *arguments: str) -> Done:
        """Run `certcast publisher …` with the passphrase from the safe."""
        return self.certcast("publisher", *arguments, "--passphrase-file", str(self.words))

    def renew(self, *arguments: str) -> None:
        done = self.certcast("renew", *arguments)
        assert 0 == done.returncode, done.stderr

    def serve(self, name: str) -> WebHost:
        """Bring a host that pins both keys to where it serves what is published."""
        host = self.journey.consumer(name)
        self.pin(host, self.pins)
        assert 39 == self.journey.pull(name).returncode
        host.include(host.certcast_folder / "certs/example.test/nginx.conf")
        self.takes_over(name)
        return host

    def takes_over(self, name: str) -> None:
        """Let a host look at the store, and serve what is published there."""
        done = self.journey.pull(name, "--now")
        assert 0 == done.returncode, done.stderr
        assert self.journey.served(name) == self.journey.published()

    def burn(self) -> None:
        """Lose the renewal host with its whole disk; its name is given to no other."""
        shutil.rmtree(self.renewal.root)
        self.renewal = self.lab.host("renewal2")

    @property
    def stored(self) -> dict[str, bytes]:
        """Return the objects below the certificate's prefix."""
        bucket = self.lab.cloud.bucket
        prefix = f"{PREFIX}/certs/example.test/"
        found = {key.removeprefix(prefix): bucket.get(key) for key in bucket.keys(prefix)}
        return {key: stored.body for key, stored in found.items() if stored}

    def put_back(self, objects: dict[str, bytes]) -> None:
        """Write objects below the certificate's prefix, as somebody does who may write to the bucket."""
        for key, body in objects.items():
            self.lab.cloud.bucket.put(f"{PREFIX}/certs/example.test/{key}", Stored(body, int(time.time())))

    @property
    def manifest(self) -> Manifest:
        """Return what is published, as a host reads it that pins what the first `init` printed."""
        config = load(self.renewal.certcast_toml)
        pins = [PublicKey.parse(line) for line in self.pins]
        document = signing.verify(self.stored["manifest"], pins, what="the manifest").document
        return manifest.read(document, store=config.store.url, certificate="example.test")

    @property
    def signer(self) -> str:
        """Return the fingerprint of the key that has signed what is published."""
        config = load(self.renewal.certcast_toml)
        assert config.renewal
        pins = [PublicKey.parse(line) for line in self.pins]
        return signing.verify(self.stored["manifest"], pins, what="the manifest").publisher


@pytest.fixture
def company(lab: Lab, tmp_path: Path) -> Company:
    return Company(lab, tmp_path)


def commands(section: str) -> list[str]:
    """Return the shell blocks of a section of the runbook, in order."""
    text = RUNBOOK.read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"(?ms)^```sh\n(.*?)^```$", text)


def by_hand(folder: Path, script: str, *answers: str) -> tuple[int, str]:
    """Run a block in a folder, as a person who pastes it at a terminal; it ends at the first failure."""
    return answering(["sh", "-ec", f"cd '{folder}'\n{script}"], answers)


# -- the renewal host burned down


def test_the_renewal_host_burned_down(company: Company) -> None:
    """
    With kit, passphrase and configuration alone, a new machine gets a new certificate and publishes it
    with the next sequence; hosts install it without any change on them.
    """
    company.renew()
    company.serve("web1")
    lost = company.manifest
    company.burn()
    company.install_renewal(company.renewal, company.pins)

    rotated = company.publisher("rotate", "--kit", str(company.kit), "--new-kit", str(company.safe / "2.age"))
    assert 0 == rotated.returncode, rotated.stderr
    company.pin(company.renewal, company.printed(rotated))
    company.renew("--now")

    assert lost.sequence + 1 == company.manifest.sequence
    assert lost.leaf.sha256 != company.manifest.leaf.sha256
    assert PublicKey.parse(company.pins[1]).fingerprint == company.signer
    company.takes_over("web1")

    # The new kit is worth something: every host that is told of it takes what its spare key signs.
    company.pin(company.lab.host("web1"), company.printed(company.certcast("publisher", "show")))
    company.takes_over("web1")


def test_a_new_machine_with_the_public_files_of_the_lost_one(company: Company) -> None:
    """
    Where configuration management puts the public halves back, and the key is gone, `rotate` and step 2
    of the runbook are all that is needed, too: what the lost host signed counts as long as that line says so.
    """
    company.renew()
    lost = company.manifest
    etc = company.renewal.root / "etc/certcast"
    public = {path.name: path.read_bytes() for path in etc.glob("publisher*.pub")}
    company.burn()
    company.install_renewal(company.renewal, company.pins)
    for name, body in public.items():
        path = company.renewal.root / "etc/certcast" / name
        path.write_bytes(body)
        path.chmod(0o644)
    rotated = company.publisher("rotate", "--kit", str(company.kit), "--new-kit", str(company.safe / "2.age"))
    assert 0 == rotated.returncode, rotated.stderr
    company.pin(company.renewal, company.printed(rotated))
    company.renew("--now")
    assert lost.sequence + 1 == company.manifest.sequence


def test_new_machine_without_the_lost_key(company: Company) -> None:
    """
    Where step 2 of the runbook was left out, `renew --now` ends in SIGNATURE, orders and publishes nothing,
    so no sequence is used twice; afterwards the same command goes on, with one order.
    """
    company.renew()
    before = company.stored["manifest"]
    company.burn()
    company.install_renewal(company.renewal, [])
    rotated = company.publisher("rotate", "--kit", str(company.kit), "--new-kit", str(company.safe / "2.age"))
    orders = company.lab.renewal_info.orders
    refused = company.certcast("renew", "--now")
    assert 33 == refused.returncode, refused.stderr
    assert "store.publishers" in refused.stderr
    assert (before, orders) == (company.stored["manifest"], company.lab.renewal_info.orders)

    company.pin(company.renewal, company.printed(rotated))
    company.renew("--now")
    assert 2 == company.manifest.sequence
    assert orders + 1 == company.lab.renewal_info.orders == company.lab.renewal_info.issued


def test_the_renewal_host_was_stolen(company: Company, tmp_path: Path) -> None:
    """
    Nothing that the thief signs counts on the new machine: the manifest is deleted, and published anew above
    what hosts have seen; a host that was told of the new keys believes the stolen one no more. The kit opens
    the stolen private key, with which the CA revokes its certificate.
    """
    company.renew()
    web1 = company.serve("web1")
    by_thief, stolen = company.stored, company.manifest.leaf
    company.burn()
    company.install_renewal(company.renewal, [])
    rotated = company.publisher("rotate", "--kit", str(company.kit), "--new-kit", str(company.safe / "2.age"))
    company.lab.cloud.bucket.delete(f"{PREFIX}/certs/example.test/manifest")
    company.renew()
    seen = json.loads((web1.certcast_folder / "certs/example.test/state.json").read_text())["sequence"]
    done = company.certcast("publish", "example.test", "--at-least", str(seen))
    assert 0 == done.returncode, done.stderr
    assert seen + 1 == company.manifest.sequence
    company.takes_over("web1")

    company.pin(web1, company.printed(rotated)[1:])
    company.put_back({"manifest": by_thief["manifest"]})
    assert 33 == company.journey.pull("web1", "--now").returncode

    folder = tmp_path / "by-hand"
    downloaded(by_thief, folder, company.kit)
    opening, *_ = commands("Without certcast")
    assert 0 == by_hand(folder, opening, WORDS)[0]
    (revoking,) = commands("The renewal host burned down")
    assert 0 == certbot(company, folder, revoking)
    status = company.lab.pebble.certificate_status(int(stolen.serial, 16))
    assert status is not None
    assert status.revoked


def certbot(company: Company, folder: Path, command: str) -> int:
    """Run the runbook's command with this environment's certbot, against the lab's CA; return its status."""
    mine = ["--server", company.lab.directory_url, "--non-interactive"]
    for option in ("config", "work", "logs"):
        mine += [f"--{option}-dir", str(folder / option)]
    argv = [CERTBOT, *command.split()[1:], *mine]
    environment = {**os.environ, **company.lab.environment("renewal")}
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, check=False).returncode


# -- the key is exchanged


def test_rotate_goes_unnoticed_by_hosts(company: Company) -> None:
    """
    After `rotate` on a living renewal host, the next `renew` signs the same release again under the same
    sequence; hosts take it without a change, and go on when they pin only the new keys.
    """
    company.renew()
    web1 = company.serve("web1")
    before, served = company.manifest, company.journey.served("web1")
    rotated = company.publisher("rotate", "--kit", str(company.kit), "--new-kit", str(company.safe / "2.age"))
    assert 0 == rotated.returncode, rotated.stderr
    company.pin(company.renewal, company.printed(rotated))
    company.renew()

    assert PublicKey.parse(company.pins[1]).fingerprint == company.signer
    assert before.same_release(company.manifest)
    company.takes_over("web1")
    company.pin(web1, company.printed(rotated))
    company.takes_over("web1")
    assert served == company.journey.served("web1")


@pytest.mark.parametrize("pinned", ["both keys", "the former one too"])
def test_a_thief_of_the_former_key_is_not_believed(company: Company, pinned: str) -> None:
    """
    What is signed with the exchanged key, other than this host's own last words, is an alarm on the renewal
    host; its sequence is not taken up, and the right manifest is put back. That is so as soon as the keys
    are exchanged, whatever its own store.publishers still says.
    """
    company.renew()
    stolen = company.safe / "stolen"
    former = company.pins[0]
    shutil.copy(company.renewal.root / "etc/certcast/publisher", stolen)
    rotated = company.publisher("rotate", "--kit", str(company.kit), "--new-kit", str(company.safe / "2.age"))
    now = company.printed(rotated)
    company.pin(company.renewal, now if pinned == "both keys" else [former, *now])
    forged = replace(company.manifest, sequence=50)
    company.put_back({"manifest": signing.sign(manifest.write(forged), stolen)})

    refused = company.certcast("renew")
    assert 33 == refused.returncode, refused.stderr
    assert 1 == company.manifest.sequence
    assert PublicKey.parse(company.pins[1]).fingerprint == company.signer


def test_a_new_kit_opens_what_is_published(company: Company) -> None:
    """After `certcast publisher kit`, the next `renew` seals to the new kit, and to the lost one no more."""
    company.renew()
    (before,) = [key for key in company.stored if "/recovery." in key]
    new = company.safe / "2.age"
    assert 0 == company.publisher("kit", "--replace", "--kit", str(new)).returncode
    company.renew()
    (after,) = [key for key in company.stored if "/recovery." in key]
    assert before != after
    downloaded(company.stored, company.safe, new)
    first, *_ = commands("Without certcast")
    status, shown = by_hand(company.safe, first, WORDS)
    assert 0 == status, shown


# -- without certcast


def downloaded(objects: dict[str, bytes], folder: Path, kit: Path) -> None:
    """Put into a folder what a person downloads from the bucket's console, and the kit."""
    folder.mkdir(exist_ok=True)
    if kit.parent != folder or kit.name != "kit.age":
        shutil.copy(kit, folder / "kit.age")
    for key, body in objects.items():
        folder.joinpath(key.rpartition("/")[2]).write_bytes(body)


def test_a_private_key_is_recovered_without_certcast(company: Company, tmp_path: Path) -> None:
    """
    The runbook's commands, with Debian's age, openssl and ssh-keygen alone: the kit gives the private key, it
    belongs to the certificate, and the certificate is the one that the publisher signed.
    """
    company.renew()
    folder = tmp_path / "by-hand"
    downloaded(company.stored, folder, company.kit)
    key, match, signature, _host = commands("Without certcast")

    status, shown = by_hand(folder, key, WORDS)
    assert 0 == status, shown
    assert company.journey.live().privkey == (folder / "privkey.pem").read_bytes()
    assert {0o600} == {
        (folder / name).stat().st_mode & 0o777 for name in ("kit.txt", "recovery", "privkey.pem")
    }

    status, shown = by_hand(folder, match)
    assert (0, 1) == (status, len({line.split()[0] for line in shown.splitlines()}))

    status, shown = by_hand(folder, signature)
    assert 0 == status, shown
    assert 'Good "certcast-manifest" signature for certcast' in shown
    assert f'"sha256": "{company.journey.published()}"' in shown


def test_a_changed_manifest_is_seen_without_certcast(company: Company, tmp_path: Path) -> None:
    """The runbook's commands refuse a manifest with a digit changed, and a certificate of another name."""
    company.renew()
    folder = tmp_path / "by-hand"
    downloaded(company.stored, folder, company.kit)
    key, _match, signature, _host = commands("Without certcast")
    assert 0 == by_hand(folder, key, WORDS)[0]

    good = (folder / "manifest").read_text()
    (folder / "manifest").write_text(good.replace('"sequence": 1', '"sequence": 2'))
    status, shown = by_hand(folder, signature)
    assert status != 0
    assert "Good" not in shown

    (folder / "manifest").write_text(good)
    shutil.copy(company.lab.roots_file, folder / "fullchain.pem")
    status, shown = by_hand(folder, signature)
    assert status != 0
    assert '"sha256"' not in shown


def test_a_host_opens_its_own_key_without_certcast(company: Company, tmp_path: Path) -> None:
    """On a host, plain `age` with the host's identity opens what is sealed to it, and only that."""
    company.renew()
    downloaded(company.stored, tmp_path / "by-hand", company.kit)
    (command,) = [block for block in commands("Without certcast") if "/etc/certcast/identity" in block]
    mine = command.replace("/etc/certcast/identity", str(company.lab.trust.identity("web1")))
    status, shown = by_hand(tmp_path / "by-hand", mine)
    assert 0 == status, shown
    assert company.journey.live().privkey == (tmp_path / "by-hand/privkey.pem").read_bytes()

    status, shown = by_hand(tmp_path / "by-hand", mine.replace("web1.*.age", "web2.*.age"))
    assert status != 0
    assert "no identity matched" in shown


# -- restored from an old backup


def backup(company: Company) -> Path:
    """Copy the renewal host's disk."""
    copy = company.safe / "backup"
    shutil.copytree(company.renewal.root, copy, symlinks=True)
    return copy


def restore(company: Company, copy: Path) -> None:
    """Put the copy in place of what the renewal host has now."""
    for name in ("etc", "var"):
        shutil.rmtree(company.renewal.root / name)
        shutil.copytree(copy / name, company.renewal.root / name, symlinks=True)


def test_restored_from_an_old_backup(company: Company) -> None:
    """
    A renewal host with yesterday's files publishes nothing older, and says so by mail; the runbook's command
    gets a new certificate, under a sequence that nobody has seen.
    """
    company.renew()
    copy = backup(company)
    company.journey.want_replaced()
    company.renew()
    company.serve("web1")
    today, stored = company.manifest, company.stored
    restore(company, copy)
    company.lab.renewal_info.reset()
    company.lab.mailbox.clear()

    refused = company.certcast("renew")
    assert 16 == refused.returncode, refused.stderr
    assert "older than the published one" in refused.stderr
    assert ["LINEAGE" in mail.text for mail in company.lab.mailbox.messages] == [True]
    assert stored == company.stored
    company.takes_over("web1")
    assert today.leaf.sha256 == company.journey.served("web1")

    (command,) = re.findall(
        r"(?m)^    certcast (renew .*)$", RUNBOOK.read_text().split("## Restored from")[1]
    )
    done = company.certcast(*command.replace("example.com", "example.test").split())
    assert 0 == done.returncode, done.stderr
    assert today.sequence < company.manifest.sequence
    company.takes_over("web1")
    assert today.leaf.sha256 != company.journey.served("web1")


def test_renewal_host_and_store_were_set_back(company: Company) -> None:
    """
    Where the store is yesterday's too, hosts refuse the lower sequence, and then the one that is used twice,
    and say which; `publish --at-least` goes above it, and they install.
    """
    company.renew()
    copy, yesterday = backup(company), company.stored
    company.journey.want_replaced()
    company.renew()
    company.serve("web1")
    served = company.journey.served("web1")
    restore(company, copy)
    for key in company.stored:
        company.lab.cloud.bucket.delete(f"{PREFIX}/certs/example.test/{key}")
    company.put_back(yesterday)
    refused = company.journey.pull("web1", "--now")
    assert 27 == refused.returncode, refused.stderr
    company.journey.want_replaced()
    company.renew()
    refused = company.journey.pull("web1", "--now")
    assert 26 == refused.returncode, refused.stderr
    assert served == company.journey.served("web1")

    (command,) = re.findall(
        r"(?m)^    certcast (publish .*)$", RUNBOOK.read_text().split("## Restored from")[1]
    )
    done = company.certcast(*command.replace("example.com", "example.test").split())
    assert 0 == done.returncode, done.stderr
    assert 8 == company.manifest.sequence
    company.takes_over("web1")
    assert served != company.journey.served("web1")
