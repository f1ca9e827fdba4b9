"""Where the versions of one certificate lie on this host: certcast's own store, or a certbot's lineage.

    source = "acme"      acme/issued.py       {state_dir}/issued/NAME/
    source = "certbot"   certbot/lineage.py   {certbot_config_dir}/{live,archive}/NAME/

The publisher reads releases through this seam, and does not know which program ordered them. MUST hold for
both (tests/contract/test_sources.py): a release's key fits its leaf; reading never writes; an unusable
release is an error, never "there is none".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from certcast.release.lifetime import remaining_text

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from certcast.release.certificate import Leaf
    from certcast.report.errors import SecretExposed


@dataclass(frozen=True)
class Release:
    """One issued certificate with its key: the files as they are, PEM, and the facts of the leaf.

    `directory` is the URL of the ACME directory that issued it, None where that is not known.
    """

    name: str
    version: str
    fullchain: bytes = field(repr=False)
    privkey: bytes = field(repr=False)
    leaf: Leaf
    directory: str | None = None

    def text(self, now: datetime) -> str:
        """What a person is told of it."""
        return f"serial {self.leaf.serial}, valid for {remaining_text(self.leaf.not_after, now)} more"


@dataclass(frozen=True)
class Known:
    """A release as far as it is public."""

    version: str
    fullchain: bytes
    leaf: Leaf
    directory: str | None = None


class Source(Protocol):
    """Where one certificate's releases lie."""

    place: Path
    """The folder, for messages."""

    def live(self) -> Release:
        """Return the release that counts. Raises LineageUnusable or IssuedUnusable; LocalFault."""

    def exists(self) -> bool:
        """Whether there has ever been one; True also where a missing right hides it."""

    def all(self) -> list[Known]:
        """Return every release that is still here, the latest first. LocalFault."""

    def find(self, leaf_sha256: str) -> Release | None:
        """Return the release with this leaf; None if it, or its key, is not here. Raises as `live` does."""

    def mark(self) -> str:
        """Return a text that changes whenever `live` does; no file is read for it."""

    def exposed(self) -> SecretExposed | None:
        """Return the alarm about private keys that any user of this host may read, or None."""
