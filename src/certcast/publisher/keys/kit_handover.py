"""A recovery kit on its way out of `certcast publisher`, and back in.

Out: to stdout, or into a file that must not exist yet, before this host is changed.
In: from any file; the kit must be the one whose spare key hosts expect.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from certcast.host import files
from certcast.report import console
from certcast.report.errors import KitRefused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from certcast.config.model import Config
    from certcast.publisher.keys.keyring import Keyring
    from certcast.publisher.keys.recovery_kit import Kit


def require_free(file: Path | None) -> None:
    """Raise KitRefused if no kit can be written there: before a person is asked. Writing looks again."""
    if file is not None and (file.exists() or file.is_symlink()):
        raise KitRefused(
            f"{file} exists, and may be a kit",
            next="name a file that does not exist yet",
        )
    if file is None and sys.stdout is None:
        raise KitRefused(
            "there is no stdout for the kit",
            next="write it to a file: --kit FILE",
        )


@contextmanager
def hand_out(kit: Kit, words: str, file: Path | None, signing_key: Path) -> Iterator[None]:
    """Give the kit away under the passphrase `words`, then let the key files be changed in the block.

    If that fails the file is taken back, unless the kit is in force by then. Raises KitRefused.
    """
    from certcast.publisher.keys import keyring
    from certcast.publisher.keys.recovery_kit import encrypted

    armored = encrypted(kit, datetime.now(timezone.utc), words)
    try:
        if file is None:
            console.document(armored)  # flushes: a full disk behind stdout shows here
        else:
            files.write_new(file, armored.encode())
    except OSError as error:
        raise KitRefused(
            "the kit could not be handed out",
            found=f"{file or 'stdout'}: {error.strerror}",
            next="run it again with another --kit FILE",
        ) from None
    try:
        yield
    except BaseException:
        if file is not None and not keyring.is_in_force(signing_key, kit):
            file.unlink(missing_ok=True)
        raise


def read_text(file: Path) -> str:
    """Return the encrypted text of a kit, before anybody is asked for its passphrase. Raises KitRefused."""
    from certcast.publisher.keys.recovery_kit import LIMIT

    try:
        with file.open("rb") as stream:
            return stream.read(LIMIT).decode("utf-8-sig", "replace")
    except OSError as error:
        raise KitRefused(
            f"the kit cannot be read from {file}",
            found=error.strerror,
            next="write the encrypted text of the kit into a file, and name that",
        ) from None


def open_kit(file: Path, armored: str, words: str) -> Kit:
    """Return the kit of what was read from `file`. Raises KitRefused."""
    from certcast.publisher.keys import recovery_kit

    try:
        return recovery_kit.opened(armored, words)
    except ValueError as error:
        raise KitRefused(
            f"the kit in {file} does not open",
            found=str(error),
            next=f"try it by hand: `age -d {file}`; it must show the text of a certcast recovery kit",
        ) from None


def require_in_force(former: Kit, ring: Keyring, config: Config, file: Path) -> None:
    """Refuse a kit whose spare key hosts do not expect: an older one, or another publisher's.

    On a machine without any key files `store.publishers` tells, if there is one. Raises KitRefused.
    """
    known = [ring.spare] if ring.spare else list(config.store.publishers)
    if known and former.spare.blob not in {key.blob for key in known}:
        raise KitRefused(
            f"the kit in {file} is not the one in force here",
            expected="\n".join(f"the spare key {key.fingerprint}" for key in known),
            found=f"the spare key {former.spare.fingerprint}, of a kit for {former.store}",
            next="look for the kit of the last `init`, `kit` or `rotate` of this publisher",
        )
