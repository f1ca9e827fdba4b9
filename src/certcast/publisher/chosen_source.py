"""Which source a certificate has, by its `source` in the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from certcast.config.model import CertificateConfig
    from certcast.release.source import Source


def source_of(wanted: CertificateConfig, *, state_dir: Path, certbot_config_dir: Path) -> Source:
    """Return where the releases of `wanted` lie, by its `source`."""
    if wanted.source == "certbot":
        from certcast.certbot.lineage import Lineage

        return Lineage(certbot_config_dir, wanted.name)
    from certcast.acme.issued import Issued

    return Issued(state_dir, wanted.name)
