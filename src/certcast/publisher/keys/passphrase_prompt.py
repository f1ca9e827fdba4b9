"""Ask a person for the passphrase of the recovery kit: at the terminal, never in argv.

The terminal is /dev/tty, so that the kit on stdout can go into a file or to a printer
meanwhile. Without one (a script), the passphrase is read from a file with mode 0600.
"""

from __future__ import annotations

from getpass import getpass
from pathlib import Path

from certcast.host import private_files
from certcast.publisher.keys import passphrase
from certcast.report.errors import KitRefused

# A stolen kit can be tried for years. Sixteen characters that a person chose are some four words;
# nothing here can tell whether they are good ones, so the way with no effort is a random one.
LEAST = 16
_TERMINAL = Path("/dev/tty")
_LIMIT = 1024


def new_passphrase(file: Path | None) -> str:
    """Return the passphrase for a new kit: from `file`, or asked for twice, or made where none is given.

    Raises KitRefused, SecretExposed, LocalFault; KeyboardInterrupt or EOFError at Ctrl-C and Ctrl-D.
    """
    if file is not None:
        words = _read(file)
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
            words = passphrase.generate()
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
        return _read(file)
    _require_terminal()
    return getpass("Passphrase of the recovery kit: ")


def _mistake(words: str) -> str | None:
    if len(words) < LEAST:
        return f"has {len(words)} characters; at least {LEAST} are wanted"
    if not words.isprintable():
        return "holds characters that nobody can type"
    return None


def _read(file: Path) -> str:
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
