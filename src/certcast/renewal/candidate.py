"""One certificate on its way through a run of `certcast renew`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from certcast.acme.renewal_info import Suggestion
    from certcast.config.model import CertificateConfig
    from certcast.publisher.publication import Published
    from certcast.release.manifest import Manifest
    from certcast.release.source import Release, Source
    from certcast.renewal.due import Due
    from certcast.renewal.replacement import Replacement
    from certcast.report.errors import CertcastError


@dataclass
class Candidate:
    """What this host knows of one certificate, and what the run has done for it.

    `live` is the release that this host holds, and `mark` its source's mark. While `live` is held off by a
    step back, `stepped_back` is what is published in its place. `suggestion` is the CA's renewal
    information, None where the CA was not asked.

    `failures` stand in the order in which they happened; `notes` tell of changes. `is_idle` means that
    nothing had to be asked.
    """

    wanted: CertificateConfig
    source: Source
    mark: str = ""
    live: Release | None = None
    replacement: Replacement | None = None
    stepped_back: Manifest | None = None
    suggestion: Suggestion | None = None
    due: Due | None = None
    published: Published | None = None
    failures: list[CertcastError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_idle: bool = False

    @property
    def is_to_be_replaced(self) -> bool:
        """Whether this host still holds what is to be replaced."""
        return (
            self.live is not None
            and self.replacement is not None
            and self.live.leaf.sha256 in self.replacement.leaves
        )

    @property
    def is_due(self) -> bool:
        """Whether another certificate is to be ordered."""
        return self.due is not None and self.due.order

    @property
    def ca_id(self) -> str:
        """The live certificate's identifier for renewal information (RFC 9773); empty where it has none."""
        from certcast.acme.renewal_info import certificate_id
        from certcast.release import certificate

        if self.live is None:
            return ""
        try:
            return certificate_id(certificate.read_chain(self.live.fullchain).leaf)
        except ValueError:
            return ""

    def fail(self, failure: CertcastError) -> None:
        """Keep a failure, once: the same files, or the store, may be the trouble at two steps."""
        if not any(type(first) is type(failure) and first.what == failure.what for first in self.failures):
            self.failures.append(failure)
