"""What enrolling and removing a host does in the store, one certificate after the other.

A failure with one certificate doesn't stop the others. All failures are returned; the first gives the exit
status.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from certcast.publisher import record
from certcast.publisher.hosts import sealed_keys
from certcast.publisher.keys.key_files import is_set_up
from certcast.publisher.releases import Releases, take_away
from certcast.release import manifest
from certcast.release.sealing import Recipient, sealed_prefix
from certcast.report import console
from certcast.report.errors import CertcastError
from certcast.report.names import abridged

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from certcast.config.model import CertificateConfig, Config, RenewalConfig
    from certcast.publisher.hosts.enrolled_hosts import Host
    from certcast.publisher.signer import Signer
    from certcast.release.ssh_keys import PublicKey
    from certcast.storage.store import Store

Failures = list[CertcastError]


@dataclass(frozen=True)
class Enrolment:
    """The list of hosts, carried into the store; store and signer are opened where they are needed."""

    config: Config
    renewal: RenewalConfig
    open_store: Callable[[], Store]
    signer: Callable[[], Signer]

    def seal(self, hosts: Sequence[Host], *, narrowed: Collection[str]) -> Failures:
        """Seal each current release to those of `hosts` that get it, anew where something is there.

        `narrowed` are hosts that got more certificates before, which are taken away.
        """
        if not is_set_up(self.renewal.signing_key):
            console.hint("nothing was published here yet; `certcast renew` seals to them")
            return []
        kept = f"{abridged([host.name for host in hosts])}: in the list; `certcast renew` seals to them too"
        try:
            signer = self.signer()
        except CertcastError as failure:
            return [failure.but(kept=kept)]
        if signer.encryption == "none":
            console.hint(
                f'nothing is sealed to anybody: {self.config.path} has encryption = "none"; '
                "hosts that expect a sealed key will fail"
            )

        act = partial(self._seal_one, signer, hosts, narrowed)
        return self._for_each(act, kept=kept)

    def _seal_one(
        self,
        signer: Signer,
        hosts: Sequence[Host],
        narrowed: Collection[str],
        certificate: CertificateConfig,
        store: Store,
    ) -> None:
        name = certificate.name
        for host in hosts:
            if host.name in narrowed and not host.gets(name):
                take_away(certificate, store, signer.folder, host.name)
        anew = frozenset(host.name for host in hosts if host.gets(name))
        if not anew:
            return
        done = Releases(certificate, store, signer).seal_to(anew)
        if done is None:
            console.hint(f"{name}: nothing is published yet; `certcast renew` seals to them")
            return
        if done.sealed_to:
            console.changed(f"{name}: private key sealed to {abridged(done.sealed_to)}")
        for warning in done.warnings:
            console.warned(f"{name}: {warning}")

    def take_away(self, host: str, key: PublicKey | None) -> tuple[dict[str, int], Failures]:
        """Delete what is sealed to a host, older versions included; return how many objects, by certificate.

        `key` is the host's, where it is known: an earlier try may have left older versions that no listing
        shows.
        """
        deleted: dict[str, int] = {}
        if not is_set_up(self.renewal.signing_key):  # nothing was published here
            return deleted, []

        def take_one(certificate: CertificateConfig, store: Store) -> None:
            releases = manifest.releases_prefix(certificate.name)
            count = sum(sealed_keys.is_sealed_to(host, object_key) for object_key in store.list(releases))
            if count == 0 and key is None:
                return
            whole = take_away(certificate, store, self._folder, host, key=key)
            deleted[certificate.name] = count
            if not whole:
                console.warned(
                    f"older versions of what is sealed to {host} may be left in the bucket:\n"
                    f"delete there every version of {self.config.store.url}/{releases}*/keys/{host}.*"
                )

        again = f"`certcast host remove {host}" + (f' "{key.bare}"`' if key else "`")
        return deleted, self._for_each(take_one, kept=f"{host}: not in the list any more", again=again)

    def lacking(self, hosts: Sequence[Host]) -> tuple[dict[str, list[str] | None], Failures]:
        """Return for each host the certificates whose current release is not sealed to it.

        None where that can't be known. What is current is what this host has published last.
        """
        found: dict[str, list[str] | None] = {host.name: [] for host in hosts}

        def look(certificate: CertificateConfig, store: Store) -> None:
            getting = [host for host in hosts if host.gets(certificate.name)]
            current = record.read(self._folder, certificate.name).last(
                self.config.store.url, certificate.name
            )
            if current is None or self.config.store.encryption == "none":
                found.update((host.name, None) for host in getting)
                return
            leaf = current.leaf.sha256
            keys = set(store.list(sealed_prefix(certificate.name, leaf)))
            for host in getting:
                missing = found[host.name]
                object_key = Recipient.of_host(host.name, host.key).object_key(certificate.name, leaf)
                if missing is not None and object_key not in keys:
                    missing.append(certificate.name)

        failures = self._for_each(look, kept="the list is this host's, and whole")
        return dict.fromkeys(found) if failures else found, failures

    @property
    def _folder(self) -> Path:
        return self.config.state_dir / "publisher"

    def _for_each(
        self, act: Callable[[CertificateConfig, Store], None], *, kept: str, again: str | None = None
    ) -> Failures:
        """Do `act` for each certificate. `again` is the command that finishes what failed."""
        try:
            store = self.open_store()
        except CertcastError as failure:
            return [failure.but(kept=kept)]
        failures: Failures = []
        for certificate in self.config.certificates:
            try:
                act(certificate, store)
            except CertcastError as failure:
                step = failure.next
                if again:
                    step = f"{step}\nthen {again}" if step else again
                failures.append(
                    failure.but(kept=f"{kept}; {failure.kept}" if failure.kept else kept, next=step)
                )
        return failures
