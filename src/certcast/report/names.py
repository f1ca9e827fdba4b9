"""Internationalised names (IDNA 2008, RFC 5891): one form for machines, one more for people.

Configuration, DNS, ACME, files and the store hold the ASCII form (punycode). A person reads both:

    adding TXT … at _acme-challenge.xn--fiq228c.test (_acme-challenge.中文.test)

`idna` decodes only what it would encode: no control or bidirectional character reaches a terminal or a mail
by way of a name. It is imported where a name has such a label.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Not as part of a path, an address or a longer word.
_NAME = re.compile(r"(?<![\w./@-])(?:[\w*-]+\.)*xn--[\w-]+(?:\.[\w-]+)*(?![\w/-])", re.ASCII)


def readable(text: str) -> str:
    """Return the text with each punycode name followed, where it first occurs, by the name as it is spoken.

    A text in `backquotes` is a command to be copied, and stays.
    """
    if "xn--" not in text:
        return text
    seen = set()

    def explained(match: re.Match[str]) -> str:
        name = match[0]
        spoken = to_unicode(name)
        if spoken == name or name in seen:
            return name
        seen.add(name)
        return f"{name} ({spoken})"

    parts = text.split("`")
    return "`".join(part if number % 2 else _NAME.sub(explained, part) for number, part in enumerate(parts))


def printable(text: str) -> str:
    """Return the text with a blank for each character that a terminal would act on; lines stay lines.

    For texts from outside: a server's answer, a file's content, another program's output.
    """
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)


def abridged(names: Sequence[str]) -> str:
    """Return a list of names for one line: five of them, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def to_unicode(name: str) -> str:
    """Return the name with its punycode labels decoded, as far as they are valid."""
    return ".".join(_decoded(label) if label.startswith("xn--") else label for label in name.split("."))


def to_ascii(name: str) -> str:
    """Return the name in lower case, with labels of other letters in punycode, as far as there is one."""
    labels = name.lower().split(".")
    return ".".join(label if label.isascii() else _encoded(label) for label in labels)


def _decoded(label: str) -> str:
    import idna

    try:
        return idna.decode(label)
    except idna.IDNAError:
        return label


def _encoded(label: str) -> str:
    import idna

    try:
        return idna.encode(label).decode("ascii")
    except idna.IDNAError:
        return label
