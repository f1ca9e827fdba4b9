"""A CA that may answer anything: each run ends with a certificate, or with an error in words.

A real CA takes an order; on the way to certcast one of its answers is changed, once or for good: noise, JSON
of another form, another status, headers that are missing or odd, half a body, none. 100 cases, with `--long`
10,000. After each one that failed, the same host orders again from a CA whose answers come through.

The seeds are fixed; keys, nonces and certificates are new each time, so a failure shows what was changed.
"""

from __future__ import annotations

import io
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import stamina
from cryptography import x509
from requests import PreparedRequest, Response

from certcast.acme import order as order_module
from certcast.acme.ca import Ca
from certcast.acme.issuance import Issuance
from certcast.acme.issued import Issued
from certcast.acme.order import OrderRequest
from certcast.acme.protocol.answers import NoAnswer, Problem
from certcast.acme.renewal_info import suggestion
from certcast.config.model import CertificateConfig, RenewalConfig
from certcast.dns01.challenges import Challenge
from certcast.host import transport
from certcast.release import certificate
from certcast.release.source import Release
from certcast.report.errors import CertcastError
from certcast_lab.acme.pebble import Pebble
from certcast_lab.serving.authority import Authority
from held import issued
from mutants import noise

NAME, NAMES = "example.test", ("example.test", "*.example.test")
# pebble's paths, by RFC 8555's words.
ACTIONS = {
    "/dir": "directory",
    "/nonce-plz": "newNonce",
    "/sign-me-up": "newAccount",
    "/order-plz": "newOrder",
    "/authZ/": "authz",
    "/chalZ/": "challenge",
    "/my-order/": "order",
    "/finalize-order/": "finalize",
    "/certZ/": "certificate",
}
WINDOW = {
    "suggestedWindow": {"start": "2026-12-01T00:00:00Z", "end": "2026-12-02T00:00:00Z"},
    "explanationURL": "https://ca.test/why",
}


# -- what is changed


@dataclass
class Change:
    """One kind of answer, changed from the `first`-th on, once or (`always`) each time."""

    action: str
    first: int
    always: bool
    rnd: random.Random
    how: list[str] = field(default_factory=list)
    seen: int = 0

    @classmethod
    def drawn(cls, rnd: random.Random) -> Change:
        action = rnd.choice(list(ACTIONS.values()))
        return cls(action, rnd.choice([0, 0, 0, 1]), rnd.random() < 0.3, rnd)

    def apply(self, action: str, response: Response) -> None:
        """Change the answer in place, or raise what requests raises where none arrives."""
        if action != self.action:
            return
        self.seen += 1
        if self.seen <= self.first or (self.how and not self.always):
            return
        for _ in range(self.rnd.choice([1, 1, 1, 2])):
            self.how.append(self.rnd.choice(CHANGES)(self.rnd, response))


def _bodied(response: Response, body: bytes) -> None:
    response._content = body


def _with_noise(rnd: random.Random, response: Response) -> str:
    how, body = noise(rnd, response.content, b'{"status": "valid"}\n')
    _bodied(response, body)
    return how


def _edited(rnd: random.Random, response: Response) -> str:
    """One or two places of the JSON document are something else."""
    try:
        document = json.loads(response.content)
    except (ValueError, RecursionError):  # changed before
        return _with_noise(rnd, response)
    how = []
    for _ in range(rnd.choice([1, 1, 2])):
        places = list(_places(document))
        if not places:
            break
        holder, key = rnd.choice(places)
        kind, value = rnd.choice(_VALUES)(rnd, holder[key])
        how.append(f"{key}: {kind}")
        if kind == "dropped":
            del holder[key]
        else:
            holder[key] = value
    _bodied(response, json.dumps(document).encode())
    return ", ".join(how)


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON document that can be changed."""
    keys = list(document) if isinstance(document, dict) else range(len(document))
    for key in keys:
        yield document, key
        if isinstance(document[key], dict | list):
            yield from _places(document[key])


_WORDS = ("pending", "ready", "processing", "valid", "invalid", "deactivated", "expired", "revoked", "new")
_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 10**30, 1.5, "", " ", "x" * 100_000, "\ud800", "\x1b[31m\n", "\u202e"),
    *(
        [],
        {},
        [None],
        [[]],
        {"": None},
        "https://",
        "ftp://127.0.0.1/x",
        "https://127.0.0.1:1/x",
        "/relative",
    ),
)
_VALUES: list[Callable[[random.Random, Any], tuple[str, Any]]] = [
    lambda rnd, old: ("dropped", None),
    lambda rnd, old: ("odd", rnd.choice(_ODD)),
    lambda rnd, old: ("odd", rnd.choice(_ODD)),
    lambda rnd, old: ("a status", rnd.choice(_WORDS)),
    lambda rnd, old: ("in a list", [old]),
    lambda rnd, old: ("in an object", {"value": old}),
    lambda rnd, old: ("doubled", old + old if isinstance(old, str | list) else [old, old]),
    lambda rnd, old: ("cut", old[: len(old) // 2] if isinstance(old, str | list) else str(old)),
    lambda rnd, old: (
        "a letter changed",
        _letter(rnd, old) if isinstance(old, str) and old else {"type": "odd"},
    ),
]


def _letter(rnd: random.Random, text: str) -> str:
    at = rnd.randrange(len(text))
    return text[:at] + chr(rnd.randrange(33, 126)) + text[at + 1 :]


def _nested(rnd: random.Random, response: Response) -> str:
    """Deeper than Python's own stack."""
    _bodied(response, b'{"status": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    return "nested deeply"


_HEADERS = ("Location", "Replay-Nonce", "Retry-After", "Link", "Content-Type")
_ODD_HEADERS = (
    *("", " ", "0", "-1", "1", "9" * 30, "soon", "Fri, 31 Dec 9999 23:59:59 GMT"),
    *("Mon, 1 Jan 0001 00:00:00 +1400", "!!!", "\u00e9", "a" * 10_000, "https://", "/relative"),
    *("https://127.0.0.1:1/x", '<;rel="alternate"', "<>"),
)  # fmt: skip


def _header(rnd: random.Random, response: Response) -> str:
    name = rnd.choice([*response.headers, *_HEADERS])
    if rnd.random() < 0.4:
        response.headers.pop(name, None)
        return f"no {name}"
    old = response.headers.get(name, "")
    response.headers[name] = rnd.choice([*_ODD_HEADERS, _letter(rnd, old) if old else "x", old + old])
    return f"{name}: {response.headers[name][:40]!r}"


def _status(rnd: random.Random, response: Response) -> str:
    statuses = (200, 201, 204, 206, 301, 304, 400, 401, 403, 404, 405, 409, 410, 429, 500, 502, 503, 504, 599)
    response.status_code = rnd.choice(statuses)
    return f"status {response.status_code}"


_TYPES = (
    *("accountDoesNotExist", "alreadyReplaced", "badCSR", "badNonce", "badPublicKey", "caa", "connection"),
    *("dns", "externalAccountRequired", "malformed", "orderNotReady", "rateLimited", "rejectedIdentifier"),
    *("serverInternal", "unauthorized", "userActionRequired", "nobodyKnows"),
)


def _problem(rnd: random.Random, response: Response) -> str:
    """A problem document (RFC 8555, 6.7), whole or itself changed."""
    type_ = rnd.choice(_TYPES)
    named = {"type": "dns", "value": rnd.choice(NAMES)}
    document: dict[str, Any] = {
        "type": f"urn:ietf:params:acme:error:{type_}",
        "detail": rnd.choice(["refused", "\ud800", "\x1b[31m", "x" * 10_000]),
        "subproblems": [{"type": "urn:ietf:params:acme:error:caa", "detail": "no", "identifier": named}],
    }
    response.status_code = rnd.choice([400, 403, 404, 409, 429, 500, 503])
    _bodied(response, json.dumps(document).encode())
    if rnd.random() < 0.5:
        response.headers["Retry-After"] = rnd.choice(["0", "1", "3600", *_ODD_HEADERS])
    changed = _edited(rnd, response) if rnd.random() < 0.4 else ""
    return f"{response.status_code} {type_} {changed}"


def _no_answer(rnd: random.Random, response: Response) -> str:
    if rnd.random() < 0.5:
        _bodied(response, b"")
        return "no body"
    response.status_code = 0
    return "no answer"


CHANGES = [_with_noise, _with_noise, _edited, _edited, _edited, _edited, _nested, _header, _header, _status,
           _problem, _problem, _no_answer]  # fmt: skip


# -- where it is changed


class Wire:
    """Between certcast and the CA: every answer passes here; nobody but the CA can be asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
        self.change: Change | None = None
        real = transport.BoundedAdapter.send

        def send(adapter: Any, request: PreparedRequest, *given: Any, **named: Any) -> Response:
            url = urlsplit(str(request.url))
            if (url.hostname, url.port) != ("127.0.0.1", port):
                raise requests.ConnectionError("connection refused", request=request)
            if url.path.startswith("/renewal-info/"):
                response = _made(request, WINDOW)
            else:
                response = real(adapter, request, *given, **named)
            response.content  # noqa: B018  # reads it
            action = next((word for path, word in ACTIONS.items() if url.path.startswith(path)), url.path)
            if self.change is not None:
                self.change.apply(action, response)
            if not response.status_code:
                raise requests.ConnectionError("the connection was cut", request=request)
            return response

        monkeypatch.setattr(transport.BoundedAdapter, "send", send)


def _made(request: PreparedRequest, document: object) -> Response:
    response = Response()
    response.status_code, response.url, response.request = 200, str(request.url), request
    response.raw = io.BytesIO(json.dumps(document).encode())
    response.headers["Retry-After"] = "21600"
    return response


class Txt:
    """Challenges whose records are seen at once; `left` are those that nobody has removed."""

    def __init__(self) -> None:
        self.left: set[str] = set()

    def present_orders(
        self,
        orders: Mapping[str, Sequence[Challenge]],
        now: datetime,
        *,
        seen: Callable[[str], None],
        failed: Callable[[str, CertcastError], None],
        stopped: Callable[[], bool],
    ) -> None:
        for url, challenges in orders.items():
            assert {challenge.domain for challenge in challenges} <= {NAME}
            self.left.add(url)
            seen(url)

    def cleanup_orders(self, orders: Iterable[str]) -> list[CertcastError]:
        self.left -= set(orders)
        return []


@dataclass
class Host:
    """A renewal host that holds A, and orders from the CA."""

    wire: Wire
    pebble: Pebble
    saved: Path
    state: Path
    live: Release
    issuers: list[x509.Certificate]

    def begin(self, change: Change | None) -> None:
        """Hold A, and an account where none is to be made; from now on, answers are changed."""
        self.wire.change = change
        shutil.rmtree(self.state, ignore_errors=True)
        shutil.copytree(self.saved, self.state)
        if change is not None and change.action == "newAccount":
            shutil.rmtree(self.state / "acme")

    def order(self, rnd: random.Random, later: timedelta = timedelta()) -> str:
        """Order once, so much later; return "issued", or the error's code."""
        notes: list[str] = []
        renewal = RenewalConfig(
            directory=f"https://127.0.0.1:{self.pebble.port}/dir", terms_of_service_agreed=True
        )

        def ca_at(url: str) -> Ca:
            return Ca(url, self.state, renewal, clock=lambda: now() + later, note=notes.append)

        txt = Txt()
        issuance = Issuance(
            ca_at(renewal.directory),
            txt,  # type: ignore[arg-type]  # what it needs of Challenges
            store_of=lambda name: Issued(self.state, name),
            ca_at=ca_at,
            note=notes.append,
        )
        chain = rnd.choice([None, None, "nobody's root"])
        wanted = OrderRequest(
            CertificateConfig(NAME, NAMES, preferred_chain=chain),
            replaces=rnd.choice([None, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"]),
        )
        outcome = issuance.issue([wanted])[NAME]
        assert set() == txt.left
        if isinstance(outcome, CertcastError):
            report = outcome.report()
            report.encode()
            assert "Traceback" not in report
            assert outcome.next, report
            assert "stays" in str(outcome.kept), report
            return outcome.code
        self.require_ordered(outcome)
        return "issued"

    def require_ordered(self, release: Release) -> None:
        """Whatever was changed: the CA's own certificate of our names and key is what is stored."""
        chain = certificate.read_chain(release.fullchain)
        assert set(NAMES) == set(release.leaf.names)
        assert certificate.key_fits(certificate.read_key(release.privkey), release.leaf)
        for issuer in self.issuers:
            if chain.leaf.issuer == issuer.subject:
                chain.leaf.verify_directly_issued_by(issuer)
                return
        raise AssertionError("not the CA's certificate")

    def require_nothing_lost(self, outcome: str) -> None:
        """A is live and whole, or the new one is."""
        held = Issued(self.state, NAME).live()
        if outcome == "issued":
            self.require_ordered(held)
        else:
            assert (self.live.fullchain, self.live.privkey) == (held.fullchain, held.privkey)


def now() -> datetime:
    return datetime.now(timezone.utc)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("mutated")
    authority = Authority("lab")
    with pytest.MonkeyPatch.context() as monkeypatch:
        pebble = Pebble(
            folder / "pebble",
            authority,
            resolver=("127.0.0.1", 1),
            believes_everything=True,
            alternate_chains=1,
        )
        try:
            (folder / "authority.pem").write_bytes(authority.pem)
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folder / "authority.pem"))
            # Waiting costs nothing here, and nothing is waited for long.
            monkeypatch.setattr(order_module, "_FIRST_PAUSE", 0.002)
            monkeypatch.setattr(order_module, "_LONGEST_PAUSE", 0.05)
            monkeypatch.setattr(order_module, "_PATIENCE", 0.5)
            live = issued(folder / "saved", NAME, Authority("A", parent=Authority("R")).issue(*NAMES))
            issuers = [x509.load_pem_x509_certificate(pebble.intermediate_pem())]
            made = Host(
                Wire(monkeypatch, pebble.port), pebble, folder / "saved", folder / "state", live, issuers
            )
            made.begin(None)
            stamina.set_testing(True, attempts=4)
            assert "issued" == made.order(random.Random(0))  # makes the account
            shutil.copytree(made.state / "acme", made.saved / "acme")
            for limits in made.saved.glob("acme/*/limits.json"):
                limits.unlink()
            yield made
        finally:
            stamina.set_testing(False)
            pebble.stop()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(100 if metafunc.config.getoption("--long") else 1))


EACH = 100


def test_no_answer_of_a_ca_costs_what_is_live(host: Host, seed: int) -> None:
    """
    A hundred changed answers for each seed: every run ends with the ordered certificate or with an error that
    has a code, what is kept and a next step; A stays live until another is whole, and no record is left. The
    next run succeeds without help; at the latest nine days later, where it was told to wait or the order's
    URL was lost.
    """
    rnd = random.Random(seed)
    codes: Counter[str] = Counter()
    for case in range(EACH):
        change = Change.drawn(rnd)
        host.begin(change)
        described = f"seed {seed}, case {case}, {change.action}"
        try:
            outcome = host.order(rnd)
            host.require_nothing_lost(outcome)
            host.wire.change = None
            if outcome != "issued":
                again = host.order(rnd)
                if again != "issued":
                    assert again == "RATE-LIMITED" or change.action == "newOrder", f"after {outcome}: {again}"
                    later = host.order(rnd, timedelta(days=9))
                    assert "issued" == later, f"after {outcome}, {again}: {later}"
                host.require_nothing_lost("issued")
        except Exception as error:
            raise AssertionError(f"{described}: {change.how}") from error
        codes[outcome] += 1
    print(f"seed {seed}: {dict(codes)}")  # noqa: T201  # shown with -s, and with a failure
    assert {"issued", "CA-ANSWER"} < set(codes)


def test_renewal_information_may_be_anything(host: Host, seed: int) -> None:
    """
    A changed answer of RFC 9773 ends in a window in UTC, or in none; it is asked again between a minute and
    a day later, and only the directory's own failure is told.
    """
    rnd = random.Random(seed)
    renewal = RenewalConfig(directory=f"https://127.0.0.1:{host.pebble.port}/dir")
    windows = 0
    for case in range(EACH):
        host.wire.change = change = Change("/renewal-info/x.y", 0, always=True, rnd=rnd)
        ca = Ca(renewal.directory, host.state, renewal, clock=now, note=lambda _: None)
        ca.__dict__["_directory"] = {"renewalInfo": f"https://127.0.0.1:{host.pebble.port}/renewal-info/"}
        asked = now()
        try:
            said = suggestion(ca, "x.y", asked)
        except (NoAnswer, Problem, ValueError) as error:
            raise AssertionError(f"seed {seed}, case {case}: {change.how}") from error
        assert timedelta(minutes=1) <= said.ask_again - asked <= timedelta(days=1), change.how
        if said.start is not None:
            windows += 1
            assert said.end is not None
            assert said.start < said.end
            assert timedelta(0) == said.start.utcoffset() == said.end.utcoffset()
            assert said.chosen("f" * 64) is not None
    assert 0 < windows < EACH
