"""Secrets and those who want them: files that others may read, planted links, hostile hook variables.

What reaches outputs, logs, mails and processes during a whole journey is in e2e/test_canary.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from certcast import credentials
from certcast.acme import account, limits, pending
from certcast.acme.issued import PlacedOrder
from certcast.acme.pending import Pending
from certcast.config import reading
from certcast.config.model import AbsolutePath, KeySource, MailAddress, MailConfig
from certcast.dns01.ledger import Entry, Ledger, Process
from certcast.notify import mail
from certcast.renewal import last_look
from certcast.report.errors import CertcastError, LocalFault, MailNotSent, SecretExposed
from certcast_lab.lab import CERTCAST, Lab
from consuming import DAY, Consumer, consumer, program
from journey import Done, Journey


@pytest.fixture
def web(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Consumer]:
    """A host with a real nginx and a store in a folder."""
    with consumer(tmp_path, program=program(request)) as made:
        yield made


# -- files with secrets


def test_a_mail_password_that_others_may_read_is_not_used(lab: Lab, tmp_path: Path) -> None:
    """
    Nobody logs in with a password that any user of the host could have read: the mail is not sent,
    which is said beside the failure that it was about, with the command that mends it.
    """
    password_file = tmp_path / "smtp-password"
    password_file.write_text("correct horse")
    password_file.chmod(0o644)
    lab.mailbox.require_login("certcast", "correct horse")
    settings = MailConfig(
        host="localhost",
        port=lab.mailbox.ports["tls"],
        sender=MailAddress("certcast@web1.example.test"),
        failures_to=(MailAddress("it@example.test"),),
        ca_file=AbsolutePath(lab.ca_file),
        username="certcast",
        password_file=AbsolutePath(password_file),
    )
    told = {"host": "web1", "doing": "pull", "certificate": "example.test", "now": DAY}
    with pytest.raises(MailNotSent) as caught:
        mail.send_failure(settings, LocalFault("no room"), **told)
    assert "others may read the mail password" in str(caught.value.found)
    assert "mode 0644" in str(caught.value.found)
    assert [] == lab.mailbox.messages

    subprocess.run(["sh", "-c", str(caught.value.next).split("`")[1]], check=True)
    mail.send_failure(settings, LocalFault("no room"), **told)
    assert 1 == len(lab.mailbox.messages)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with keys for the official command line tool, and for the SDKs' own file."""
    for name in list(os.environ):
        if name.startswith("ALIBABA_CLOUD_") and name != "ALIBABA_CLOUD_ECS_METADATA_DISABLED":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    profile = {"name": "acme", "mode": "AK", "access_key_id": "LTAIx", "access_key_secret": "secret-x"}
    for name, text in (
        (".aliyun/config.json", json.dumps({"current": "acme", "profiles": [profile]})),
        (".alibabacloud/credentials.ini", "[default]\ntype = access_key\n"),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    return tmp_path


@pytest.mark.parametrize(
    ("source", "file"),
    [
        (KeySource(profile="acme"), ".aliyun/config.json"),
        (KeySource(), ".aliyun/config.json"),
        (KeySource(), ".alibabacloud/credentials.ini"),
    ],
)
def test_accesskeys_readable_by_the_group(home: Path, source: KeySource, file: str) -> None:
    """A profile, and each file of the official chain: refused before it is used, naming the file."""
    (home / file).chmod(0o640)
    with pytest.raises(SecretExposed, match="others may read the AccessKey") as caught:
        credentials.provider(source)
    assert str(home / file) in caught.value.report()
    (home / file).chmod(0o600)
    credentials.provider(source)


def test_a_file_that_is_not_asked_for_keys_is_nobodys_business(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With keys in the environment, or the tool's file switched off, its mode stops nothing."""
    (home / ".aliyun/config.json").chmod(0o644)
    monkeypatch.setenv("ALIBABA_CLOUD_CLI_PROFILE_DISABLED", "true")
    credentials.provider(KeySource())
    monkeypatch.delenv("ALIBABA_CLOUD_CLI_PROFILE_DISABLED")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAIy")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "secret-y")
    assert "LTAIy" == credentials.provider(KeySource())().access_key_id


def test_renew_with_exposed_accesskeys(lab: Lab) -> None:
    """`certcast renew` with a config.json that others may read: exit status 6, one mail, no request."""
    journey = Journey(lab)
    home = journey.renewal.root / "home"
    (home / ".aliyun").mkdir(parents=True)
    keys = lab.cloud.renewal
    profile = {"name": "a", "mode": "AK", "access_key_id": keys.access_key_id}
    profile["access_key_secret"] = keys.access_key_secret
    (home / ".aliyun/config.json").write_text(json.dumps({"current": "a", "profiles": [profile]}))
    (home / ".aliyun/config.json").chmod(0o644)
    done = journey.renew_with({"HOME": str(home)}, without="ALIBABA_CLOUD_ACCESS_KEY")

    assert 6 == done.returncode, done.stderr
    assert f"chmod 600 {home}/.aliyun/config.json" in done.stderr
    assert keys.access_key_secret not in done.stderr
    assert [] == lab.cloud.alidns.log
    assert "SECRET-FILE" in lab.mailbox.messages[0].text


def open_archive(journey: Journey) -> None:
    """Let other programs into certbot's archive, as administrators do."""
    for folder in ("archive", "archive/example.test"):
        (journey.certbot_dir() / folder).chmod(0o755)


@pytest.fixture
def by_certbot(lab: Lab) -> Journey:
    """A renewal host whose certbot has issued and published, through the hooks."""
    journey = Journey(lab, by_certbot=("example.test",))
    assert 0 == issued_by_certbot(journey).returncode
    return journey


def issued_by_certbot(journey: Journey) -> Done:
    names = ("--cert-name", "example.test", "-d", "example.test", "-d", "*.example.test", "--agree-tos")
    return journey.certbot_with_hooks(
        "certonly", *names, "--register-unsafely-without-email", "--force-renewal"
    )


def test_publish_with_an_exposed_private_key(by_certbot: Journey) -> None:
    """
    certbot keeps a key's mode from one version to the next. The renewal is published, and each run ends with
    exit status 6 and a mail that name the files; the command in it ends that. A group's bits are fine, and so
    is any mode while certbot's own folder above is closed, as certbot makes it.
    """
    journey, lab = by_certbot, by_certbot.lab
    first = journey.certbot_dir() / "archive/example.test/privkey1.pem"
    first.chmod(0o644)
    assert (0, "") == (journey.renew("--now").returncode, journey.renew("--now").stderr)
    first.chmod(0o640)
    open_archive(journey)
    assert (0, "") == (journey.renew("--now").returncode, journey.renew("--now").stderr)
    first.chmod(0o644)
    lab.cloud.oss.faults.turn_on("server_error")  # so the deploy hook cannot publish
    assert 0 == issued_by_certbot(journey).returncode
    assert "2" == journey.live().version
    assert journey.live().leaf.sha256 != journey.published()
    lab.cloud.oss.faults.turn_off()
    lab.mailbox.clear()

    done = journey.renew()
    assert 6 == done.returncode, done.stderr
    assert journey.live().leaf.sha256 == journey.published()
    mail = lab.mailbox.wait_for(lambda received: "may read the private key" in received.text)
    for text in (done.stderr, mail.text):
        assert f"{first}: mode 0644" in text
        assert f"{first.with_name('privkey2.pem')}: mode 0644" in text
    assert 6 == journey.renew().returncode

    subprocess.run(done.stderr.partition("next")[2].split("`")[1], shell=True, check=True)
    assert (0, "") == (journey.renew().returncode, journey.renew().stderr)


def test_deploy_hook_with_an_exposed_private_key(by_certbot: Journey) -> None:
    """A certbot that was there before calls the hook: what it renewed is published, and the mail is sent."""
    journey, lab = by_certbot, by_certbot.lab
    assert [] == lab.mailbox.messages
    first = journey.certbot_dir() / "archive/example.test/privkey1.pem"
    first.chmod(0o604)
    open_archive(journey)

    assert 0 == issued_by_certbot(journey).returncode
    assert "2" == journey.live().version
    assert journey.live().leaf.sha256 == journey.published()
    mail = lab.mailbox.wait_for(lambda received: "may read the private key" in received.text)
    assert "hook deploy" in mail.text
    assert f"{first}: mode 0604" in mail.text


def test_every_key_of_our_own_is_private_from_its_first_moment(lab: Lab) -> None:
    """
    Whatever the umask, the account's key and each certificate's, also of the order that is under way, are
    for this user alone, and so is every folder above.
    """
    journey = Journey(lab)
    lab.acme_faults.turn_on("problem", action="finalize", times=1, status=503)
    argv = [CERTCAST, "--config", str(journey.renewal.certcast_toml), "renew"]
    usual = {**os.environ, **lab.environment("renewal")}
    state = journey.renewal.certcast_folder

    def modes() -> dict[str, set[int]]:
        keys = [path for path in state.rglob("*") if path.name in {"privkey.pem", "account.key"}]
        above = {folder for key in keys for folder in key.parents if folder.is_relative_to(state)} - {state}
        return {
            "keys": {path.stat().st_mode & 0o777 for path in keys},
            "folders": {path.stat().st_mode & 0o777 for path in above},
            "number": {len(keys)},
        }

    for status in (46, 0):
        done = subprocess.run(argv, env=usual, umask=0o000, capture_output=True, text=True, check=False)
        assert status == done.returncode, done.stderr
        assert {"keys": {0o600}, "folders": {0o700}, "number": {2}} == modes()


# -- what a crash leaves


def test_a_crash_leaves_no_core(web: Consumer, tmp_path: Path) -> None:
    """
    A certcast that crashes while it installs a key dumps no core, where the host's limit would
    allow one. What it starts may raise the limit again: nginx has a directive for that.
    """
    web.publish("A")
    web.first_pull()
    web.publish("B")
    # Stands for `nginx -t`, at the moment when the key is in certcast's memory.
    crash = tmp_path / "crash"
    crash.write_text(
        f"#!/bin/sh\ncat /proc/$PPID/limits > {tmp_path}/parent\n"
        f"cat /proc/self/limits > {tmp_path}/child\nkill -ABRT $PPID\n"
    )
    crash.chmod(0o700)
    toml = web.host.certcast_toml
    usual = json.dumps(web.host.test_command)
    assert usual in toml.read_text()
    toml.write_text(toml.read_text().replace(usual, json.dumps([str(crash)])))
    pid = os.posix_spawnp(
        "prlimit",
        ["prlimit", "--core=unlimited", CERTCAST, "--config", str(toml), "pull", "--now"],
        os.environ,
    )
    _, status = os.waitpid(pid, 0)

    assert os.WIFSIGNALED(status)
    assert signal.SIGABRT == os.WTERMSIG(status)
    assert not os.WCOREDUMP(status)
    for process in ("parent", "child"):
        assert re.search(r"Max core file size +0 +unlimited ", (tmp_path / process).read_text())


def test_a_mistake_of_ours_shows_source_lines_and_no_secret(lab: Lab) -> None:
    """
    What nobody thought of ends in a report, not in a traceback; a secret that the exception quotes
    is struck out, on stderr and in the mail.
    """
    journey = Journey(lab)
    secret = lab.cloud.renewal.access_key_secret
    script = (
        "import os, sys\n"
        "from certcast import cli\n"
        "from certcast.dns01.challenges import Challenges\n"
        "def present_orders(self, *given, **named):\n"
        "    raise RuntimeError('cannot sign with ' + os.environ['ALIBABA_CLOUD_ACCESS_KEY_SECRET'])\n"
        "Challenges.present_orders = present_orders\n"
        "sys.argv[1:] = ['--config', sys.argv[1], 'renew']\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(journey.renewal.certcast_toml)],
        env={**os.environ, **lab.environment("renewal")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 1 == done.returncode
    mailed = lab.mailbox.messages[0].text
    for text in (done.stderr, mailed):
        assert "cannot sign with [struck out]" in text
        assert secret not in text


# -- links that somebody has planted


def contents(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Everything in a folder: content, mode, time of the last change."""
    return {
        str(path): (
            path.read_bytes() if path.is_file() else b"",
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
        )
        for path in [folder, *folder.rglob("*")]
    }


@contextlib.contextmanager
def planted_link(path: Path, target: Path, aside: Path) -> Iterator[None]:
    """Put a link in the place of a path; afterwards remove it, as the report says."""
    if os.path.lexists(path):
        path.rename(aside)
    path.symlink_to(target)
    yield
    # A note of copies is renamed before it is read.
    for link in (path, path.with_name("copies-leaving.json")):
        if link.is_symlink() and str(link.readlink()) == str(target):
            link.unlink()
    if os.path.lexists(aside) and not os.path.lexists(path):
        aside.rename(path)
    elif aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    else:
        aside.unlink(missing_ok=True)


def test_nothing_is_written_through_a_link_in_a_consumers_state(web: Consumer, tmp_path: Path) -> None:
    """
    A link at any path that a pull writes, to a file, a folder or nowhere: where it leads nothing
    changes. The run replaces the link, or ends with a report; the next one, without it, is good.
    """
    web.configure(derive=("combined.pem", "chain.pem"))
    web.publish("first")
    web.first_pull()
    root, versions = web.folder.root, web.folder.versions
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "folder/.precious.new").write_text("precious")
    (outside / "file").write_text("precious")
    before = contents(outside)
    files = ["state.json", "nginx.conf", "current", "lock", "handshakes.json", ".state.json.new",
             ".nginx.conf.new", ".current.new", "copies-preparing.json", "incoming-0123abcd"]  # fmt: skip
    planted = [
        (root / name, target)
        for name in files
        for target in ("file", "folder" if name.startswith("incoming") else "nowhere")
    ]
    planted += [(folder, "folder") for folder in (versions, root, root.parent)]
    planted += [(versions / name, "folder") for name in ("99-0123456789abcdef", ".damaged-0123abcd")]
    ended: dict[str, str] = {}
    for number, (path, target) in enumerate(planted):
        with planted_link(path, outside / target, tmp_path / "aside"):
            if path not in {root.parent, root}:
                web.publish(str(number))
            try:
                ended[f"{path.name} → {target}"] = web.pull(force=True).result
            except CertcastError as error:
                ended[f"{path.name} → {target}"] = error.code
            assert before == contents(outside), path
    assert {"installed", "LOCAL"} == set(ended.values()), ended
    # Folders and the lock; and what is read first, since a file elsewhere is not what certcast wrote.
    refused = {"lock", "versions", "example.test", "certs"}
    refused |= {"state.json", "copies-preparing.json", "handshakes.json"}
    assert {name.partition(" ")[0] for name, code in ended.items() if code == "LOCAL"} == refused
    web.publish("last")
    assert "installed" == web.pull(force=True).result
    assert web.leaf("last") == web.served()
    assert [] == web.leftovers()


def test_link_in_the_renewal_hosts_state(tmp_path: Path) -> None:
    """Counts, ledger, account, locks and notes are replaced or refused; a link's target never changes."""
    state, outside = tmp_path / "state", tmp_path / "outside"
    for folder in (state / "dns01", state / "acme/ca.test", state / "issued/example.test", outside):
        folder.mkdir(parents=True)
    (outside / "file").write_text('{"records": []}')
    (outside / "limits").write_text("{}")
    before = contents(outside)
    now = datetime.now(timezone.utc)
    ledger, ca, place = Ledger(state), state / "acme/ca.test", state / "issued/example.test"
    key = ec.generate_private_key(ec.SECP256R1())
    entry = Entry(
        "_acme-challenge.example.test", "V" * 43, "example.test", "_acme-challenge", Process.current(), now
    )
    order = Pending(PlacedOrder("https://ca.test", "", "", ("example.test",), "p256", None, now), b"a key")
    look = last_look.LastLook("1-0", "0" * 64, now, now, "0", now)
    names = ("example.test",)
    writes: list[tuple[Path, Callable[[], object]]] = [
        (ca / "limits.json", lambda: limits.count_order(ca, names, now)),
        (ca / "limits.lock", lambda: limits.count_order(ca, names, now)),
        (ca / "account.key", lambda: account.save_key(ca, key)),
        (place / ".pending", lambda: pending.write(place, order)),
        (place / ".pending.new", lambda: pending.write(place, order)),
        (state / "renewing/example.test.json", lambda: last_look.write(state, "example.test", look)),
        (state / "dns01/ledger.json", lambda: ledger.put([entry])),
        (state / "dns01/.ledger.json.new", lambda: ledger.put([entry])),
        (state / "dns01/ledger.lock", lambda: ledger.put([entry])),
    ]
    refusing = {"limits.lock", "ledger.lock", ".pending", ".pending.new"}
    for path, write in writes:
        for target in ("limits" if path.name == "limits.json" else "file", "nowhere"):
            shutil.rmtree(place)
            place.mkdir()
            path.unlink(missing_ok=True)
            path.parent.mkdir(exist_ok=True)
            path.symlink_to(outside / target)
            refused: contextlib.AbstractContextManager[object] = (
                pytest.raises(LocalFault) if path.name in refusing else contextlib.nullcontext()
            )
            with refused:
                write()
            assert path.is_symlink() == (path.name in refusing), path
            assert before == contents(outside), path
        path.unlink(missing_ok=True)


def test_state_folder_writable_by_others(lab: Lab) -> None:
    """Who could forge there what was published gets nothing signed: exit status 4, and nothing is written."""
    journey = Journey(lab)
    state = reading.load(journey.renewal.certcast_toml).state_dir
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o777)
    done = journey.renew()
    assert 4 == done.returncode
    assert f"chmod go-w {state}" in done.stderr
    assert [] == [*state.iterdir()]
    assert [] == lab.cloud.alidns.log
    assert "somebody else may change" in lab.mailbox.messages[0].text

    key = lab.trust.signing_key.with_name("publisher.pub").read_text()
    for command in (
        ("renew", "--replace", "example.test", "--reason", "keyCompromise"),
        ("publish", "--at-least", "9"),
        ("host", "add", "web9", key),
        ("host", "remove", "web1"),
        ("publisher", "kit", "--replace"),
    ):
        done = lab.certcast(journey.renewal.certcast_toml, *command, user="renewal")
        assert 4 == done.returncode, (command, done.stderr)
        assert [] == [*state.iterdir()], command


# -- hostile variables

CANARY = "certcast-was-here"
HOSTILE = [
    f"$(touch {CANARY})",
    f"`touch {CANARY}`",
    f"example.test; touch {CANARY}",
    f"example.test\ntouch {CANARY}",
    f"example.test | touch {CANARY} &",
    f"' && touch {CANARY} #",
    "../../../../etc/passwd",
    "-rf /",
    "example.test\u202e",
    "\uff45xample.test",  # a full-width e
    "x" * 100_000,
]


@pytest.mark.parametrize("event", ["auth", "cleanup", "deploy"])
def test_hostile_variables_run_nothing_and_ask_nothing(lab: Lab, tmp_path: Path, event: str) -> None:
    """
    Whatever stands in CERTBOT_* and RENEWED_*, a hook ends with a report: no command runs, no API
    is called, and no file comes to be.
    """
    journey = Journey(lab)
    names = ("CERTBOT_DOMAIN", "CERTBOT_IDENTIFIER", "CERTBOT_VALIDATION", "CERTBOT_REMAINING_CHALLENGES",
             "CERTBOT_ALL_DOMAINS", "CERTBOT_AUTH_OUTPUT", "RENEWED_LINEAGE", "RENEWED_DOMAINS")  # fmt: skip
    argv = [CERTCAST, "--config", str(journey.renewal.certcast_toml), "hook", event]
    for value in HOSTILE:
        done = subprocess.run(
            argv,
            env={**os.environ, **lab.environment("renewal"), **dict.fromkeys(names, value)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in {10, 16}, (value[:50], done.stderr[:500])
        assert "" == done.stdout
        assert "Traceback" not in done.stderr
        assert len(done.stderr) < 2000
        assert [] == list(tmp_path.rglob(CANARY))
    assert [] == lab.cloud.alidns.log


def test_names_that_certbot_passes_on_are_not_believed(by_certbot: Journey, tmp_path: Path) -> None:
    """RENEWED_DOMAINS may say anything: what is published has the names of the certificate itself."""
    journey, lab = by_certbot, by_certbot.lab
    lab.cloud.bucket.delete("certcast/certs/example.test/manifest")
    lineage = journey.certbot_dir() / "live/example.test"
    for domains in (f"$(touch {CANARY})", "other.test", ""):
        done = subprocess.run(
            [CERTCAST, "--config", str(journey.renewal.certcast_toml), "hook", "deploy"],
            env={
                **os.environ,
                **lab.environment("renewal"),
                **{"RENEWED_LINEAGE": str(lineage), "RENEWED_DOMAINS": domains},
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 == done.returncode, done.stderr
        assert journey.live().leaf.sha256 == journey.published()
    assert [] == list(tmp_path.rglob(CANARY))
