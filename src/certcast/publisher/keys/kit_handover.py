"""A recovery kit on its way out of `certcast publisher`, and back in.

Out: to stdout, or into a file that must not exist yet, before this host is changed.
In: from any file; the kit must be the one whose spare key hosts expect.

The passphrase is asked for at /dev/tty, never in argv: the kit on stdout can go into a file or to a printer
meanwhile. Without a terminal (a script) it is read from a file with mode 0600.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from datetime import datetime, timezone
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING

from certcast.host import files, private_files
from certcast.publisher.keys.passphrase import generate
from certcast.report import console
from certcast.report.errors import KitRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from certcast.config.model import Config
    from certcast.publisher.keys.keyring import Keyring
    from certcast.publisher.keys.recovery_kit import Kit

# A stolen kit can be tried for years. Sixteen characters that a person chose are some four words;
# nothing here can tell whether they are good ones, so the way with no effort is a random one.
LEAST = 16
_TERMINAL = Path("/dev/tty")
_LIMIT = 1024


def require_free(file: Path | None) -> None:
    """Raise KitRefused if no kit can be written there: before a person is asked. Writing looks again."""
    if file is not None and (file.exists() or file.is_symlink()):
        raise KitRefused(f"{file} exists, and may be a kit", next="name a file that does not exist yet")
    if file is None and sys.stdout is None:
        raise KitRefused("there is no stdout for the kit", next="write it to a file: --kit FILE")


@contextmanager
def hand_out(kit: Kit, words: str, file: Path | None, signing_key: Path) -> Iterator[None]:
    """Give the kit away under the passphrase `words`, then let the key files be changed in the block.

    If that fails the file is taken back, unless the kit is in force by then. Raises KitRefused.
    """
    from certcast.publisher.keys import keyring
    from certcast.publisher.keys.recovery_kit import encrypt

    armored = encrypt(kit, datetime.now(timezone.utc), words)
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
        return recovery_kit.decrypt(armored, words)
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


# -- the passphrase


def new_passphrase(file: Path | None) -> str:
    """Return the passphrase for a new kit: from `file`, or asked for twice, or made where none is given.

    Raises KitRefused, SecretExposed, LocalFault; KeyboardInterrupt or EOFError at Ctrl-C and Ctrl-D.
    """
    if file is not None:
        words = _read_passphrase(file)
        if mistake := _mistake(words):
            raise KitRefused(
                f"the passphrase in {file} cannot be used: it {mistake}",
                next="write a longer one into it, or leave the option out and be asked",
            )
        return words
    _require_terminal()
    while True:
        words = getpass(f"Passphrase for the recovery kit, at least {LEAST} characters (none: one is made): ")
        if not words:
            words = generate()
            _tell(f"The passphrase is  {words}  (letters, and digits from 2 to 7). Write it down now.")
            return words
        if mistake := _mistake(words):
            _tell(f"That passphrase {mistake}.")
        elif getpass("The same once more: ") == words:
            return words
        else:
            _tell("The two differ.")


def known_passphrase(file: Path | None) -> str:
    """Return the passphrase of a kit that exists. Raises as `new_passphrase` does."""
    if file is not None:
        return _read_passphrase(file)
    _require_terminal()
    return getpass("Passphrase of the recovery kit: ")


def _mistake(words: str) -> str | None:
    if len(words) < LEAST:
        return f"has {len(words)} characters; at least {LEAST} are wanted"
    if not words.isprintable():
        return "holds characters that nobody can type"
    return None


def _read_passphrase(file: Path) -> str:
    try:
        text = private_files.read_private(file, "the passphrase", limit=_LIMIT)
        return text.decode().rstrip("\r\n")
    except FileNotFoundError:
        found = "there is no such file"
    except UnicodeDecodeError:
        found = "it is no text in UTF-8"
    raise KitRefused(
        f"the passphrase cannot be read from {file}",
        found=found,
        next="write it into a file with mode 0600, or leave the option out and be asked",
    )


def _require_terminal() -> None:
    try:
        _TERMINAL.open("wb").close()
    except OSError:
        raise KitRefused(
            "there is no terminal to ask for the passphrase",
            next="give it in a file with mode 0600: --passphrase-file FILE",
        ) from None


def _tell(line: str) -> None:
    with _TERMINAL.open("w", encoding="utf-8") as terminal:
        terminal.write(f"{line}\n")
