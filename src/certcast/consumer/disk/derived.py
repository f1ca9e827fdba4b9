"""Files for programs that want the release in another shape; nginx needs none of them.

    cert.pem        the leaf: the first block of fullchain.pem
    chain.pem       the intermediates: its other blocks (empty if there is none)
    combined.pem    the private key, then fullchain.pem (HAProxy, lighttpd, stunnel)

They are made on this host of the two files that were checked (docs/adr/0002), and byte
for byte: cert.pem and chain.pem are those that certbot wrote. In combined.pem the key comes
first because stunnel asks for that order (stunnel(8), "cert"); the others take any.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from certcast.release.manifest import FULLCHAIN, PRIVKEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)


def files_of(pair: Mapping[str, bytes], names: Iterable[str]) -> dict[str, bytes]:
    """Return the files called `names` of a release, given its two; a copy, or made of them."""
    return {name: _file(pair, name) for name in names}


def _file(pair: Mapping[str, bytes], name: str) -> bytes:
    if name in {FULLCHAIN, PRIVKEY}:
        return pair[name]
    if name == "combined.pem":
        key = pair[PRIVKEY]
        return key + (b"" if key.endswith(b"\n") else b"\n") + pair[FULLCHAIN]
    blocks: list[bytes] = _BLOCK.findall(pair[FULLCHAIN])
    return {"cert.pem": blocks[0], "chain.pem": b"".join(blocks[1:])}[name]
