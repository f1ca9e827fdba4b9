"""One certificate on its way through a run of `certcast renew`, and what is told of it in the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from certcast.acme.renewal_info import Suggestion
    from certcast.config.model import CertificateConfig
    from certcast.publisher.publication import Published
    from certcast.release.source import Release, Source
    from certcast.renewal.due import Due
    from certcast.renewal.replacement import Replacement
    from certcast.report.errors import CertcastError


@dataclass
class Renewed:
    """What a run did for one certificate; `failures` in the order in which they happened.

    `notes` tell of changes. `idle` means that nothing had to be asked.
    """

    certificate: CertificateConfig
    published: Published | None = None
    failures: list[CertcastError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    idle: bool = False


@dataclass
class Look:
    """One certificate on its way through a run."""

    wanted: CertificateConfig
    done: Renewed
    source: Source
    mark: str = ""
    live: Release | None = None
    asked: Replacement | None = None
    suggestion: Suggestion | None = None
    decided: Due | None = None

    @property
    def is_old(self) -> bool:
        """Whether this host still holds what is to be replaced."""
        return self.live is not None and self.asked is not None and self.live.leaf.sha256 in self.asked.leaves

    def fail(self, failure: CertcastError) -> None:
        """Keep a failure, once: the same files, or the store, may be the trouble at two steps."""
        known = self.done.failures
        if not any(type(first) is type(failure) and first.what == failure.what for first in known):
            known.append(failure)


def due(looks: Iterable[Look]) -> list[Look]:
    """Return those for which another certificate is to be ordered."""
    return [look for look in looks if look.decided is not None and look.decided.order]


def certificate_id_of(live: Release) -> str:
    """Return the identifier of RFC 9773; empty where the certificate has none."""
    from certcast.acme.renewal_info import certificate_id
    from certcast.release import certificate

    try:
        return certificate_id(certificate.read_chain(live.fullchain).leaf)
    except ValueError:
        return ""
