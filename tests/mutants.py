"""Changed copies of what a publisher has published, as many as a test wants, the same ones for one seed.

    for mutant in mutants(random.Random(1), published):
        mutant.key, mutant.body       the object to replace, and by what (None: it is gone)
        mutant.how                    in words, for the report of a test

A mutant is never the genuine object, nor another spelling of something that the publisher itself would
have to sign anew. Some are noise. Others come from an attacker who knows the formats, and has old
releases and other keys.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from by_hand import BEGIN, END, ByHand, armored, by_hand
from certcast.release import sealing
from certcast.release.host_identity import new_key
from certcast.release.sealing import Recipient
from certcast_lab.serving.authority import Pair


@dataclass(frozen=True)
class Mutant:
    """One object of the bucket, changed; `how` says in what way."""

    key: str
    body: bytes | None
    how: str


@dataclass(frozen=True)
class Bucket:
    """What an attacker finds: two releases, the newer one current, and whom it is sealed to.

    Each of the first three is (key, body of the current release, body of the older one).
    `crossed` is the current private key, as it is sealed to another host.
    """

    manifest: tuple[str, bytes, bytes]
    fullchain: tuple[str, bytes, bytes]
    sealed: tuple[str, bytes, bytes]
    crossed: bytes
    host: Recipient
    foreign_pair: Pair
    publisher_private: bytes


def mutants(rnd: random.Random, bucket: Bucket, how_many: int) -> Iterator[Mutant]:
    """Give `how_many` of them, of all three objects by turns."""
    foreign_private, _ = new_key("mallory")
    made = 0
    while made < how_many:
        which, changes = rnd.choice(
            [(bucket.manifest, _MANIFEST), (bucket.fullchain, _FULLCHAIN), (bucket.sealed, _SEALED)]
        )
        key, body, older = which
        how = rnd.choice([*_NOISE, *changes] if rnd.random() < 0.5 else list(changes))
        changed = (
            _NOISE[how](rnd, body, older) if how in _NOISE else changes[how](rnd, bucket, foreign_private)
        )
        if changed != body:
            made += 1
            yield Mutant(key, changed, f"{key.rpartition('/')[2]}: {how}")


# -- noise, on any object: (random, body, the older release's body) → body

_BOM = b"\xef\xbb\xbf"
Noise = Callable[[random.Random, bytes, bytes], bytes]


def _slice(rnd: random.Random, body: bytes, longest: int = 80) -> tuple[int, int]:
    begin = rnd.randrange(len(body))
    return begin, min(len(body), begin + rnd.randint(1, longest))


def _bit(rnd: random.Random, body: bytes, _: bytes) -> bytes:
    at = rnd.randrange(len(body))
    return body[:at] + bytes([body[at] ^ 1 << rnd.randrange(8)]) + body[at + 1 :]


def _octets(rnd: random.Random, body: bytes, _: bytes) -> bytes:
    changed = bytearray(body)
    for _time in range(rnd.randint(1, 8)):
        changed[rnd.randrange(len(changed))] = rnd.randrange(256)
    return bytes(changed)


def _left_out(rnd: random.Random, body: bytes, _: bytes) -> bytes:
    begin, end = _slice(rnd, body)
    return body[:begin] + body[end:]


def _put_in(rnd: random.Random, body: bytes, _: bytes) -> bytes:
    at = rnd.randrange(len(body) + 1)
    more = rnd.choice([b"\0", b"\n", b" ", b"\r\n", b"\xff", _BOM, b"{}", b'"', rnd.randbytes(20)])
    return body[:at] + more + body[at:]


def _doubled(rnd: random.Random, body: bytes, _: bytes) -> bytes:
    begin, end = _slice(rnd, body)
    return body[:end] + body[begin:]


def _moved(rnd: random.Random, body: bytes, _: bytes) -> bytes:
    begin, end = _slice(rnd, body)
    rest = body[:begin] + body[end:]
    at = rnd.randrange(len(rest) + 1)
    return rest[:at] + body[begin:end] + rest[at:]


def _lines(rnd: random.Random, body: bytes, _: bytes) -> bytes:
    lines = body.splitlines(keepends=True)
    one, two = rnd.randrange(len(lines)), rnd.randrange(len(lines))
    if rnd.random() < 0.5:
        lines[one], lines[two] = lines[two], lines[one]
    else:
        lines.insert(one, lines[two])
    return b"".join(lines)


def _spliced(rnd: random.Random, body: bytes, older: bytes) -> bytes:
    at = rnd.randrange(min(len(body), len(older)))
    return body[:at] + older[at:] if rnd.random() < 0.5 else older[:at] + body[at:]


_NOISE: dict[str, Noise] = {
    "a bit flipped": _bit,
    "octets changed": _octets,
    "cut short": lambda rnd, body, _: body[: rnd.randrange(len(body))],
    "its beginning lost": lambda rnd, body, _: body[rnd.randint(1, len(body)) :],
    "octets left out": _left_out,
    "octets put in": _put_in,
    "a part doubled": _doubled,
    "a part moved": _moved,
    "lines exchanged or doubled": _lines,
    "spliced with the older release's": _spliced,
    "something appended": lambda rnd, body, _: body + rnd.choice([b"\n", b" ", b"\0", b"}\n", body]),
    "something before it": lambda rnd, body, _: rnd.choice([b"\n", b" ", b"\0", b"{", _BOM]) + body,
    "other line ends": lambda rnd, body, _: body.replace(b"\n", b"\r\n"),
    "another file altogether": lambda rnd, body, _: rnd.choice(
        [
            b"",
            b"\n",
            b"{}",
            b"null\n",
            b"<html></html>\n",
            b"\x1f\x8b\x08" + rnd.randbytes(99),
            rnd.randbytes(2000),
        ]
    ),
    "far too long": lambda rnd, body, _: body + b" " * rnd.choice([5_000, 70_000]),
}


def noise(rnd: random.Random, body: bytes, other: bytes) -> tuple[str, bytes]:
    """Return a body with noise in it, and in what way; `other` is one of the same kind."""
    how = rnd.choice(list(_NOISE))
    return how, _NOISE[how](rnd, body or b"\n", other or b"\n")


# -- what an attacker who knows the formats writes: (random, bucket, the attacker's key) → body

Change = Callable[[random.Random, Bucket, bytes], "bytes | None"]


def _parted(bucket: Bucket) -> tuple[bytes, bytes]:
    signed = bucket.manifest[1]
    begin = signed.rindex(BEGIN)
    return signed[:begin], signed[begin:]


def _edited(rnd: random.Random, bucket: Bucket) -> bytes:
    """Return the current document with a field or two changed to something of the right kind."""
    document: dict[str, Any] = json.loads(_parted(bucket)[0])
    leaf, file = document["leaf"], document["files"]["fullchain.pem"]
    edits: list[Callable[[], None]] = [
        lambda: document.update(sequence=document["sequence"] + rnd.randint(1, 1000)),
        lambda: document.update(expires="2036-01-01T00:00:00Z"),
        lambda: document.update(published_at="2026-01-01T00:00:00Z"),
        lambda: document.update(publisher="mallory"),
        lambda: document.update(store="oss://mallory"),
        lambda: document.update(certificate="mallory.test"),
        lambda: document.update(step_back=True),
        lambda: document.update(revoked=[leaf["sha256"]]),
        lambda: document.update(held_off=[rnd.randbytes(32).hex()]),
        lambda: document.update(format=2),
        lambda: document.pop(rnd.choice(list(document))),
        lambda: leaf.update(sha256=rnd.randbytes(32).hex()),
        lambda: leaf.update(public_key_sha256=rnd.randbytes(32).hex()),
        lambda: leaf.update(not_after="2036-01-01T00:00:00Z"),
        lambda: leaf.update(names=["mallory.test"]),
        lambda: file.update(sha256=rnd.randbytes(32).hex()),
        lambda: file.update(size=file["size"] + 1),
        lambda: document["files"].update({"../../etc/cron.d/x": file}),
    ]
    for edit in rnd.sample(edits, rnd.randint(1, 2)):
        edit()
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def _spelt_anew(rnd: random.Random, bucket: Bucket, _: bytes) -> bytes:
    """The same values, written in another way: what is signed is the text."""
    document, armor = _parted(bucket)
    value = json.loads(document)
    spelt = rnd.choice(
        [
            json.dumps(value),
            json.dumps(value, indent=1),
            json.dumps(value, sort_keys=True, indent=2),
            json.dumps(value, indent=2) + " ",
            document.decode().replace("[]", "[ ]"),
            document.decode().replace('": ', '" : ', rnd.randint(1, 5)),
        ]
    )
    return spelt.encode().rstrip(b"\n") + b"\n" * rnd.randint(1, 2) + armor


def _other_parts(rnd: random.Random, bucket: Bucket, foreign: bytes) -> bytes:
    """The genuine signature with one part another one."""
    document, armor = _parted(bucket)
    genuine = ByHand.of(armor)
    parts: list[dict[str, bytes]] = [
        {"digest": rnd.choice([b"sha256", b"sha1", b"shake_128", b"", b"SHA512", b"\xff"])},
        {"namespace": rnd.choice([b"git", b"", b"certcast-manifest\0"])},
        {"reserved": rnd.randbytes(rnd.randint(1, 9))},
        {"kind": rnd.choice([b"ssh-rsa", b"", b"ssh-ed25519\0", b"sk-ssh-ed25519@openssh.com"])},
        {"behind": rnd.randbytes(rnd.randint(1, 9))},
        {"rest": rnd.randbytes(rnd.randint(1, 9))},
        {"magic": b"SSHSIG\0\0\0" + bytes([rnd.choice([0, 2, 255])])},
        {"octets": genuine.octets[: rnd.randrange(64)]},
        {"octets": genuine.octets + b"\0"},
        {"octets": rnd.randbytes(64)},
        {"octets": bytes(64)},
        {"claimed": ByHand.of(by_hand(b"\n", foreign)).claimed},
        {"claimed": genuine.claimed[:-1]},
    ]
    return document + replace(genuine, **rnd.choice(parts)).armor


def _other_armor(rnd: random.Random, bucket: Bucket, _: bytes) -> bytes:
    """The genuine signature, armored in another way."""
    document, armor = _parted(bucket)
    text = armor[len(BEGIN) : -len(END)]
    at = rnd.randrange(len(text))
    odd = rnd.choice([b"\n", b" ", b"=", b"-", b"\t", b"\0", b"\r", b"!"])
    blob = ByHand.of(armor).blob
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = len(text.rstrip(b"=\n")) - 1
    same_bits = letters[letters.index(text[last]) ^ rnd.randint(1, 15) : :][:1]
    return document + rnd.choice(
        [
            BEGIN + text[:at] + odd + text[at:] + END,
            BEGIN + text[:last] + same_bits + text[last + 1 :] + END,
            armored(blob, rnd.choice([1, 64, 69, 71, 76, 1000])),
            armor + armor,
            armor[:-1],
            armor + rnd.choice([b"\n", b" ", b"# \n"]),
            BEGIN + armor,
            armor.replace(b"SSH", b"PGP"),
        ]
    )


def _ours_for_another_purpose(rnd: random.Random, bucket: Bucket, _: bytes) -> bytes:
    return by_hand(_edited(rnd, bucket), bucket.publisher_private, namespace=rnd.choice([b"git", b"file"]))


def _under_our_name(rnd: random.Random, bucket: Bucket, foreign: bytes) -> bytes:
    document = _edited(rnd, bucket)
    forged = replace(ByHand.of(by_hand(document, foreign)), claimed=ByHand.of(_parted(bucket)[1]).claimed)
    return document + forged.armor


_MANIFEST: dict[str, Change] = {
    "a field edited": lambda rnd, b, _: _edited(rnd, b) + _parted(b)[1],
    "a field edited, signed by another": lambda rnd, b, foreign: by_hand(_edited(rnd, b), foreign),
    "a field edited, signed by another in our name": _under_our_name,
    "a field edited, signed by us for another purpose": _ours_for_another_purpose,
    "spelt in another way": _spelt_anew,
    "another part in the signature": _other_parts,
    "another armor": _other_armor,
    "the older one's signature": lambda rnd, b, _: (
        _parted(b)[0] + b.manifest[2][b.manifest[2].rindex(BEGIN) :]
    ),
    "the older one": lambda rnd, b, _: b.manifest[2],
    "the signature taken off": lambda rnd, b, _: _parted(b)[0],
    "gone": lambda rnd, b, _: None,
}

_FULLCHAIN: dict[str, Change] = {
    "the older one": lambda rnd, b, _: b.fullchain[2],
    "another CA's": lambda rnd, b, _: b.foreign_pair.fullchain_pem,
    "the sealed key": lambda rnd, b, _: b.sealed[1],
    "the chain turned round": lambda rnd, b, _: b"".join(
        reversed(b.fullchain[1].split(b"-----END CERTIFICATE-----\n", 1))
    ),
    "a certificate more": lambda rnd, b, _: b.fullchain[1] + b.foreign_pair.fullchain_pem,
    "gone": lambda rnd, b, _: None,
}


def _sealed_anew(rnd: random.Random, bucket: Bucket, _: bytes) -> bytes:
    """Something else, sealed to the host: anyone who knows its public key can."""
    genuine = bucket.foreign_pair.key_pem
    other = [
        genuine,
        bucket.foreign_pair.fullchain_pem[:3000],
        _NOISE[rnd.choice(["a bit flipped", "octets changed", "cut short", "a part doubled"])](
            rnd, genuine, genuine
        ),
        rnd.randbytes(rnd.randint(1, 2000)),
        b"\0",
    ]
    return sealing.seal(rnd.choice(other) or b"\n", bucket.host)


def _stanzas(rnd: random.Random, bucket: Bucket, _: bytes) -> bytes:
    """The header's stanzas doubled, left out or exchanged; its MAC stays."""
    header, mac, body = bucket.sealed[1].partition(b"\n---")
    intro, *stanzas = header.split(b"\n->")
    rnd.shuffle(stanzas)
    stanzas = stanzas[: rnd.randrange(len(stanzas) + 1)] + stanzas[: rnd.randrange(3)]
    return b"\n->".join([intro, *stanzas]) + mac + body


_SEALED: dict[str, Change] = {
    "the older one": lambda rnd, b, _: b.sealed[2],
    "another host's": lambda rnd, b, _: b.crossed,
    "something else sealed": _sealed_anew,
    "other stanzas": _stanzas,
    "the header of the older one": lambda rnd, b, _: (
        b.sealed[2].partition(b"\n---")[0] + b"\n---" + b.sealed[1].partition(b"\n---")[2]
    ),
    "the body of the older one": lambda rnd, b, _: b.sealed[1][:-400] + b.sealed[2][-400:],
    "gone": lambda rnd, b, _: None,
}
