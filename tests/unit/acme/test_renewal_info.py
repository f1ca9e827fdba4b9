"""Renewal information, as RFC 9773 writes it; what a run makes of it is told in tests/e2e."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from acme.client import _renewal_info_path_component
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import strategies as st
from requests import Response
from stamina import set_testing

from certcast.acme import ca as ca_module
from certcast.acme.ca import Ca
from certcast.acme.protocol.answers import NoAnswer
from certcast.acme.renewal_info import Suggestion, certificate_id, suggestion
from certcast.config.model import RenewalConfig
from certcast_lab.serving.authority import Authority
from drawing import LATIN_1, for_all
from sockets import answering, dripping

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ID = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
WINDOW = {"start": "2027-01-21T04:00:00Z", "end": "2027-01-23T04:00:00+00:00"}
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


# -- the identifier


def self_made(serial: int, *extensions: x509.ExtensionType) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(NOW)
        .not_valid_after(NOW)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256())


def test_the_identifier_is_the_one_of_the_rfc() -> None:
    """The example of RFC 9773, section 4.1: key identifier 69:88:5B:…, serial 00:87:65:43:21."""
    key_identifier = bytes.fromhex("69885B6B87464041E1B37B847BA0AE2CDE01C8D4")
    aki = x509.AuthorityKeyIdentifier(key_identifier, None, None)
    assert certificate_id(self_made(0x87654321, aki)) == ID


def test_the_identifier_is_the_one_that_certbot_asks_with() -> None:
    """certcast and certbot ask the CA about the same certificate, whatever its serial begins with."""
    authority = Authority("Lab")
    for _ in range(32):
        pem = authority.issue("example.test").fullchain_pem
        certificate = x509.load_pem_x509_certificates(pem)[0]
        assert _renewal_info_path_component(certificate) == certificate_id(certificate)


def test_without_a_key_identifier_there_is_none() -> None:
    """Some private CAs leave it out: that is a word to the caller, and no traceback."""
    name = x509.DirectoryName(x509.Name([]))
    for extensions in ((), (x509.AuthorityKeyIdentifier(None, [name], 1),)):
        with pytest.raises(ValueError, match="no authorityKeyIdentifier"):
            certificate_id(self_made(1, *extensions))


# -- the moment in the window


MOMENTS = st.integers(0, 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, timezone.utc))
LEAVES = st.binary(min_size=32, max_size=32).map(bytes.hex)


def test_the_moment_lies_in_the_window_and_stays(request: pytest.FixtureRequest) -> None:
    """Each run of each process draws the same moment for one certificate, and never one outside."""

    def holds(drawn: tuple[datetime, timedelta, str]) -> None:
        start, length, leaf = drawn
        chosen = Suggestion(NOW, start, start + length).chosen(leaf)
        assert chosen is not None
        assert start <= chosen <= start + length
        assert chosen == Suggestion(NOW + HOUR, start, start + length, "https://ca.test").chosen(leaf)

    lengths = st.timedeltas(timedelta(microseconds=1), 400 * DAY)
    for_all(request, st.tuples(MOMENTS, lengths, LEAVES), holds)


def test_a_thousand_certificates_do_not_come_at_once() -> None:
    """Their moments are spread over the whole window: each tenth of it has its share."""
    start, length = NOW, 10 * HOUR
    leaves = (hashlib.sha256(bytes([number % 256, number // 256])).hexdigest() for number in range(1000))
    moments = [Suggestion(NOW, start, start + length).chosen(leaf) for leaf in leaves]
    tenths = [int((moment - start) / HOUR) for moment in moments if moment is not None]
    assert [True] * 10 == [60 < tenths.count(tenth) < 150 for tenth in range(10)]


def test_without_a_window_there_is_no_moment() -> None:
    """A CA that says nothing draws nothing."""
    assert Suggestion(NOW).chosen("f" * 64) is None


# -- what a CA answers


def word(document: Any, **headers: str) -> Suggestion:
    """What is made of a CA's answer."""
    response = Response()
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})

    def read(url: str) -> tuple[Any, Response]:
        assert url == f"https://ca.test/info/{ID}"
        return document, response

    ca: Any = SimpleNamespace(directory={"renewalInfo": "https://ca.test/info/"}, read=read)
    return suggestion(ca, ID, NOW)


def test_a_window_is_read_in_utc() -> None:
    """Begin, end, the explanation and the moment for the next question are as the CA has said."""
    document = {"suggestedWindow": WINDOW, "explanationURL": "https://ca.test/why"}
    start = datetime(2027, 1, 21, 4, 0, tzinfo=timezone.utc)
    expected = Suggestion(NOW + 3 * HOUR, start, start + 2 * DAY, "https://ca.test/why")
    assert expected == word(document, Retry_After="10800")
    east = {"start": "2027-01-21T12:00:00+08:00", "end": "2027-01-23T12:00:00+08:00"}
    assert start == word({"suggestedWindow": east}).start


@pytest.mark.parametrize(
    ("retry_after", "asked_again"),
    [
        ("21600", 6 * HOUR),
        ("", 6 * HOUR),
        ("soon", 6 * HOUR),
        ("0", timedelta(minutes=1)),
        ("Sun, 22 Nov 2026 12:00:00 GMT", timedelta(minutes=1)),
        ("Mon, 23 Nov 2026 13:00:00 GMT", HOUR),
        ("864000", DAY),
    ],
)
def test_the_ca_is_asked_again_when_it_wants(retry_after: str, asked_again: timedelta) -> None:
    """Its Retry-After is obeyed between a minute and a day (RFC 9773, 4.3.2); without one after six hours."""
    assert NOW + asked_again == word({"suggestedWindow": WINDOW}, Retry_After=retry_after).ask_again


SILENT = Suggestion(NOW + 6 * HOUR)
ODD: list[Any] = [
    None,
    {},
    {"suggestedWindow": None},
    {"suggestedWindow": []},
    {"suggestedWindow": "soon"},
    {"suggestedWindow": {"start": WINDOW["start"]}},
    {"suggestedWindow": {**WINDOW, "end": 3}},
    {"suggestedWindow": {**WINDOW, "end": "yesterday"}},
    {"suggestedWindow": {**WINDOW, "end": WINDOW["start"]}},
    {"suggestedWindow": {**WINDOW, "end": "2027-01-20T04:00:00Z"}},
    {"suggestedWindow": {**WINDOW, "end": "2027-01-23T04:00:00"}},
    {"suggestedWindow": {**WINDOW, "end": "9999-12-31T23:59:59-01:00"}},
    {"suggestedWindow": {**WINDOW, "start": "0001-01-01T00:00:00+01:00"}},
]


@pytest.mark.parametrize("document", ODD)
def test_an_answer_of_another_form_says_nothing(document: Any) -> None:
    """RFC 9773, 4.3.3: a certificate is then renewed by its own window, and the CA is asked in six hours."""
    assert word(document) == SILENT


def test_no_answer_stumbles(request: pytest.FixtureRequest) -> None:
    """Whatever a window holds: a window that ends after its begin, or none."""
    texts = st.text(LATIN_1, max_size=30) | st.from_regex(
        r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})?",
        fullmatch=True,
    )
    values = texts | st.none() | st.integers() | st.lists(texts, max_size=2)

    def holds(drawn: tuple[Any, Any, Any]) -> None:
        start, end, url = drawn
        found = word({"suggestedWindow": {"start": start, "end": end}, "explanationURL": url})
        assert found.start is None or (found.end is not None and found.start < found.end)
        assert found.explanation_url is None or isinstance(found.explanation_url, str)

    for_all(request, st.tuples(values, values, values), holds, normal=60)


# -- over the network


@pytest.fixture
def asked_once() -> Iterator[None]:
    """What ends one question: asking again is told in test_answers.py."""
    set_testing(True, attempts=1)
    yield
    set_testing(False)


def ca_at(url: str, state_dir: Path) -> Ca:
    return Ca(url, state_dir, RenewalConfig(), clock=lambda: NOW, note=print)


def directory(info: str) -> bytes:
    fields = ("newNonce", "newAccount", "newOrder", "revokeCert")
    document = {"renewalInfo": info, **{field: f"https://ca.test/{field}" for field in fields}}
    return BEGUN + b"\r\n" + json.dumps(document).encode()


def test_the_word_of_a_ca_is_heard(tmp_path: Path) -> None:
    """Its directory says where to ask; the answer's window and Retry-After come back."""
    said = json.dumps({"suggestedWindow": WINDOW}).encode()
    with (
        answering(BEGUN + b"Retry-After: 7200\r\n\r\n" + said) as info,
        answering(directory(f"http://127.0.0.1:{info}/info")) as port,
    ):
        found = suggestion(ca_at(f"http://127.0.0.1:{port}/dir", tmp_path), ID, NOW)
    assert NOW + 2 * HOUR == found.ask_again
    assert datetime(2027, 1, 21, 4, 0, tzinfo=timezone.utc) == found.start


def test_a_ca_without_renewal_information_says_nothing(tmp_path: Path) -> None:
    """Many CAs have none: their certificates are renewed by their own window."""
    with answering(directory("").replace(b"renewalInfo", b"x")) as port:
        assert suggestion(ca_at(f"http://127.0.0.1:{port}/dir", tmp_path), ID, NOW) == SILENT


def test_an_unreachable_ca_is_told_apart(tmp_path: Path, asked_once: None) -> None:
    """When even the directory cannot be read, no order could be placed: the caller must know."""
    with pytest.raises(NoAnswer, match=r"127\.0\.0\.1"):
        suggestion(ca_at("https://127.0.0.1:9/dir", tmp_path), ID, NOW)


@pytest.mark.parametrize(
    "answer", [b"", BEGUN + b"X-Padding: ", BEGUN + b"\r\n{"], ids=["status", "header", "body"]
)
def test_a_ca_that_drips_holds_nobody_up(
    answer: bytes, tmp_path: Path, asked_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that comes octet by octet, for ever, ends at the deadline: the CA is not reachable."""
    monkeypatch.setattr(ca_module, "_SECONDS", 0.5)
    begun = time.monotonic()
    with (
        dripping(answer) as port,
        pytest.raises(NoAnswer, match=r"no complete answer within 0\.5 s"),
    ):
        suggestion(ca_at(f"http://127.0.0.1:{port}/dir", tmp_path), ID, NOW)
    assert time.monotonic() - begun < 3


def test_a_silent_ca_costs_a_run_one_wait(
    tmp_path: Path, asked_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a hundred certificates the first one waits for it; the others get its error at once."""
    monkeypatch.setattr(ca_module, "_SECONDS", 0.5)
    begun = time.monotonic()
    with dripping(BEGUN + b"\r\n{") as port:
        ca = ca_at(f"http://127.0.0.1:{port}/dir", tmp_path)
        for _ in range(100):
            with pytest.raises(NoAnswer, match="no complete answer"):
                suggestion(ca, ID, NOW)
    assert time.monotonic() - begun < 3


def test_a_ca_without_an_end_fills_no_memory(tmp_path: Path, asked_once: None) -> None:
    """A directory of more than 4 MiB is not read to its end: the CA is not reachable."""
    with (
        answering(BEGUN + b"\r\n" + b" " * 8 * 1024 * 1024) as port,
        pytest.raises(NoAnswer, match="4,194,304 octets"),
    ):
        suggestion(ca_at(f"http://127.0.0.1:{port}/dir", tmp_path), ID, NOW)


def test_a_dripping_renewal_information_says_nothing(
    tmp_path: Path, asked_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CA whose directory is there, and whose renewal information drips, counts as one that says nothing."""
    monkeypatch.setattr(ca_module, "_SECONDS", 0.5)
    with (
        dripping(BEGUN + b"\r\n{") as slow,
        answering(directory(f"http://127.0.0.1:{slow}/info")) as port,
    ):
        assert suggestion(ca_at(f"http://127.0.0.1:{port}/dir", tmp_path), ID, NOW) == SILENT


@pytest.mark.parametrize("field", ["newNonce", "newAccount", "newOrder", "revokeCert"])
def test_what_is_no_directory_is_told_by_what_it_lacks(field: str, tmp_path: Path) -> None:
    """Another page at that address is no CA, and the message says why."""
    other = directory("https://ca.test/info").replace(f"https://ca.test/{field}".encode(), b"/relative")
    with answering(other) as port, pytest.raises(ValueError, match=f"{field}: it is not an ACME directory"):
        suggestion(ca_at(f"http://127.0.0.1:{port}/dir", tmp_path), ID, NOW)


# -- in another process


def in_process(script: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_an_hour_ahead_is_an_hour_ahead_in_shanghai() -> None:
    """
    A host whose clock shows local time reads dates as the CA means them. The `acme` library takes an HTTP
    date for local time: an hour ahead became seven hours ago.
    """
    script = """
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from requests import Response
from certcast.acme.protocol.answers import retry_after
from certcast.acme.renewal_info import _moment
now = datetime.now(timezone.utc).replace(microsecond=0)
ahead = now + timedelta(hours=1)
print(datetime.now().astimezone().utcoffset())
for date in (format_datetime(ahead, usegmt=True), format_datetime(ahead.replace(tzinfo=None))):
    response = Response()
    response.headers["Retry-After"] = date  # GMT, and the "-0000" that no server should send
    print(retry_after(response, now) - now)
print(_moment(ahead.strftime("%Y-%m-%dT%H:%M:%SZ")) - now)
"""
    assert in_process(script, TZ="Asia/Shanghai").splitlines() == ["8:00:00", *["1:00:00"] * 3]


def test_asking_again_writes_nothing() -> None:
    """A run that went well at its second try sends no mail by cron."""
    script = """
import sys
from certcast.acme.protocol.answers import NoAnswer, ask_patiently
tries = []
def ask():
    tries.append(1)
    if len(tries) < 2:
        raise NoAnswer("https://ca.test", "reset")
    return len(tries)
sys.stderr = sys.stdout
print(ask_patiently(ask))
"""
    assert "2\n" == in_process(script)


def test_to_ask_needs_no_library_of_the_network() -> None:
    """Renewal information is read without `acme` and `cryptography`, which cost more than all the rest."""
    script = """
import sys
from certcast.acme import ca, renewal_info
from certcast.acme.protocol import answers
print({"acme", "josepy", "cryptography"} & set(sys.modules))
"""
    assert "set()\n" == in_process(script)
