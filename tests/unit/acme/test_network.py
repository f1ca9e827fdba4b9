"""One conversation with a CA where the connection, and not the CA, is the trouble."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from stamina import set_testing

from certcast.acme.protocol import network
from certcast.acme.protocol.answers import NoAnswer
from certcast.acme.protocol.network import Network
from sockets import dripping

HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nReplay-Nonce: bm9uY2U\r\n"


@pytest.fixture
def asked_once() -> Iterator[None]:
    set_testing(True, attempts=1)
    yield
    set_testing(False)


@pytest.mark.parametrize("answer", [b"", HEADERS + b"X-Padding: ", HEADERS + b"\r\n{"])
def test_an_answer_that_drips_is_no_answer(
    answer: bytes, asked_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was cut off at the deadline is never taken for the whole, also where its length was not said."""
    monkeypatch.setattr(network, "_SECONDS", 0.5)
    begun = time.monotonic()
    with dripping(answer) as port:
        url = f"http://127.0.0.1:{port}"
        key = ec.generate_private_key(ec.SECP256R1())
        ca = Network(key, "https://ca.test/account/1", f"{url}/nonce", lambda: datetime.now(timezone.utc))
        with pytest.raises(NoAnswer, match=r"no complete answer within 0\.5 s"):
            ca.read(f"{url}/order")
    assert time.monotonic() - begun < 3
