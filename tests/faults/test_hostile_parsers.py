"""Anything at all in front of each parser: an answer, or a refusal in words.

What comes from a bucket, a colleague's list, a safe or an editor may be any bytes. Hypothesis
writes them: wholly at random, of the right shape with odd contents, and good ones with a few
changes. A parser's contract is one kind of exception; anything else, a Rust panic in a library
included (it is a BaseException), fails the test. The same code gets the same examples on each
run; `--long` takes ten times as many.
"""

from __future__ import annotations

import base64
import json
import string as letters
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.strategies import SearchStrategy

from by_hand import BEGIN, END, armored, string
from certcast.acme import limits, pending
from certcast.acme.account import recorded_uri
from certcast.acme.issued import OrderRecord
from certcast.config import reading
from certcast.config.reading import load, structure
from certcast.consumer.state import ProvedRelease, State
from certcast.publisher.hosts import enrolled_hosts, host_lists
from certcast.publisher.keys import passphrase, recovery_kit
from certcast.release import certificate, documents, host_identity, manifest, sealing, signing
from certcast.release.host_identity import Identity, new_key
from certcast.release.manifest import Digest, Manifest
from certcast.release.sealing import Recipient
from certcast.release.ssh_keys import PublicKey, public_half
from certcast.renewal import last_look
from certcast.report.errors import (
    CertcastError,
    ConfigInvalid,
    EnrolRefused,
    LocalFault,
    ManifestInvalid,
    SealedInvalid,
    SignatureInvalid,
)
from certcast_lab.serving.authority import Authority, Pair
from consuming import DAY, NAMES

# Hypothesis keeps what it finds out about the code, and would do so in the working directory.
_HOME = tempfile.TemporaryDirectory(prefix="hypothesis-")
set_hypothesis_home_dir(_HOME.name)

Holds = Callable[[SearchStrategy[Any], Callable[[Any], object]], None]
NORMAL, LONG = 150, 1500


@pytest.fixture
def holds(request: pytest.FixtureRequest) -> Holds:
    """Let a check hold for many examples of a strategy."""
    long = request.config.getoption("--long")

    def check(examples: SearchStrategy[Any], body: Callable[[Any], object]) -> None:
        chosen = settings(
            max_examples=LONG if long else NORMAL,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        chosen(given(examples)(_one(body)))()

    return check


def _one(body: Callable[[Any], object]) -> Callable[[Any], None]:
    """Return it as hypothesis wants it: a function of its own, which returns nothing."""

    def one(example: Any) -> None:
        body(example)

    return one


def refused(error: type[Exception], parse: Callable[[], object]) -> None:
    """Parse, or be refused with `error` and words in it."""
    try:
        parse()
    except error as refusal:
        text = refusal.report() if isinstance(refusal, CertcastError) else str(refusal)
        if not text.strip() or "Traceback" in text:
            raise AssertionError(f"a refusal without words: {refusal!r}") from refusal


# -- what is drawn

ANY_BYTES = st.binary(max_size=300)
ANY_TEXT = st.text(max_size=60)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def changed(draw: st.DrawFn, genuine: bytes) -> bytes:
    """A good file with one to four places changed, left out, put in or doubled."""
    body = bytearray(genuine)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(body) - 1)))
        length = draw(st.integers(0, 20))
        kind = draw(st.sampled_from(["flip", "put", "drop", "double", "cut"]))
        if kind == "flip" and body:
            body[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "put":
            body[at : at + length] = draw(st.binary(min_size=1, max_size=20))
        elif kind == "drop":
            del body[at : at + length]
        elif kind == "double":
            body[at:at] = body[at : at + length]
        elif draw(st.booleans()):
            del body[at:]
    return bytes(body)


@st.composite
def edited(draw: st.DrawFn, genuine: dict[str, Any], values: SearchStrategy[Any]) -> dict[str, Any]:
    """A good document in which a field somewhere, or two, holds anything, is gone, or is new."""
    document: dict[str, Any] = json.loads(json.dumps(genuine))
    for _ in range(draw(st.integers(1, 2))):
        inner: Any = document
        while True:
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            key = draw(st.sampled_from(keys)) if keys else None
            if key is None or not isinstance(inner[key], (dict, list)) or draw(st.integers(0, 3)) == 0:
                break
            inner = inner[key]
        if key is None:
            continue
        how = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if how == "replace":
            inner[key] = draw(values)
        elif how == "remove":
            del inner[key]
        elif isinstance(inner, dict):
            inner[draw(st.text(max_size=10))] = draw(values)
        else:
            inner.append(draw(values))
    return document


# -- the manifest

ONE = Manifest(
    store="oss://bucket/prefix",
    certificate="example.test",
    sequence=7,
    published_at=DAY,
    expires=DAY + timedelta(days=7),
    publisher="renewal-1",
    leaf=certificate.Leaf(
        "a" * 64, "0A", "CN=Lab", DAY, DAY + timedelta(days=90), ("example.test",), "b" * 64
    ),
    files={name: Digest.of(name.encode()) for name in manifest.FILES},
    revoked=("c" * 64,),
)
WRITTEN = manifest.write(ONE)
ODD = st.sampled_from([True, 1.0, -0.0, 2**53 + 1, "٣", "\u202e", "a\n", "\x7f"])


@pytest.mark.parametrize(
    "bodies",
    [
        ANY_BYTES,
        changed(WRITTEN),
        ANY_JSON.map(lambda value: json.dumps(value).encode()),
        edited(json.loads(WRITTEN), ANY_JSON).map(lambda value: json.dumps(value).encode()),
        edited(
            json.loads(WRITTEN), st.sampled_from([True, 1.0, -0.0, 2**53 + 1, "٣", "\u202e", "a\n", "\x7f"])
        ).map(lambda value: json.dumps(value).encode()),
    ],
    ids=["bytes", "changed", "JSON", "edited", "odd values"],
)
def test_a_manifest_is_read_or_refused(holds: Holds, bodies: SearchStrategy[bytes]) -> None:
    """What is read is a whole manifest that writes itself again; anything else is MANIFEST."""

    def check(body: bytes) -> None:
        found = manifest.read(body, store=ONE.store, certificate=ONE.certificate)
        assert found == manifest.read(manifest.write(found), store=ONE.store, certificate=ONE.certificate)

    holds(bodies, lambda body: refused(ManifestInvalid, lambda: check(body)))


# -- the signature

PRIVATE, PUBLIC = new_key("publisher")


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    key = tmp_path_factory.mktemp("signing") / "publisher"
    key.write_bytes(PRIVATE)
    key.chmod(0o600)
    return signing.sign(WRITTEN, key)


FIELD = ANY_BYTES.map(string) | ANY_BYTES
BLOB = st.lists(FIELD, max_size=7).map(b"".join)
GENUINE_PARTS = st.sampled_from(
    [PUBLIC.blob, b"certcast-manifest", b"", b"sha512", b"sha256", string(b"ssh-ed25519")]
)
NEARLY = st.lists(GENUINE_PARTS.map(string) | FIELD, min_size=3, max_size=7).map(b"".join)
BLOBS = {
    "bytes": ANY_BYTES,
    "an armor of bytes": ANY_BYTES.map(lambda blob: WRITTEN + armored(blob)),
    "fields": BLOB.map(lambda blob: WRITTEN + armored(b"SSHSIG\0\0\0\1" + blob)),
    "nearly ours": NEARLY.map(
        lambda blob: (
            WRITTEN + armored(b"SSHSIG\0\0\0\1" + string(PUBLIC.blob) + string(b"certcast-manifest") + blob)
        )
    ),
    "any text between": ANY_BYTES.map(lambda text: WRITTEN + BEGIN + text + b"\n" + END),
}


@pytest.mark.parametrize("bodies", BLOBS.values(), ids=BLOBS)
def test_a_signature_is_refused_unless_it_is_ours(holds: Holds, bodies: SearchStrategy[bytes]) -> None:
    """No text that anybody makes up passes; all of them are SIGNATURE."""

    def check(body: bytes) -> None:
        signing.verify(body, [PUBLIC], what="the manifest")
        raise AssertionError("accepted")

    holds(bodies, lambda body: refused(SignatureInvalid, lambda: check(body)))


def test_a_changed_signature_is_refused(holds: Holds, signed: bytes) -> None:
    """A signed manifest with a few changes is SIGNATURE, unless the changes undo each other."""

    def check(body: bytes) -> None:
        signing.verify(body, [PUBLIC], what="the manifest")
        assert signed == body, "accepted"

    holds(changed(signed), lambda body: refused(SignatureInvalid, lambda: check(body)))


# -- the sealed key and the identity

HOST = Recipient.of_host("web1", PUBLIC)
IDENTITY = Identity(Path("identity"), PRIVATE, PUBLIC)
SEALED = sealing.seal(b"a private key", HOST)
LINES = st.lists(
    st.sampled_from(
        [b"-> ssh-ed25519 AAAA", b"-> X25519", b"-> scrypt AAAA 1", b"---", b"", b"--- AAAA", b"->"]
    )
    | ANY_BYTES,
    max_size=12,
).map(lambda lines: b"age-encryption.org/v1\n" + b"\n".join(lines))


@pytest.mark.parametrize(
    "bodies", [ANY_BYTES, LINES, changed(SEALED)], ids=["bytes", "lines of a header", "changed"]
)
def test_a_sealed_key_opens_or_is_refused(holds: Holds, bodies: SearchStrategy[bytes]) -> None:
    """What opens is what was sealed; everything else is SEALED. The age library never panics."""

    def check(body: bytes) -> None:
        opened = sealing.unseal(body, IDENTITY, what="web1.age", again="`certcast host add`")
        assert body == SEALED, f"opened to {opened!r}"

    holds(bodies, lambda body: refused(SealedInvalid, lambda: check(body)))


def _with_odd_inside(inside: bytes) -> bytes:
    begin, end = (f"-----{word} OPENSSH PRIVATE KEY-----\n".encode() for word in ("BEGIN", "END"))
    return begin + base64.encodebytes(inside) + end


INSIDE = base64.b64decode(b"".join(PRIVATE.splitlines()[1:-1]))


@pytest.mark.parametrize(
    "bodies",
    [ANY_BYTES, changed(PRIVATE), changed(INSIDE).map(_with_odd_inside)],
    ids=["bytes", "changed", "changed inside"],
)
def test_an_identity_is_read_or_refused(holds: Holds, bodies: SearchStrategy[bytes]) -> None:
    """A damaged key file is named; one whose public half is whole opens, or SEALED says that it doesn't."""

    def check(body: bytes) -> None:
        host = Identity(Path("identity"), body, public_half(body))
        refused(SealedInvalid, lambda: sealing.unseal(SEALED, host, what="web1.age", again="x"))

    holds(bodies, lambda body: refused(ValueError, lambda: check(body)))


@pytest.mark.parametrize(
    "lines",
    [
        ANY_TEXT,
        changed(PUBLIC.line.encode()).map(lambda line: line.decode("utf-8", "surrogateescape")),
        BLOB.map(lambda blob: f"ssh-ed25519 {base64.b64encode(blob).decode()} x"),
    ],
    ids=["text", "changed", "fields"],
)
def test_a_public_line_is_read_or_refused(holds: Holds, lines: SearchStrategy[str]) -> None:
    """What is read as a key is one that age seals to; everything else is refused in words."""

    def check(line: str) -> None:
        key = PublicKey.parse(line)
        assert key == PublicKey.parse(key.line)
        sealing.seal(b"x", Recipient.of_host("web1", key))

    holds(lines, lambda line: refused(ValueError, lambda: check(line)))


# -- certificates and keys


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Authority("Issuer", parent=Authority("Root")).issue(
        *NAMES, not_before=DAY, not_after=DAY + timedelta(days=90)
    )


def _der(pem: bytes) -> bytes:
    return base64.b64decode(b"".join(line for line in pem.splitlines() if b"-----" not in line))


def _pem(label: str, der: bytes) -> bytes:
    begin, end = (f"-----{word} {label}-----\n".encode() for word in ("BEGIN", "END"))
    return begin + base64.encodebytes(der) + end


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # by cryptography, of a negative one
def test_a_chain_is_read_or_refused(holds: Holds, pair: Pair) -> None:
    """
    Changed in the PEM or deep in the DER, a chain is a chain or a ValueError, through every question that
    is asked of it: what it says, its key's type, whether it may be served.
    """
    end = b"-----END CERTIFICATE-----\n"
    blocks = [_der(block + end) for block in pair.fullchain_pem.split(end) if block.strip()]
    roots = certificate.read_chain(Authority("Root").pem).leaf

    def check(body: bytes) -> None:
        chain = certificate.read_chain(body)
        certificate.describe(chain.leaf)
        certificate.key_type(chain.leaf)
        certificate.refusals(chain, NAMES, [roots], DAY)

    changes = [ANY_BYTES, changed(pair.fullchain_pem)]
    changes += [
        changed(der).map(
            lambda der, at=at: b"".join(
                _pem("CERTIFICATE", der if at == n else b) for n, b in enumerate(blocks)
            )
        )
        for at, der in enumerate(blocks)
    ]
    # The version and the serial number, whose sign too, are in the first octets.
    for at in range(48 * 8):
        flipped = bytearray(blocks[0])
        flipped[at // 8] ^= 1 << at % 8
        refused(ValueError, partial(check, _pem("CERTIFICATE", bytes(flipped))))
    for bodies in changes:
        holds(bodies, lambda body: refused(ValueError, lambda: check(body)))


@pytest.mark.parametrize("key_type", ["ecdsa", "rsa"])
def test_a_private_key_is_read_or_refused(holds: Holds, pair: Pair, key_type: str) -> None:
    """Whatever was sealed to a host as a private key is one, or a ValueError; so is whether it fits."""
    issued = Authority("Issuer").issue(*NAMES, key_type=key_type, not_before=DAY)
    leaf = certificate.describe(certificate.read_chain(pair.fullchain_pem).leaf)

    def check(body: bytes) -> None:
        assert not certificate.key_fits(certificate.read_key(body), leaf)

    inside = changed(_der(issued.key_pem)).map(lambda der: _pem("PRIVATE KEY", der))
    for bodies in (ANY_BYTES, changed(issued.key_pem), inside):
        holds(bodies, lambda body: refused(ValueError, lambda: check(body)))


# -- files that people write

CONFIG: dict[str, Any] = {
    "host": "web1",
    "state_dir": "/var/lib/certcast",
    "store": {"url": "oss://bucket/prefix", "region": "cn-hangzhou", "publishers": [PUBLIC.line]},
    "certificate": [{"name": "example.test", "names": list(NAMES), "at_least": 2}],
    "renewal": {"email": "it@example.test"},
    "dns": {"propagation": "wait:30s", "deadline": "5m", "resolvers": ["192.0.2.1:53", "https://doh.example/q"]},
    "zone": [{"name": "example.test", "profile": "dns"}],
    "consumer": {
        "idle_check": "1h",
        "copy_to": [{"certificate": "example.test", "fullchain": "/etc/ssl/x.pem", "mode": "0640"}],
        "nginx": [{"test": ["nginx", "-t"], "listeners": ["127.0.0.1:443"],
                   "paths": {"/var/lib/certcast/certs": "/certs"}}],
    },
    "mail": {"host": "mail.example.test", "sender": "a@a.test", "failures_to": ["b@b.test"], "port": 465},
}  # fmt: skip
TOML_VALUE = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | ANY_TEXT
    | st.datetimes(timezones=st.just(timezone.utc)) | st.dates() | st.times(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
NEAR_MISSES = st.sampled_from(
    ["", " ", "oss://", "file://x", "http://[", "https://[::1", "http://a:b", "1.2.3.4:99999", "[::]:",
     "\u017f", "*.", "..", "a" * 300, "0s", "-1h", "1e999s", "٣s", "nan", "\0", "\n", "/\0", "~", "$HOME",
     "acs:ram::1:role/x", "a@b@c", "@", "xn--", "xn--a", "\u0130.com", 10**400, -1, 0, float("nan"),
     float("inf"), [], {}, [[]], [{}], datetime.max.replace(tzinfo=timezone.utc)]
)  # fmt: skip


@pytest.mark.parametrize("values", [TOML_VALUE, NEAR_MISSES], ids=["anything", "near misses"])
def test_a_configuration_is_read_or_explained(holds: Holds, values: SearchStrategy[Any]) -> None:
    """A document with anything in any place is a Config, or a list of mistakes in words."""

    def check(document: dict[str, Any]) -> None:
        config, mistakes = structure(document, Path("/etc/certcast/certcast.toml"))
        assert (config is None) == bool(mistakes)
        assert all(mistake.strip() for mistake in mistakes)

    assert structure(CONFIG, Path("/etc/certcast/certcast.toml"))[0] is not None
    holds(edited(CONFIG, values), check)


TOML_LINES = st.lists(
    st.sampled_from(
        ["[store]", "[[certificate]]", 'url = "oss://a"', "names = [", "]", "a.b.c = 1", "\ufeff", '"""']
    )
    | ANY_TEXT,
    max_size=8,
).map("\n".join)  # fmt: skip


def test_a_configuration_file_is_read_or_explained(holds: Holds, tmp_path: Path) -> None:
    """A file of any bytes is a configuration or CONFIG, with a next step."""
    path = tmp_path / "certcast.toml"

    def check(body: bytes) -> None:
        path.write_bytes(body)
        refused(ConfigInvalid, lambda: load(path))

    holds(ANY_BYTES, check)
    holds(TOML_LINES.map(lambda text: text.encode("utf-8", "surrogatepass")), check)
    nested = (
        b"a = " + b"[" * 100_000,
        b"a = " + b"{a=" * 50_000,
        b"a." * 3_000 + b"a = 1",
        b"[a" + b".a" * 3_000 + b"]",
    )
    for body in nested:
        check(body)


def test_the_file_of_hosts_is_read_or_refused(holds: Holds, tmp_path: Path) -> None:
    """The list of enrolled hosts is read, or ENROL names the lines; what was read writes itself again."""
    path = tmp_path / "hosts"
    good = f"web1 {PUBLIC.bare}\n@web {new_key('')[1].bare} certificates=a.test,b.test # racks\n".encode()

    def check(body: bytes) -> None:
        path.write_bytes(body)
        path.chmod(0o600)
        for host in enrolled_hosts.read_hosts(path):
            assert host == enrolled_hosts.parse(host.line)

    word = st.sampled_from(
        ["web1", "@web", "@", "#", "ssh-ed25519", PUBLIC.bare, "certificates=", "certificates=a,,b"]
    )
    lines = st.lists(st.lists(word | ANY_TEXT, max_size=5).map(" ".join), max_size=4).map("\n".join)
    for bodies in (ANY_BYTES, changed(good), lines.map(lambda text: text.encode("utf-8", "surrogatepass"))):
        holds(bodies, lambda body: refused(EnrolRefused, lambda: check(body)))


def test_a_list_of_host_keys_is_read_or_refused(holds: Holds, tmp_path: Path) -> None:
    """known_hosts, lines or Ansible's facts: hosts that can be enrolled, remarks, mistakes, or ENROL."""
    path = tmp_path / "known_hosts"
    known = (
        f"web1,10.0.0.5 {PUBLIC.bare}\n[web2]:2222 {new_key('')[1].bare}\n@revoked * {PUBLIC.bare}\n".encode()
    )
    facts = {
        "web1": {
            "ansible_facts": {"nodename": "web1", "ssh_host_key_ed25519_public": PUBLIC.bare.split()[1]}
        },
        "web2": {"ansible_hostname": "web2", "ansible_ssh_host_key_ed25519_public": PUBLIC.bare.split()[1]},
    }

    def check(body: bytes) -> None:
        path.write_bytes(body)
        for host in host_lists.read_list(path).hosts:
            assert host == enrolled_hosts.parse(host.line)

    word = st.sampled_from(
        ["web1", "|1|a|b", "@revoked", "@cert-authority", "*", "!web1", "[", "[a]:b", "::1", PUBLIC.bare]
    )
    lines = st.lists(st.lists(word | ANY_TEXT, max_size=5).map(" ".join), max_size=4).map("\n".join)
    documents = edited(facts, ANY_JSON).map(lambda value: json.dumps(value).encode())
    texts = lines.map(lambda text: text.encode("utf-8", "surrogatepass"))
    for bodies in (
        ANY_BYTES,
        changed(known),
        texts,
        documents,
        ANY_JSON.map(lambda v: json.dumps({"a": v}).encode()),
    ):
        holds(bodies, lambda body: refused(EnrolRefused, lambda: check(body)))
    for bomb in (b"[" * 200_000, b'{"a":' * 100_000, b'{"__payload__": "' + b"[" * 200_000 + b'"}'):
        refused(EnrolRefused, lambda bomb=bomb: check(bomb))  # type: ignore[misc]


def test_a_recovery_kit_is_read_or_refused(holds: Holds) -> None:
    """What comes out of the safe, mistyped or torn, is a kit or a sentence. So is what is still locked."""
    text = recovery_kit.write(recovery_kit.make("oss://bucket/certcast", PUBLIC), DAY)

    def check(body: bytes) -> None:
        recovery_kit.parse(body.decode("utf-8", "replace"))

    for bodies in (ANY_BYTES, changed(text.encode())):
        holds(bodies, lambda body: refused(ValueError, lambda: check(body)))

    # No work for scrypt here: whatever this is, it is not a stanza that one could try a passphrase on.
    header = st.text(letters.printable, max_size=100).filter(lambda text: "scrypt" not in text)
    locked = (ANY_BYTES | header.map(lambda text: b"age-encryption.org/v1\n" + text.encode())).map(
        lambda body: "\n".join((passphrase.BEGIN, base64.b64encode(body).decode(), passphrase.END))
    )
    for texts in (ANY_TEXT, locked):
        holds(texts, lambda text: refused(ValueError, lambda: passphrase.decrypt(text, "correct horse")))


def test_a_damaged_state_is_reported(holds: Holds, tmp_path: Path) -> None:
    """A state file that somebody edited, or a disk damaged, is read or LOCAL, which says what mends it."""
    path = tmp_path / "state.json"
    leaf = ONE.leaf
    good = State(
        last_checked=DAY, store="oss://a", sequence=7, seen=WRITTEN.decode(), seen_by=PUBLIC.fingerprint,
        proved=ProvedRelease(leaf, "7-aaaa", {"fullchain.pem": "0" * 32}, "RSA"), leaves=(leaf.sha256,),
    )  # fmt: skip
    good.write(path)
    written = path.read_bytes()
    assert good == State.read(path)

    def check(body: bytes) -> None:
        path.write_bytes(body)
        State.read(path)

    documents = edited(json.loads(written), ANY_JSON).map(lambda value: json.dumps(value).encode())
    for bodies in (ANY_BYTES, changed(written), documents):
        holds(bodies, lambda body: refused(LocalFault, lambda: check(body)))
    for bomb in (b"[" * 100_000, written.replace(b'"sequence": 7', b'"sequence": 1e999')):
        with pytest.raises(LocalFault):
            check(bomb)


def test_the_path_of_a_configuration_may_be_anything(holds: Holds, tmp_path: Path) -> None:
    """A folder, a missing file, a device: CONFIG in words, no traceback."""
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "nothing", tmp_path / "folder/x", Path("/dev/null/x")):
        refused(ConfigInvalid, lambda path=path: reading.load(path))  # type: ignore[misc]
    with pytest.raises(CertcastError):
        host_identity.load(tmp_path / "folder")


# -- what certcast keeps of its orders

_WHEN = "2026-11-23T18:05:00Z"
_ORDER: dict[str, Any] = {
    "directory": "https://ca.test/directory",
    "account": "https://ca.test/account/1",
    "order": "https://ca.test/order/1",
    "names": ["example.test", "*.example.test"],
    "key_type": "p256",
    "profile": None,
    "placed_at": _WHEN,
}
_LOOKED: dict[str, Any] = {
    **{"live": "1-0 1 1", "leaf": "0" * 64, "window_start": _WHEN, "at": _WHEN, "true_for": "0"},
    **{"sign_again": _WHEN, "ca_id": "a.b", "ca_again": _WHEN, "ca_start": _WHEN, "ca_end": _WHEN},
    "ca_url": None,
}
_LIMITS: dict[str, Any] = {
    "orders": {"*.example.test,example.test": [{"at": _WHEN, "issued": True}]},
    "not_before": {"*.example.test,example.test": _WHEN},
}


def _kept(folder: Path) -> dict[str, tuple[Path, dict[str, Any], Callable[[], object]]]:
    """Each file, what a good one holds, and how it is read."""
    order = folder / "issued/example.test/.pending/order.json"
    record = folder / "order.json"
    account_file = folder / "acme/account.json"
    look = folder / "renewing/example.test.json"
    order.parent.mkdir(parents=True, exist_ok=True)
    (order.parent / "privkey.pem").write_bytes(b"a key")
    uri = {"directory": "https://ca.test/directory", "uri": "https://ca.test/account/1", "recorded_at": _WHEN}
    return {
        "an order under way": (order, _ORDER, lambda: pending.read(order.parents[1])),
        "where a version came from": (
            record,
            {**_ORDER, "issued_at": _WHEN},
            lambda: documents.read(record, OrderRecord),
        ),
        "an account": (account_file, uri, lambda: recorded_uri(folder / "acme")),
        "orders placed": (
            folder / "acme/limits.json",
            _LIMITS,
            lambda: limits.require_open(folder / "acme", ("example.test", "*.example.test"), DAY),
        ),
        "the last good look": (look, _LOOKED, lambda: _settled(folder)),
    }


def _settled(folder: Path) -> object:
    found = last_look.read(folder, "example.test")
    return found and (found.settles("x", "y", DAY), found.is_ca_due(DAY), found.is_due_by_ca(DAY))


@pytest.mark.parametrize("kind", list(_kept(Path(_HOME.name) / "kept")))
def test_what_is_kept_of_orders_is_read_or_reported(holds: Holds, tmp_path: Path, kind: str) -> None:
    """A file that a disk or an editor has damaged is reported with a next step, or counts as not there."""
    path, good, read = _kept(tmp_path)[kind]
    path.parent.mkdir(parents=True, exist_ok=True)

    def check(body: bytes) -> None:
        path.write_bytes(body)
        refused(CertcastError, read)

    check(json.dumps(good).encode())
    for field, odd in product(good, ("", "ab cd", None, 0, [], {})):
        check(json.dumps({**good, field: odd}).encode())
    text = json.dumps(good).encode()
    holds(ANY_BYTES | changed(text) | edited(good, ANY_JSON).map(lambda one: json.dumps(one).encode()), check)
