"""Where a host finds the bucket: inside Alibaba Cloud, by the bucket's own domain, over the public network.

The endpoints have their real names here. A proxy stands for the network that a host is in: it knows
the ways that are open there, and refuses the others; behind it is the emulated OSS, with TLS.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from certcast_lab.aliyun.cloud import BUCKET, PREFIX, REGION
from certcast_lab.lab import Lab
from certcast_lab.serving.asgi import Server, server_context
from certcast_lab.serving.intercept import Intercept
from journey import Done, Journey

INTERNAL = f"oss-{REGION}-internal.aliyuncs.com"
PUBLIC = f"oss-{REGION}.aliyuncs.com"
CUSTOM = "certs.example.test"


class Network:
    """A consumer host, the proxy that is its way out, and what is published for it."""

    def __init__(self, lab: Lab, stack: ExitStack) -> None:
        self.lab = lab
        names = [f"{BUCKET}.{INTERNAL}", f"{BUCKET}.{PUBLIC}", CUSTOM]
        tls = server_context(*lab.authority.issue(*names))
        self.port = stack.enter_context(Server(lab.cloud.oss, tls=tls)).port
        self.proxy = stack.enter_context(Intercept({}))
        lab.cloud.bucket.domain = CUSTOM
        self.journey = Journey(lab)
        assert 0 == self.journey.renew().returncode
        self.journey.first_pull("web1")
        self.opens()

    def opens(self, *hosts: str) -> None:
        """Let these hosts be reached, and no others."""
        self.proxy.routes = dict.fromkeys(hosts, self.port)
        self.proxy.connected.clear()
        self.proxy.refused.clear()
        self.before = len(self.lab.cloud.oss.requests)

    def endpoints(self, *hosts: str) -> None:
        """Write them into the consumer's configuration; none at all for none."""
        listed = json.dumps([f"https://{host}" for host in hosts])
        self.journey.consumer(
            "web1", f'endpoints = ["{self.lab.oss_url}"]', f"endpoints = {listed}" if hosts else ""
        )

    def pull(self) -> Done:
        """Run `certcast pull --now` on the host, whose way out is the proxy."""
        extra = {"HTTPS_PROXY": self.proxy.url, "NO_PROXY": "localhost"}
        toml = self.lab.host("web1").certcast_toml
        return self.lab.certcast(toml, "pull", "--now", user="consumer", extra=extra)

    @property
    def tried(self) -> list[str]:
        """The hosts that were asked for since `opens`, in their order, those in vain with a minus."""
        said = [f"-{host}" for host in self.proxy.refused] + self.proxy.connected
        return [host.removesuffix(":443") for host in said]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """One for all tests: a first certificate, issued, published and installed, takes seconds."""
    with ExitStack() as stack:
        yield Network(stack.enter_context(Lab(tmp_path_factory.mktemp("endpoints"))), stack)


@pytest.fixture
def network(running: Network) -> Iterator[Network]:
    """The running one, as after its first pull."""
    cloud = running.lab.cloud
    policies = cloud.consumer.policies
    running.opens()
    try:
        yield running
    finally:
        cloud.bucket.public, cloud.consumer.policies, cloud.oss.clock = True, policies, time.time


def assert_read(network: Network, done: Done) -> None:
    """The manifest and the sealed key were looked at, and are those that the host has already."""
    assert (0, "") == (done.returncode, done.stderr)
    asked = network.lab.cloud.oss.requests[network.before :]
    assert {304} == {one.status for one in asked}
    manifest, sealed = sorted({str(one.key) for one in asked})
    assert f"{PREFIX}/certs/example.test/manifest" == manifest
    assert "/keys/web1." in sealed


def test_internal_endpoint(network: Network) -> None:
    """Inside Alibaba Cloud the internal endpoint serves: nothing else is asked."""
    network.lab.cloud.bucket.public = False
    network.endpoints(INTERNAL, CUSTOM, PUBLIC)
    network.opens(f"{BUCKET}.{INTERNAL}", CUSTOM, f"{BUCKET}.{PUBLIC}")

    assert_read(network, network.pull())

    assert [f"{BUCKET}.{INTERNAL}"] == network.tried


def test_unreachable_endpoint_is_asked_once_a_run(network: Network) -> None:
    """
    A host elsewhere has the same list. Each run finds once that the internal endpoint isn't reached there,
    and sends all its requests to the public one. As soon as the better one is reached, it serves.
    """
    network.endpoints(INTERNAL, PUBLIC)
    network.opens(f"{BUCKET}.{PUBLIC}")
    assert_read(network, network.pull())
    assert [f"-{BUCKET}.{INTERNAL}", f"{BUCKET}.{PUBLIC}"] == network.tried

    network.opens(f"{BUCKET}.{INTERNAL}", f"{BUCKET}.{PUBLIC}")
    assert_read(network, network.pull())
    assert [f"{BUCKET}.{INTERNAL}"] == network.tried


def test_custom_domain(network: Network) -> None:
    """
    The bucket's own domain serves where the others are closed: the bucket's name is in neither host nor
    path, and in what is signed. A new release is taken over through it.
    """
    network.endpoints(INTERNAL, CUSTOM, PUBLIC)
    network.opens(CUSTOM)
    network.journey.want_replaced()
    assert 0 == network.journey.renew().returncode

    done = network.pull()

    assert 0 == done.returncode, done.stderr
    assert network.journey.live().leaf.sha256 == network.journey.served("web1")
    assert {f"-{BUCKET}.{INTERNAL}", CUSTOM} == set(network.tried)


def test_a_refused_public_endpoint(network: Network) -> None:
    """
    An account of after March 2025 that knows the public endpoint alone: the report names the internal one
    in full, and the custom domain, and says that what was installed stays.
    """
    network.lab.cloud.bucket.public = False
    network.endpoints(PUBLIC)
    network.opens(f"{BUCKET}.{PUBLIC}")

    done = network.pull()

    assert 21 == done.returncode, done.stderr
    assert "the public endpoint is closed to this account" in done.stderr
    assert f"https://{INTERNAL}" in done.stderr
    assert "custom domain (CNAME)" in done.stderr
    assert "PublicEndpointForbidden" in done.stderr
    assert network.journey.live().leaf.sha256 == network.journey.served("web1")


def test_a_refused_public_endpoint_hands_over_to_the_next(network: Network) -> None:
    """With the public endpoint in front, the account's closed door is no obstacle to the one behind it."""
    network.lab.cloud.bucket.public = False
    network.endpoints(PUBLIC, CUSTOM)
    network.opens(f"{BUCKET}.{PUBLIC}", CUSTOM)

    done = network.pull()

    assert (0, "") == (done.returncode, done.stderr)
    assert [f"{BUCKET}.{PUBLIC}", CUSTOM] == network.tried


def test_no_endpoint_at_all(network: Network) -> None:
    """Without store.endpoints the region's public endpoint is used."""
    network.endpoints()
    network.opens(f"{BUCKET}.{PUBLIC}")

    assert_read(network, network.pull())


def test_a_refusal_by_oss_is_final(network: Network) -> None:
    """A missing right at the endpoint that is reached is reported, and not asked for again elsewhere."""
    network.endpoints(INTERNAL, PUBLIC)
    network.lab.cloud.consumer.policies = []
    network.opens(f"{BUCKET}.{INTERNAL}", f"{BUCKET}.{PUBLIC}")

    done = network.pull()

    assert 21 == done.returncode, done.stderr
    assert [f"{BUCKET}.{INTERNAL}"] == network.tried
    assert "ALIBABA_CLOUD_ACCESS_KEY_ID of the environment" in done.stderr


def test_no_endpoint_can_be_reached(network: Network) -> None:
    """A host whose network is down reads what was tried and how each failed."""
    network.endpoints(INTERNAL, PUBLIC)
    network.opens()

    done = network.pull()

    assert 20 == done.returncode, done.stderr
    assert "none of its 2 endpoints can be used" in done.stderr
    assert f"https://{INTERNAL}: " in done.stderr
    assert f"https://{PUBLIC}: " in done.stderr


def test_a_wrong_clock(network: Network) -> None:
    """A host that is three hours behind reads that, with both times, and nothing of keys and signatures."""
    network.endpoints(INTERNAL)
    network.opens(f"{BUCKET}.{INTERNAL}")
    network.lab.cloud.oss.clock = lambda: time.time() + 3 * 3600

    done = network.pull()

    assert 24 == done.returncode, done.stderr
    assert "the clock of this host is wrong" in done.stderr
    assert "3 hours behind" in done.stderr
    assert "AccessKey" not in done.stderr


def test_a_closed_port_costs_no_wait(network: Network) -> None:
    """An internal endpoint whose port is closed hands over within the same second."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        closed = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    host = network.journey.consumer(
        "web1", f'endpoints = ["{network.lab.oss_url}"]', f'endpoints = ["{closed}", "{network.lab.oss_url}"]'
    )

    done = network.lab.certcast(host.certcast_toml, "pull", "--now", user="consumer")

    assert_read(network, done)
