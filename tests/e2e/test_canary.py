"""A whole journey with secrets that are watched: where do they turn up?

Certificate keys may lie in certcast's own store and in a host's version directories, the ACME account's
key in its folder, and AccessKeys in the environment of certcast. Anywhere else is a leak: output, mails,
logs, other files, the bucket with all its versions, command lines, other environments.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from canaries import Canaries, Processes
from certcast.config.reading import load
from certcast.notify import mail
from certcast.report.errors import Defect
from certcast_lab.aliyun.cloud import publisher_policy
from certcast_lab.lab import Lab
from certcast_lab.oss.oss_bucket import Stored
from certcast_lab.serving.authority import Authority
from certcast_lab.web.hosts import WebHost
from journey import Done, Journey

RENEWAL_SECRET = "cAnArYrEnEwAl0123456789abcdefg"
CONSUMER_SECRET = "cAnArYcOnSuMeR0123456789abcdef"
BUCKETS_SECRET = "cAnArYaWs/0123456789abcdefghijk+lmno"
PASSWORD = "canary: correct horse+battery/staple"
MAY_BE_SEEN = {"certcast": {"the renewal AccessKey", "the consumers' AccessKey", "another bucket's key"}}
PLACES = {
    "a private key": (
        "var/lib/certcast/issued/*/*/privkey.pem",
        "var/lib/certcast/certs/*/versions/*/privkey.pem",
    ),
    "the account's key": ("var/lib/certcast/acme/*/account.key",),
}


class Story:
    """One renewal host and two that serve, whose every word is kept."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.canaries = Canaries()
        self.said: list[tuple[str, str]] = []
        lab.cloud.renewal.access_key_secret = RENEWAL_SECRET
        lab.cloud.consumer.access_key_secret = CONSUMER_SECRET
        lab.cloud.bucket.versioning = "Enabled"
        lab.mailbox.require_login("certcast", PASSWORD)
        self.canaries.secret("the renewal AccessKey", RENEWAL_SECRET)
        self.canaries.secret("the consumers' AccessKey", CONSUMER_SECRET)
        self.canaries.secret("another bucket's key", BUCKETS_SECRET)
        self.canaries.secret("the mail password", PASSWORD)
        (folder / "password").write_text(PASSWORD + "\n")
        (folder / "password").chmod(0o600)
        for name in ("bin", "tmp", "seen"):
            (folder / name).mkdir()
        self._wrap("ssh-keygen")
        self.journey = Journey(lab)
        self._with_password(self.journey.renewal)
        for key in (lab.trust.signing_key, lab.trust.spare_key):
            self.canaries.key(key.name, key.read_bytes())
        age = lab.trust.recovery_identity.read_text()
        self.canaries.secret("the recovery identity", age.splitlines()[-1])

    def host(self, name: str) -> WebHost:
        """Return a host whose nginx commands show what they were given."""
        host = self.journey.consumer(name)
        wrapper = self._wrap("nginx")
        text = host.certcast_toml.read_text()
        assert text.count('= ["nginx"') == 2, text
        host.certcast_toml.write_text(text.replace('= ["nginx"', f'= ["{wrapper}"'))
        self._with_password(host)
        identity = self.lab.trust.identity(name)
        self.canaries.key(f"the identity of {name}", identity.read_bytes())
        return host

    def _with_password(self, host: WebHost) -> None:
        text = host.certcast_toml.read_text()
        login = f'security = "starttls"\nusername = "certcast"\npassword_file = "{self.folder}/password"'
        assert 'security = "starttls"' in text
        host.certcast_toml.write_text(text.replace('security = "starttls"', login))

    def _wrap(self, program: str) -> Path:
        """Put a script before a program that writes down its arguments and its environment."""
        wrapper, real = self.folder / "bin" / program, shutil.which(program)
        wrapper.write_text(
            f"#!/bin/sh\ncat /proc/$$/cmdline /proc/$$/environ >> {self.folder}/seen/{program}\n"
            f'exec {real} "$@"\n'
        )
        wrapper.chmod(0o700)
        return wrapper

    def run(self, host: WebHost, *arguments: str) -> Done:
        """Run certcast on a host, with a folder of its own for temporary files."""
        done = self.lab.certcast(
            host.certcast_toml,
            *arguments,
            user="renewal" if host is self.journey.renewal else "consumer",
            extra={
                "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
                "TMPDIR": str(self.folder / "tmp"),
                "AWS_SECRET_ACCESS_KEY": BUCKETS_SECRET,
            },
        )
        self.said.append((" ".join(arguments), done.stdout + done.stderr))
        # What was made by now is looked for from now on.
        made = self.journey.renewal.certcast_folder
        for path in made.glob("issued/*/*/privkey.pem"):
            self.canaries.key("a private key", path.read_bytes())
        for path in made.glob("acme/*/account.key"):
            self.canaries.key("the account's key", path.read_bytes())
        return done

    def allowed(self, path: Path, names: set[str]) -> bool:
        """Whether these secrets may be here: one of a kind, in a file of its owner alone, in its place."""
        places = [place for name in names for place in PLACES.get(name, ())] if len(names) == 1 else []
        return path.stat().st_mode & 0o777 == 0o600 and any(path.match(place) for place in places)

    def leaks(self) -> list[tuple[str, str, set[str]]]:
        """Return every place outside of processes where a secret is and should not be."""
        found = [("output", what, self.canaries.found(text.encode())) for what, text in self.said]
        roots = [host.root for host in self.lab.hosts.values()]
        found += [
            ("file", str(path), names)
            for path, names in self.canaries.in_files(
                *roots, self.folder / "tmp", self.folder / "seen"
            ).items()
            if not self.allowed(path, names)
        ]
        found += [
            ("mail", one.subject, self.canaries.found(one.message.as_bytes() + one.text.encode()))
            for one in self.lab.mailbox.messages
        ]
        found += [
            ("bucket", key, self.canaries.found(version.stored.body))
            for key, version in self.lab.cloud.bucket.versions()
            if version.stored
        ]
        return [one for one in found if one[2]]


@pytest.fixture
def story(lab: Lab, tmp_path: Path) -> Story:
    return Story(lab, tmp_path)


def test_no_secret_leaves_its_place(story: Story) -> None:
    """
    Two certificates in a row, two hosts, pulls and renewals that fail, mails about all of it: neither a
    private key, nor the account's, nor an AccessKey, nor a password is anywhere but where it belongs.
    """
    journey, lab, canaries = story.journey, story.lab, story.canaries
    renewal = journey.renewal
    with canaries.watching() as processes:
        assert 0 == story.run(renewal, "renew").returncode
        web1, web2 = story.host("web1"), story.host("web2")
        for host in (web1, web2):
            assert 39 == story.run(host, "pull").returncode
            host.include(host.certcast_folder / "certs/example.test/nginx.conf")
            assert 0 == story.run(host, "pull").returncode
        journey.want_replaced()
        rights, lab.cloud.renewal.policies = lab.cloud.renewal.policies, [publisher_policy()]
        assert 12 == story.run(renewal, "renew").returncode
        lab.cloud.renewal.policies, lab.cloud.renewal.active = rights, False
        assert 21 == story.run(renewal, "renew").returncode
        lab.cloud.renewal.active = True
        assert 0 == story.run(renewal, "renew").returncode

        web2.break_configuration()
        assert 36 == story.run(web2, "pull", "--now").returncode
        web2.mend()
        assert 0 == story.run(web2, "pull", "--now").returncode
        with damaged_key(lab, "web1"):
            assert 43 == story.run(web1, "pull", "--now").returncode
        assert 0 == story.run(web1, "pull", "--now").returncode

        for words in (["check"], ["identity"], ["publisher", "show"], ["host", "list"], ["policy", "dns"]):
            story.run(renewal, *words)
    assert journey.live().leaf.sha256 == journey.served("web1") == journey.served("web2")

    leaks = story.leaks()
    assert [] == leaks
    assert unexpected(processes) == set()
    assert {"nginx", "certcast", "tls_client.py"} <= processes.kinds
    assert {"nginx", "ssh-keygen"} == {path.name for path in (story.folder / "seen").iterdir()}
    assert len(lab.mailbox.messages) >= 5
    # Nothing under a shared temporary folder, and nothing of ours that others may read.
    assert [] == list((story.folder / "tmp").iterdir())
    ours = [path for host in lab.hosts.values() for path in host.certcast_folder.rglob("*")]
    assert [] == [path for path in ours if not path.is_symlink() and path.stat().st_mode & 0o077]


def unexpected(processes: Processes) -> set[tuple[str, str, str]]:
    """Return what was seen where it should not be: AccessKeys are for certcast to read."""
    return {
        (kind, where, name)
        for kind, where, name in processes.hits
        if where != "environment" or name not in MAY_BE_SEEN.get(kind, ())
    }


@contextlib.contextmanager
def damaged_key(lab: Lab, host: str) -> Iterator[None]:
    """Let what is sealed to a host have a wrong octet while the block lasts."""
    bucket = lab.cloud.bucket
    manifest = bucket.get("certcast/certs/example.test/manifest")
    assert manifest
    sealed = [key for key in bucket.keys("certcast/certs/") if f"/keys/{host}." in key]
    (key,) = (key for key in sealed if leaf_of(key) in manifest.body)
    good = bucket.get(key)
    assert good
    body = bytearray(good.body)
    body[-20] ^= 1
    bucket.put(key, replace(good, body=bytes(body)))
    yield
    bucket.put(key, good)


def leaf_of(key: str) -> bytes:
    """Return the leaf of an object key certs/NAME/releases/LEAF/…"""
    return key.split("/")[4].encode()


def test_the_search_finds_a_leak_in_each_channel(story: Story, tmp_path: Path) -> None:
    """The test above can fail: a key that is left in any of the places is found there, and only there."""
    pem = Authority("A CA").issue("example.test").key_pem
    story.canaries.key("a private key", pem)
    root, bucket = story.journey.renewal.root, story.lab.cloud.bucket
    issued = root / "var/lib/certcast/issued/example.test/1-0123456789abcdef"
    version = root / "var/lib/certcast/certs/example.test/versions/1-0123456789abcdef"
    for folder in (issued, version, root / "var/log"):
        folder.mkdir(parents=True, exist_ok=True)
    for path in (issued / "privkey.pem", version / "privkey.pem"):
        path.write_bytes(pem)
        path.chmod(0o600)
    assert [] == story.leaks()

    story.said.append(("renew", f"found  {pem.decode()}"))
    assert [("output", "renew", {"a private key"})] == story.leaks()
    story.said.clear()
    for path, content in (
        (root / "var/log/debug.log", repr(pem).encode()),
        (version / "combined.pem", pem),
        (issued / "fullchain.pem", pem),
        (tmp_path / "tmp/x", pem[60:150]),
        (root / "password.bak", PASSWORD.encode()),
    ):
        path.write_bytes(content)
        assert [("file", str(path))] == [one[:2] for one in story.leaks()]
        path.unlink()
    (issued / "privkey.pem").chmod(0o644)
    assert [("file", str(issued / "privkey.pem"))] == [one[:2] for one in story.leaks()]
    (issued / "privkey.pem").chmod(0o600)

    bucket.put("certcast/hosts/web1.json", Stored(pem, 0))
    bucket.put("certcast/hosts/web1.json", Stored(b"{}", 0))
    bucket.delete("certcast/hosts/web1.json")
    assert [("bucket", "certcast/hosts/web1.json", {"a private key"})] == story.leaks()
    for _, one in bucket.versions("certcast/hosts/"):
        bucket.delete_version("certcast/hosts/web1.json", one.id)

    config = load(story.journey.renewal.certcast_toml).mail
    now = datetime.now(timezone.utc)
    secret = f"{RENEWAL_SECRET[:15]}\n{RENEWAL_SECRET[15:]}"  # what no redaction recognises
    story.canaries.secret("half of it", RENEWAL_SECRET[15:])
    mail.send_failure(config, Defect(secret), host="web1", doing="pull", certificate=None, now=now)
    assert [("mail", {"half of it"})] == [(one[0], one[2]) for one in story.leaks()]


@pytest.mark.parametrize("where", ["argv", "environment"])
def test_the_search_finds_a_leak_in_each_process(story: Story, where: str) -> None:
    """A secret in a command line or an environment is seen, in children of children too."""
    words, more = ([PASSWORD], {}) if where == "argv" else ([], {"PW": PASSWORD})
    # `cat` is a child of the shell, and waits for input that ends with the block.
    argv = ["sh", "-c", "cat; :", "sh", *words]
    with (
        story.canaries.watching() as processes,
        subprocess.Popen(argv, env={**os.environ, **more}, stdin=subprocess.PIPE),
    ):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not unexpected(processes):
            time.sleep(0.01)
    assert {(where, "the mail password")} == {hit[1:] for hit in unexpected(processes)}


@pytest.mark.parametrize(
    "form",
    [
        lambda pem, number: pem,
        lambda pem, number: repr(pem).encode(),
        lambda pem, number: pem.splitlines()[1],
        lambda pem, number: b"".join(pem.splitlines()[1:-1]),
        lambda pem, number: b"x" + number + b"x",
        lambda pem, number: number.hex().encode(),
        lambda pem, number: b":".join([number.hex().upper().encode()]),
        lambda pem, number: base64.b64encode(b"x" + number + b"yz"),
        lambda pem, number: str(int.from_bytes(number, "big")).encode(),
    ],
    ids=["file", "repr", "a line", "without line ends", "binary", "hex", "HEX", "base64", "decimal"],
)
def test_a_private_key_is_found_in_any_form(form: Callable[[bytes, bytes], bytes]) -> None:
    """However a key is written, the search knows it; and its certificate is no key."""
    pair = Authority("A CA").issue("example.test")
    key = load_pem_private_key(pair.key_pem, None)
    assert isinstance(key, EllipticCurvePrivateKey)
    number = key.private_numbers().private_value.to_bytes(32, "big")
    canaries = Canaries()
    canaries.key("key", pair.key_pem)
    assert {"key"} == canaries.found(b"before " + form(pair.key_pem, number) + b" after")
    assert set() == canaries.found(pair.fullchain_pem)
