"""Run certbot as a child, and say in our words how it ended.

certbot stays the ACME client; it runs in a process of its own because in-process
runs leak log handlers, os.environ and sys.excepthook (certbot 5.8), and because
its exit status and files are the interface that lasts. `certonly` with
`--keep-until-expiring` serves first issuance, renewal and a changed list of names
alike, and asks the CA's ARI by itself. `revoke` needs no lineage, only the certificate.

What our own authenticator plugin has to say comes back through CERTCAST_REPORT_FILE,
which it writes and we read: its failure, since certbot's exit status is 1 for
everything, and its warnings, since certbot's output is shown at a terminal only.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from certcast import children, errors, files
from certcast.errors import CertbotFailed, CertcastError
from certcast.renewal.interrupts import interrupts_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from certcast.config import CertificateConfig, Config, DnsConfig, RenewalConfig

PLUGIN = "certcast"  # the entry point in pyproject.toml
REPORT_FILE = "CERTCAST_REPORT_FILE"
# certbot 5.8, _internal/lock.py; its exit status is 1 like any other failure's.
_OTHER_INSTANCE = "Another instance of Certbot is already running"
_ADVICE = "NEXT STEPS:"  # certbot 5.8, _internal/main.py; only kept from the terminal
_NO_ROOM = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
# pebble: "Certificate has already been revoked."; Boulder: "… already revoked" (ra/ra.go).
_ALREADY_REVOKED = re.compile(r"already (been )?revoked", re.IGNORECASE)
_TAIL = 15  # lines of certbot's output that an error shows
_LEFT_BEHIND_SECONDS = 86400.0  # no run takes as long
_SIGNAL_SECONDS = 8.0  # until a signal is repeated; an orderly end takes two or three
# Beyond the time that DNS may take: CA, retries, hooks that the operator saved with the lineage.
_PATIENCE = 900.0


class DnsStepFailed(Exception):
    """Our plugin failed before the CA was asked to validate; `failure` says why."""

    def __init__(self, failure: CertcastError) -> None:
        super().__init__(failure.what)
        self.failure = failure


class DnsStepInterrupted(KeyboardInterrupt):
    """A signal ended the run before the CA was asked to validate."""


class _OtherInstance(Exception):
    """certbot's lock is held."""


def obtain(
    config: Config,
    renewal: RenewalConfig,
    wanted: CertificateConfig,
    *,
    force: bool,
    new_key: bool = False,
    progress: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Let certbot renew the certificate if it is due, or in any case with `force`.

    With `new_key` it makes a key also where the configuration says that the old one is reused.
    `progress` gets certbot's output line by line, `warn` our plugin's warnings at the end.

    Returns when certbot exits with 0, whether it renewed or not. Waits up to ten
    minutes for another certbot to end. Raises DnsStepFailed, CertbotFailed.
    """
    argv = _argv(config, renewal, wanted, force=force, new_key=new_key)
    _in_turn(config, wanted.name, lambda _scratch: argv, keys=True, progress=progress, warn=warn)


def revoke(
    config: Config,
    renewal: RenewalConfig,
    name: str,
    pem: str,
    *,
    key: Path | None,
    reason: str,
    progress: Callable[[str], None],
) -> None:
    """Let the CA revoke the certificate `pem` (a chain will do: its first one) of the lineage `name`.

    The request is signed by the private key in `key`, or without it by the account's. `reason` is one of
    certbot's words. A certificate that is revoked already is no failure. Raises CertbotFailed.
    """

    def argv(scratch: str) -> tuple[str, ...]:
        path = Path(scratch, "revoke.pem")
        with files.reported(f"write {path}", kept="the CA was not asked to revoke anything"):
            files.write_new(path, pem.encode("ascii"))
        return (
            *renewal.certbot,
            "revoke",
            "--non-interactive",
            *_place(renewal),
            *("--cert-path", str(path)),
            *(("--key-path", str(key)) if key else ()),
            *("--reason", reason),
            # Otherwise certbot would delete the lineage: the new certificate too.
            "--no-delete-after-revoke",
        )

    try:
        _in_turn(config, name, argv, keys=False, progress=progress, warn=progress)
    except CertbotFailed as failure:
        if not _ALREADY_REVOKED.search(failure.found or ""):
            raise


def _in_turn(
    config: Config,
    name: str,
    argv: Callable[[str], tuple[str, ...]],
    *,
    keys: bool,
    progress: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Run certbot once no other one runs; `argv` gets a folder for temporary files.

    With `keys` it sees those of the DNS API.
    """
    import stamina

    # Its "retry_scheduled" would reach cron's mail from a run that went well.
    logging.getLogger("stamina").setLevel(logging.ERROR)
    try:
        for attempt in stamina.retry_context(
            on=_OtherInstance, attempts=None, timeout=600.0, wait_initial=1.0, wait_max=15.0
        ):
            with attempt:
                if attempt.num > 1:
                    progress("another certbot is running; waiting for it")
                with _scratch(config.state_dir) as scratch:
                    _run(
                        _Run(argv(scratch), name, scratch, _patience(config.dns), keys),
                        progress=progress,
                        warn=warn,
                    )
    except _OtherInstance:
        raise CertbotFailed(
            f"{name}: another certbot has been running for ten minutes",
            kept="what is published and served stays",
            next="see what it does with `pgrep -a certbot`, then `certcast renew`",
        ) from None


def _patience(dns: DnsConfig) -> float:
    return dns.deadline + dns.settle + dns.fallback_wait + _PATIENCE


def _place(renewal: RenewalConfig) -> tuple[str, ...]:
    return (
        *("--server", renewal.server),
        *("--config-dir", str(renewal.config_dir)),
        *("--work-dir", str(renewal.work_dir)),
        *("--logs-dir", str(renewal.logs_dir)),
    )


def _argv(
    config: Config, renewal: RenewalConfig, wanted: CertificateConfig, *, force: bool, new_key: bool
) -> tuple[str, ...]:
    names = [word for name in wanted.names for word in ("-d", name)]
    return (
        *renewal.certbot,
        "certonly",
        "--non-interactive",
        "--agree-tos",
        *(("--email", renewal.email) if renewal.email else ("--register-unsafely-without-email",)),
        *_place(renewal),
        *("--authenticator", PLUGIN, "--certcast-config", str(config.path.absolute())),
        *("--cert-name", wanted.name),
        *names,
        "--renew-with-new-domains",
        # Together with --reuse-key: another key now, and that one from now on (certbot 5.8, seen so).
        *(("--new-key",) if new_key else ()),
        "--reuse-key" if wanted.reuse_key else "--no-reuse-key",
        "--force-renewal" if force else "--keep-until-expiring",
    )


@dataclass(frozen=True)
class _Run:
    """One run of certbot: for which lineage, with which folder, seconds and environment."""

    argv: tuple[str, ...]
    name: str
    scratch: str
    patience: float
    keys: bool


def _run(run: _Run, *, progress: Callable[[str], None], warn: Callable[[str], None]) -> None:
    name = run.name
    # Memory with a name in /proc: no file to leave behind, nor a disk that may be full.
    with open(os.memfd_create("certcast-report"), "rb") as report_file:  # noqa: PTH123  a descriptor, no path
        try:
            status, tail = _converse(run, report_file.fileno(), progress)
        except KeyboardInterrupt:
            if _told(report_file.read()).interrupted:
                raise DnsStepInterrupted from None
            raise
        except OSError as error:
            raise CertbotFailed(
                f"{name}: certbot cannot be run",
                found=f"{error.filename}: {error.strerror}",
                kept="what is published and served stays",
                next="install it with `pip install 'certcast[renewal]'`, or set renewal.certbot",
            ) from None
        told = _told(report_file.read())
        for text in told.warnings:
            warn(text)
        if told.failure:
            raise DnsStepFailed(told.failure)
    if status == 0:
        return
    if any(_OTHER_INSTANCE in line for line in tail):
        raise _OtherInstance
    raise CertbotFailed(
        f"{name}: certbot ended with {'a time-out' if status is None else f'exit status {status}'}",
        found="\n".join(tail) or "no output",
        kept="what is published and served stays",
        next="make room (`df -h`), then `certcast renew`"
        if any(words in line for words in _NO_ROOM for line in tail)
        else "read the output above; the whole story is in renewal.logs_dir/letsencrypt.log",
    )


@contextmanager
def _scratch(state_dir: Path) -> Iterator[str]:
    """Give certbot a folder (0700) for its temporary files; what a killed run left a day ago goes.

    Before certbot has read its options it logs into a folder of its own, which one that is stopped so
    early leaves behind.
    """
    with files.reported("make a folder for certbot's temporary files", kept="nothing was ordered"):
        files.make_private_dir(state_dir)
        for left in state_dir.glob("certbot-*"):
            if time.time() - left.stat().st_mtime > _LEFT_BEHIND_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        scratch = tempfile.TemporaryDirectory(prefix="certbot-", dir=state_dir, ignore_cleanup_errors=True)
    with scratch as folder:
        yield folder


@dataclass(frozen=True)
class Told:
    """What our plugin has to say to us, beside certbot's exit status and its output for a terminal."""

    failure: CertcastError | None = None
    warnings: tuple[str, ...] = ()
    interrupted: bool = False

    def document(self) -> str:
        """Return it as JSON."""
        failure = errors.to_document(self.failure) if self.failure else None
        return json.dumps({"failure": failure, "warnings": self.warnings, "interrupted": self.interrupted})


def _told(document: bytes) -> Told:
    """Return what our plugin said; nothing, if a `ulimit -f` has cut it short."""
    try:
        report = json.loads(document)
    except ValueError:
        return Told()
    failure = report["failure"] and errors.from_document(report["failure"])
    return Told(failure, tuple(report["warnings"]), report["interrupted"])


def _converse(
    run: _Run, report_descriptor: int, progress: Callable[[str], None]
) -> tuple[int | None, list[str]]:
    """Run a child and pass its lines on; return its exit status and last lines (None: patience ended)."""
    tail: deque[str] = deque(maxlen=_TAIL)
    expired = threading.Event()
    with interrupts_once() as interrupts, _child(run, report_descriptor) as child:

        def expire() -> None:
            expired.set()
            child.terminate()

        timer = threading.Timer(run.patience, expire)
        try:
            interrupts.allow()
            timer.start()
            assert child.stdout is not None  # PIPE was asked for
            advising = False
            for line in child.stdout:
                if line.strip():
                    tail.append(line.rstrip())
                    # What follows is about renewing by other means, and donations.
                    advising = advising or line.startswith(_ADVICE)
                    if not advising:
                        progress(line.rstrip())
            status = child.wait()
        except BaseException:
            interrupts.put_off()
            _end(child)
            raise
        finally:
            interrupts.put_off()
            timer.cancel()
    return None if expired.is_set() else status, list(tail)


def _child(run: _Run, report_descriptor: int) -> subprocess.Popen[str]:
    more = {"TMPDIR": run.scratch, REPORT_FILE: f"/proc/self/fd/{report_descriptor}"}
    return subprocess.Popen(
        run.argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # With the keys of the DNS API, for our plugin in it.
        env=children.dns_environment(**more) if run.keys else children.environment(**more),
        pass_fds=(report_descriptor,),
        text=True,
        errors="replace",
        # A Ctrl-C is for us, and we send one SIGTERM. Two signals at once can meet certbot between the
        # order and its clean-up, which then doesn't happen.
        start_new_session=True,
    )


def _end(child: subprocess.Popen[str]) -> None:
    """Let certbot remove its challenges and end.

    certbot puts signals off while it cleans up, and its libraries can swallow one (`except Exception`
    around a callback), so it is sent again. What a kill leaves, the sweep removes.
    """
    for stop in (child.terminate, child.terminate, child.terminate, child.kill):
        stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_SIGNAL_SECONDS)
            return
