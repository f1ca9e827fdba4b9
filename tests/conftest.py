"""What all tests share: one lab, and a machine that leads nowhere.

Starting a lab costs a quarter of a second to a second (the CA's keys); making
a first day of it again costs milliseconds. So the session has one lab, and
each test that asks for `lab` finds it fresh: no hosts, no records, an empty
bucket, no mail, all switches off. What stays is the CA, with its root.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from certcast.report import redaction
from certcast_lab.lab import Lab

# The official credential chain would ask an ECS instance's metadata service, for seconds.
os.environ["ALIBABA_CLOUD_ECS_METADATA_DISABLED"] = "true"

# A process in the background (nohup, some CI) ignores these signals, and its children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The developer's own keys, proxies and configuration are no business of a test.
for name in list(os.environ):
    foreign = name.startswith(
        ("ALIBABA_CLOUD_ACCESS_KEY", "ALIBABA_CLOUD_SECURITY", "OSS_", "AWS_", "CERTCAST_")
    )
    if foreign or name.lower().endswith("_proxy"):
        del os.environ[name]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--long`: the tests with seeds and examples take ten times as many (`make long`)."""
    parser.addoption("--long", action="store_true", help="ten times as many seeds and examples")


# The nginx of the distribution, and a current one that scripts/current-nginx has put there.
CURRENT_NGINX = Path(__file__).parents[1] / ".venv-nginx/bin/nginx"


@pytest.fixture(params=["nginx of Debian", "current nginx"])
def nginx_program(request: pytest.FixtureRequest) -> str:
    """An nginx to run: what asks for it runs twice. One that needs the current alone asks `current_nginx`."""
    return "nginx" if request.param == "nginx of Debian" else _current()


@pytest.fixture
def current_nginx() -> str:
    """The current nginx alone. Its binary is built without HTTP/3: `listen … quic` is refused."""
    return _current()


def _current() -> str:
    if not CURRENT_NGINX.exists():
        pytest.fail("the current nginx is not here: run scripts/current-nginx (`make test` does)")
    return str(CURRENT_NGINX)


# Debian sid's pebble, which scripts/current-pebble has unpacked, or its reason for not having it.
CURRENT_PEBBLE = Path(__file__).parents[1] / ".venv-pebble"


@pytest.fixture(scope="session")
def current_pebble() -> Path:
    """The program of pebble 2.10, which knows profiles and `replaces`; without it the test is skipped."""
    program = CURRENT_PEBBLE / "usr/bin/pebble"
    if not program.exists():
        missing = CURRENT_PEBBLE / "missing"
        reason = missing.read_text().strip() if missing.exists() else "run scripts/current-pebble"
        pytest.skip(f"pebble 2.10 is not here: {reason}")
    return program


@pytest.fixture(autouse=True)
def nothing_is_struck_out_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test's secret is struck out of what the next one reads."""
    monkeypatch.setattr(redaction, "_known", set())


@pytest.fixture(scope="session")
def _one_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture
def lab(_one_lab: Lab) -> Iterator[Lab]:
    """A lab on its first day; when a test ends, no version of any object in the bucket is a private key."""
    try:
        yield _one_lab
        readable = [
            key
            for key, version in _one_lab.cloud.bucket.versions()
            if version.stored is not None and b"PRIVATE KEY" in version.stored.body
        ]
        assert [] == readable, "private keys lie open in the bucket"
    finally:
        _one_lab.reset()
