"""The floor for an order: a bare script on the `acme` library, without the library's sleeps.

    python bare_acme.py DIRECTORY ALIDNS_URL FOLDER NAMESERVER… -- NAME…

Account (kept in FOLDER), order, TXT at Alidns, wait for the nameservers, validate, finalize, write two files.
Nothing is checked, nothing is counted, nothing survives a crash, nothing is published.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dns.message
import dns.query
import josepy as jose
import requests
from acme import challenges, client, crypto_util, messages
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from signing_rpc import signed

if TYPE_CHECKING:
    from collections.abc import Iterable

PAUSE = 0.05
ZONE = "example.test"


def alidns(session: requests.Session, url: str, **parameters: str) -> dict[str, str]:
    """Call one action of the DNS API, signed by RPC-SHA1."""
    answer = session.get(url, params=signed(parameters), timeout=10)
    answer.raise_for_status()
    found: dict[str, str] = answer.json()
    return found


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as a file holds it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def account(folder: Path, directory_url: str) -> client.ClientV2:
    """Return a client with the account that the first run has made."""
    path, uri = folder / "account.pem", folder / "account.uri"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    loaded = load_pem_private_key(path.read_bytes(), None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    net = client.ClientNetwork(jose.JWKEC(key=loaded), alg=jose.ES256)
    acme = client.ClientV2(client.ClientV2.get_directory(directory_url, net), net)
    if uri.exists():
        net.account = messages.RegistrationResource(uri=uri.read_text(), body=messages.Registration())
    else:
        uri.write_text(acme.new_account(messages.NewRegistration(terms_of_service_agreed=True)).uri)
    return acme


def main() -> None:
    """Order one certificate."""
    directory_url, url, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    middle = sys.argv.index("--")
    servers = [address.rsplit(":", 1) for address in sys.argv[4:middle]]
    names = sys.argv[middle + 1 :]
    acme = account(folder, directory_url)
    key = pem(ec.generate_private_key(ec.SECP256R1()))
    order = acme.new_order(crypto_util.make_csr(key, names))
    pending = [
        (one.body.identifier.value, body)
        for one in order.authorizations
        if one.body.status == messages.STATUS_PENDING
        for body in one.body.challenges
        if isinstance(body.chall, challenges.DNS01)
    ]
    session = requests.Session()
    records = add(session, url, acme, pending)
    wait(servers, records.values())
    for _, body in pending:
        acme.answer_challenge(body, body.chall.response(acme.net.key))
    fullchain = issued(acme, order)
    for record in records:
        alidns(session, url, Action="DeleteDomainRecord", RecordId=record)
    (folder / "privkey.pem").write_bytes(key)
    (folder / "fullchain.pem").write_bytes(fullchain)


def add(
    session: requests.Session, url: str, acme: client.ClientV2, pending: list[tuple[str, Any]]
) -> dict[str, tuple[str, str]]:
    """Add the TXT records; return their ids, with name and value."""
    records = {}
    for domain, body in pending:
        label = f"_acme-challenge.{domain}".removesuffix(f".{ZONE}")
        value = body.chall.validation(acme.net.key)
        wanted = {"DomainName": ZONE, "RR": label, "Type": "TXT", "Value": value, "TTL": "600"}
        added = alidns(session, url, Action="AddDomainRecord", **wanted)
        records[added["RecordId"]] = (f"{label}.{ZONE}", value)
    return records


def wait(servers: list[list[str]], records: Iterable[tuple[str, str]]) -> None:
    """Return when each nameserver shows each record."""
    for host, port in servers:
        for name, value in records:
            while value not in str(dns.query.udp(dns.message.make_query(name, "TXT"), host, 5, int(port))):
                time.sleep(PAUSE)


def issued(acme: client.ClientV2, order: messages.OrderResource) -> bytes:
    """Finalize as soon as the CA has validated, and return the chain."""
    while True:
        state = messages.Order.from_json(acme._post_as_get(order.uri).json())
        if state.status == messages.STATUS_READY:
            acme.begin_finalization(order)
        elif state.status == messages.STATUS_VALID:
            chain: bytes = acme._post_as_get(state.certificate).content
            return chain
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
