"""Look for secrets in files and processes, where a journey may have left them.

canaries = Canaries(); canaries.key("web", pem); canaries.secret("AccessKey", text)
canaries.in_files(folder)        {path: which}, links not followed
with canaries.watching() as processes:    command lines and environments of everything below this process
    …
processes.hits                   {("nginx", "environment", "AccessKey"), …}

A private key is looked for as pieces of its file's text, and as its number in binary,
hexadecimal, decimal and base64; a text as it is, in base64, and as an address would hold it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

Hit = tuple[str, str, str]
"""What kind of process it was, where it showed the secret, and which one."""

_PIECE = 16  # of base64: three quarters as many octets, which nothing else has by chance


class Canaries:
    """Secrets by name, each in all the forms in which it could turn up."""

    def __init__(self) -> None:
        self._forms: dict[str, set[bytes]] = {}

    def secret(self, name: str, text: str) -> None:
        """Look for a text."""
        raw = text.encode()
        self._add(name, raw, base64.b64encode(raw).rstrip(b"="), raw.hex().encode(), quote(text, "").encode())

    def key(self, name: str, private: bytes) -> None:
        """Look for a private key, from its PEM or OpenSSH file."""
        openssh = b"OPENSSH" in private.splitlines()[0]
        key = (load_ssh_private_key if openssh else load_pem_private_key)(private, None)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            number = key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8, "big")
        elif isinstance(key, ed25519.Ed25519PrivateKey):
            number = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        else:
            raise TypeError(f"{name} is of another type of key")
        hexadecimal = number.hex()
        self._add(name, number, hexadecimal.encode(), hexadecimal.upper().encode())
        self._add(name, str(int.from_bytes(number, "big")).encode())
        # The file's own text, where it holds the number: the rest is public, or alike for all keys.
        text = b"".join(line for line in private.splitlines() if not line.startswith(b"-----"))
        pieces = [text[at : at + _PIECE] for at in range(0, len(text) - _PIECE, 4)]
        own = [piece for piece in pieces if base64.b64decode(piece) in number]
        assert len(own) > 2, name
        self._add(name, *own)
        for start in range(3):  # base64 of something longer, at any offset in it
            inner = number[start:]
            self._add(name, base64.b64encode(inner[: len(inner) - len(inner) % 3]))

    def _add(self, name: str, *forms: bytes) -> None:
        self._forms.setdefault(name, set()).update(forms)

    def found(self, data: bytes) -> set[str]:
        """Return which secrets are in the data."""
        return {name for name, forms in self._forms.items() if any(form in data for form in forms)}

    def in_files(self, *folders: Path) -> dict[Path, set[str]]:
        """Return the files with secrets in them. Links are not followed; a FIFO or socket isn't read."""
        hits = {}
        for folder in folders:
            for path in folder.rglob("*"):
                if stat.S_ISREG(path.lstat().st_mode) and (found := self.found(path.read_bytes())):
                    hits[path] = found
        return hits

    @contextlib.contextmanager
    def watching(self) -> Iterator[Processes]:
        """Look at every process below this one, again and again, until the block ends."""
        processes = Processes(self)
        try:
            yield processes
        finally:
            processes.stop()


class Processes:
    """What was seen of the processes: `hits`, and the `kinds` that there were."""

    def __init__(self, canaries: Canaries) -> None:
        self.hits: set[Hit] = set()
        self.kinds: set[str] = set()
        self._canaries = canaries
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watching processes", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            for pid in _below(os.getpid()):
                # It may end while we look.
                with contextlib.suppress(OSError):
                    self.look(Path(f"/proc/{pid}"))

    def look(self, process: Path) -> None:
        """Look at one process now."""
        argv = (process / "cmdline").read_bytes()
        kind = kind_of(argv)
        self.kinds.add(kind)
        for where, data in (("argv", argv), ("environment", (process / "environ").read_bytes())):
            self.hits |= {(kind, where, name) for name in self._canaries.found(data)}


def kind_of(argv: bytes) -> str:
    """Return the program of a command line; of a Python's, the script."""
    words = [word.rpartition(b"/")[2].decode(errors="replace") for word in argv.split(b"\0")]
    if words[0].startswith(("python", "sh", "dash")):
        return next((word for word in words[1:] if not word.startswith("-")), words[0])
    return words[0].partition(":")[0]


def _below(root: int) -> list[int]:
    """Return the ids of all descendants of a process."""
    parents = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  names, not paths
        if name.isdigit():
            with contextlib.suppress(OSError):
                after_name = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
                parents[int(name)] = int(after_name[1])
    below, found = {root}, True
    while found:
        found = {pid for pid, parent in parents.items() if parent in below and pid not in below}
        below |= found
    return sorted(below - {root})
