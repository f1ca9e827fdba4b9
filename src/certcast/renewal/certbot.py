"""Run certbot as a child, and say in our words how it ended.

certbot stays the ACME client; it runs in a process of its own because in-process
runs leak log handlers, os.environ and sys.excepthook (certbot 5.8), and because
its exit status and files are the interface that lasts. `certonly` with
`--keep-until-expiring` serves first issuance, renewal and a changed list of names
alike, and asks the CA's ARI by itself.

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
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from certcast import children, errors, files
from certcast.errors import CertbotFailed, CertcastError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from certcast.config import CertificateConfig, Config, DnsConfig, RenewalConfig

PLUGIN = "certcast"  # the entry point in pyproject.toml
REPORT_FILE = "CERTCAST_REPORT_FILE"
# certbot 5.8, _internal/lock.py; its exit status is 1 like any other failure's.
_OTHER_INSTANCE = "Another instance of Certbot is already running"
_ADVICE = "NEXT STEPS:"  # certbot 5.8, _internal/main.py; only kept from the terminal
_NO_ROOM = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
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


class _OtherInstance(Exception):
    """certbot's lock is held."""


def obtain(
    config: Config,
    renewal: RenewalConfig,
    wanted: CertificateConfig,
    *,
    force: bool,
    progress: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Let certbot renew the certificate if it is due, or in any case with `force`.

    `progress` gets certbot's output line by line, `warn` our plugin's warnings at the end.

    Returns when certbot exits with 0, whether it renewed or not. Waits up to ten
    minutes for another certbot to end. Raises DnsStepFailed, CertbotFailed.
    """
    import stamina

    # Its "retry_scheduled" would reach cron's mail from a run that went well.
    logging.getLogger("stamina").setLevel(logging.ERROR)
    argv = _argv(config, renewal, wanted, force=force)
    try:
        for attempt in stamina.retry_context(
            on=_OtherInstance, attempts=None, timeout=600.0, wait_initial=1.0, wait_max=15.0
        ):
            with attempt:
                if attempt.num > 1:
                    progress("another certbot is running; waiting for it")
                with _scratch(config.state_dir) as scratch:
                    _run(argv, wanted.name, scratch, _patience(config.dns), progress=progress, warn=warn)
    except _OtherInstance:
        raise CertbotFailed(
            f"{wanted.name}: another certbot has been running for ten minutes",
            kept="what is published and served stays",
            next="see what it does with `pgrep -a certbot`, then `certcast renew`",
        ) from None


def _patience(dns: DnsConfig) -> float:
    return dns.deadline + dns.settle + dns.fallback_wait + _PATIENCE


def _argv(
    config: Config, renewal: RenewalConfig, wanted: CertificateConfig, *, force: bool
) -> tuple[str, ...]:
    names = [word for name in wanted.names for word in ("-d", name)]
    return (
        *renewal.certbot,
        "certonly",
        "--non-interactive",
        "--agree-tos",
        *(("--email", renewal.email) if renewal.email else ("--register-unsafely-without-email",)),
        *("--server", renewal.server),
        *("--config-dir", str(renewal.config_dir)),
        *("--work-dir", str(renewal.work_dir)),
        *("--logs-dir", str(renewal.logs_dir)),
        *("--authenticator", PLUGIN, "--certcast-config", str(config.path.absolute())),
        *("--cert-name", wanted.name),
        *names,
        "--renew-with-new-domains",
        "--reuse-key" if wanted.reuse_key else "--no-reuse-key",
        "--force-renewal" if force else "--keep-until-expiring",
    )


def _run(
    argv: tuple[str, ...],
    name: str,
    scratch: str,
    patience: float,
    *,
    progress: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    # Memory with a name in /proc: no file to leave behind, nor a disk that may be full.
    with open(os.memfd_create("certcast-report"), "rb") as report_file:  # noqa: PTH123  a descriptor, no path
        try:
            status, tail = _converse(argv, report_file.fileno(), scratch, patience, progress)
        except OSError as error:
            raise CertbotFailed(
                f"{name}: certbot cannot be run",
                found=f"{error.filename}: {error.strerror}",
                kept="what is published and served stays",
                next="install it with `pip install 'certcast[renewal]'`, or set renewal.certbot",
            ) from None
        failure, warnings = _told(report_file.read())
        for text in warnings:
            warn(text)
        if failure:
            raise DnsStepFailed(failure)
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


def _told(document: bytes) -> tuple[CertcastError | None, list[str]]:
    """Return what our plugin said; nothing, if a `ulimit -f` has cut it short."""
    try:
        report = json.loads(document)
    except ValueError:
        return None, []
    return report["failure"] and errors.from_document(report["failure"]), report["warnings"]


def _converse(
    argv: tuple[str, ...],
    report_descriptor: int,
    scratch: str,
    patience: float,
    progress: Callable[[str], None],
) -> tuple[int | None, list[str]]:
    """Run a child and pass its lines on; return its exit status and last lines (None: `patience` ended)."""
    tail: deque[str] = deque(maxlen=_TAIL)
    expired = threading.Event()
    with _interrupted_once() as interrupts, _child(argv, report_descriptor, scratch) as child:

        def expire() -> None:
            expired.set()
            child.terminate()

        timer = threading.Timer(patience, expire)
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


def _child(argv: tuple[str, ...], report_descriptor: int, scratch: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # With the keys of the DNS API, for our plugin in it.
        env=children.whole_environment(
            **{"TMPDIR": scratch, REPORT_FILE: f"/proc/self/fd/{report_descriptor}"}
        ),
        pass_fds=(report_descriptor,),
        text=True,
        errors="replace",
        # A Ctrl-C is for us, and we send one SIGTERM. Two signals at once can meet certbot between the
        # order and its clean-up, which then doesn't happen.
        start_new_session=True,
    )


class _Interrupts:
    """Signals that end a run: at most one raises KeyboardInterrupt, and only while that is allowed."""

    def __init__(self) -> None:
        self.came = False
        self.raised = False
        self._allowed = False

    def handle(self, _signal: int, _frame: object) -> None:
        self.came = True
        if self._allowed and not self.raised:
            self.raised = True
            raise KeyboardInterrupt

    def allow(self) -> None:
        self._allowed = True
        self.raise_what_came()

    def put_off(self) -> None:
        self._allowed = False

    def raise_what_came(self) -> None:
        if self.came and not self.raised:
            self.raised = True
            raise KeyboardInterrupt


@contextmanager
def _interrupted_once() -> Iterator[_Interrupts]:
    """Let no Ctrl-C fall between certbot's start and the `try` that ends it, nor a second into that end.

    Python raises KeyboardInterrupt between any two instructions: measured, one Ctrl-C in three that
    came within a millisecond of the start left certbot or our timer running.
    """
    interrupts = _Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts  # signals are the main thread's
        return
    before = {
        number: signal.signal(number, interrupts.handle)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    interrupts.raise_what_came()


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
