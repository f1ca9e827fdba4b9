"""certcast inside certbot: the authenticator plugin `certcast`.

    certbot certonly -a certcast --certcast-config /etc/certcast/certcast.toml -d …

certbot hands over all challenges of an order at once, and does not answer any
of them when `perform` raises: a DNS failure costs no failed validation at the
CA. It calls `cleanup` with the same challenges whatever happened in between,
Ctrl-C included; what `perform` has already taken back is no longer in the
ledger then, so that costs nothing.

It does not build on certbot's DNSAuthenticator, whose frame is one record at a
time and then a fixed sleep.

A failed cleanup cannot stop certbot, rightly: the certificate is good. certbot
logs it, and the record stays in the ledger, where `certcast renew` finds it.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acme import challenges as acme_challenges
from certbot import errors, interfaces
from certbot.display import util as display
from certbot.plugins import common

from certcast import children, private_files
from certcast.config_reading import config_path, load
from certcast.dns01.challenges import Challenge, Challenges, log_warning
from certcast.dns01.ledger import Run
from certcast.errors import CertcastError
from certcast.names import readable
from certcast.renewal.certbot import REPORT_FILE, Told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


class Authenticator(common.Plugin, interfaces.Authenticator):
    """DNS-01 at Alibaba Cloud DNS, all challenges of an order together."""

    description = "DNS-01 at Alibaba Cloud DNS, through certcast"

    @classmethod
    def add_parser_arguments(cls, add: Callable[..., None]) -> None:
        """Offer --certcast-config; certbot keeps it in the lineage's renewal configuration."""
        add("config", help="certcast's configuration (default: CERTCAST_CONFIG, /etc/certcast/certcast.toml)")

    def prepare(self) -> None:
        """Let no crash show the DNS keys: this may be a certbot that no certcast has started.

        Nothing else: certbot's own words for a plugin that cannot be prepared would hide ours.
        """
        children.dump_no_core()

    def more_info(self) -> str:
        """Say what `certbot plugins` shows."""
        return "Adds TXT records to Alibaba Cloud DNS, waits until the nameservers show them, removes them."

    def auth_hint(self, failed_achalls: list[Any]) -> str:
        """Say what to look at when the CA did not see what the nameservers showed."""
        if self._warnings:
            return "The nameservers were not asked, since this host cannot reach them: see the warning above."
        return (
            "Every nameserver that answered showed the TXT values. Other regions of the provider may be "
            'later: raise "settle" in [dns]. With DNSSEC, see whether the zone validates.'
        )

    def get_chall_pref(self, domain: str) -> Iterable[type[acme_challenges.Challenge]]:  # noqa: ARG002, RUF100  certbot's signature
        """Take DNS-01 only."""
        return [acme_challenges.DNS01]

    def perform(self, achalls: list[Any]) -> list[acme_challenges.ChallengeResponse]:
        """Add all TXT values and return when the nameservers show them.

        Raises PluginError, whose text is the operator's report; then certbot answers no challenge.
        """
        try:
            with _sigterm_as_ctrl_c():
                self._challenges.present(_order(achalls), Run.current(), datetime.now(timezone.utc))
        except CertcastError as failure:
            _tell_parent(Told(failure, tuple(self._warnings)))
            raise errors.PluginError(failure.report()) from None
        except KeyboardInterrupt:
            _tell_parent(Told(interrupted=True))
            raise
        _tell_parent(Told(None, tuple(self._warnings)))
        return [achall.response(achall.account_key) for achall in achalls]

    def cleanup(self, achalls: list[Any]) -> None:
        """Remove what `perform` added. Raises PluginError, which certbot logs."""
        try:
            self._challenges.cleanup(_order(achalls))
        except CertcastError as failure:
            raise errors.PluginError(failure.report()) from None

    @cached_property
    def _challenges(self) -> Challenges:
        config = load(config_path(self.conf("config")))
        private_files.require_own_dir(config.state_dir)  # the ledger is kept there
        return Challenges(config, progress=_notify, warn=self._warn)

    @cached_property
    def _warnings(self) -> list[str]:
        return []

    def _warn(self, text: str) -> None:
        self._warnings.append(text)
        log_warning(readable(text))


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let a SIGTERM raise KeyboardInterrupt; certbot cleans up after either.

    certbot's handler raises SignalExit, an Exception. Inside a callback of asyncio, where the wait
    for the nameservers spends its time, that is a callback's failure: it is logged and the wait goes
    on (asyncio/events.py, Handle._run).
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _notify(text: str) -> None:
    try:
        display.notify(readable(text))
    except UnicodeEncodeError:  # a terminal of another alphabet
        display.notify(text)


def _order(achalls: Sequence[Any]) -> list[Challenge]:
    return [Challenge(achall.identifier.value, achall.validation(achall.account_key)) for achall in achalls]


def _tell_parent(told: Told) -> None:
    """Tell the `certcast renew` that started this certbot, if one did, what its exit status does not say."""
    if report_file := os.environ.get(REPORT_FILE):
        Path(report_file).write_text(told.document(), encoding="utf-8")
