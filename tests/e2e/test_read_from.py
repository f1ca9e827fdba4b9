"""Hosts that have no credentials at all: they read the store from a relay, by plain GET.

The relay is a real nginx as an administrator sets it up (docs/relay.md): by https with a copy
of the objects, or by http in front of a bucket that lets the relay's network in.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from certcast_lab.aliyun.cloud import ACCOUNT, BUCKET, PREFIX
from certcast_lab.lab import CERTCAST, Lab
from certcast_lab.oss.oss_bucket import Stored
from certcast_lab.web.relay import Relay
from journey import Done, Journey

MANIFEST = f"/{PREFIX}/certs/example.test/manifest"


class Copy:
    """An https relay of a folder, into which somebody copies the bucket from time to time."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.objects = folder / "objects"
        self.objects.mkdir()
        pair = lab.authority.issue(ips=("127.0.0.1",))
        self.relay = Relay(folder / "relay", PREFIX, root=self.objects, tls=pair)

    def follow(self) -> None:
        """What `ossutil sync` does, a minute ago; the manifest last."""
        bucket, ago = self.lab.cloud.bucket, time.time() - 60
        for key in sorted(bucket.keys(f"{PREFIX}/"), key=lambda key: key.endswith("/manifest")):
            path, stored = self.objects / key.removeprefix(f"{PREFIX}/"), bucket.get(key)
            assert stored
            if not path.exists() or path.read_bytes() != stored.body:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(stored.body)
                os.utime(path, (ago, ago))


class Front:
    """An http relay that asks the bucket, whose policy lets the relay's network in."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.relay = Relay(folder / "relay", PREFIX, behind=f"{lab.oss_url}/{BUCKET}/{PREFIX}")
        lab.cloud.bucket.policy = {
            "Version": "1",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": ["*"],
                    "Action": ["oss:GetObject"],
                    "Resource": [f"acs:oss:*:{ACCOUNT}:{BUCKET}/{PREFIX}/certs/*"],
                    "Condition": {"StringEquals": {"acs:SourceVpc": ["vpc-lab"]}},
                }
            ],
        }

    def follow(self) -> None:
        """It shows the bucket as it is. An ETag is used from the third second on."""
        time.sleep(2.1)


class Bare:
    """A host that reads from a relay, and whose environment has no key and whose home has no file."""

    def __init__(self, journey: Journey, relay: Relay, home: Path) -> None:
        self.journey = journey
        self.home = home
        self.host = journey.consumer(
            "web1", f'endpoints = ["{journey.lab.oss_url}"]', f'read_from = "{relay.url}"'
        )

    def pull(self, *arguments: str) -> Done:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true",
            "REQUESTS_CA_BUNDLE": str(self.journey.lab.ca_file),
        }
        argv = [CERTCAST, "--config", str(self.host.certcast_toml), "pull", *arguments]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


@contextmanager
def started(relay: Relay) -> Iterator[Relay]:
    try:
        yield relay.start()
    finally:
        relay.stop()


@pytest.mark.parametrize("kind", [Copy, Front], ids=["https copy", "http front"])
def test_a_host_without_credentials(lab, tmp_path, kind):
    """
    A host with no AccessKey anywhere takes the certificate over through a relay, proved as ever. Asked
    again, nothing is transferred but two 304s. The next certificate comes the same way.
    """
    journey = Journey(lab)
    way = kind(lab, tmp_path)
    (tmp_path / "home").mkdir()
    with started(way.relay) as relay:
        bare = Bare(journey, relay, tmp_path / "home")
        assert 0 == journey.renew().returncode
        way.follow()

        assert 39 == bare.pull().returncode
        bare.host.include(bare.host.certcast_folder / "certs/example.test/nginx.conf")
        done = bare.pull()
        assert 0 == done.returncode, done.stderr
        first = journey.served("web1")
        assert journey.published() == first

        before = len(relay.asked())
        done = bare.pull("--now")
        assert (0, "") == (done.returncode, done.stdout)
        asked = relay.asked()[before:]
        assert f"{MANIFEST} 304" == asked[0]
        assert {"304"} == {line.rpartition(" ")[2] for line in asked}

        journey.want_replaced()
        assert 0 == journey.renew().returncode
        way.follow()
        done = bare.pull("--now")
        assert 0 == done.returncode, done.stderr
        assert journey.published() == journey.served("web1") != first
    assert [] == [request for request in lab.cloud.oss.requests if request.user == lab.cloud.consumer.name]


PAGE = Path(__file__).parents[2] / "docs/relay.md"


@pytest.mark.parametrize("number", [0, 1], ids=["http front", "https copy"])
def test_the_configurations_of_the_page(lab, tmp_path, number):
    """The nginx configurations of docs/relay.md work as printed, and let nobody write."""
    server = re.findall(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)[number]
    way = (Front, Copy)[number](lab, tmp_path)
    lab.cloud.bucket.put(f"{PREFIX}/certs/example.test/manifest", Stored(b"signed", 0))
    if isinstance(way, Copy):
        way.follow()
    front = re.search(r"proxy_pass https://[^/]+/certcast", server)
    for printed, here in {
        "/etc/nginx/relay": str(tmp_path),
        "/srv/certcast": str(tmp_path / "objects"),
        front[0] if front else "proxy_pass": f"proxy_pass {lab.oss_url}/{BUCKET}/{PREFIX}",
    }.items():
        server = server.replace(printed, here)
    lab.authority.issue("relay.example.com", ips=("127.0.0.1",)).write(tmp_path)

    with started(Relay(tmp_path / "relay", PREFIX, server=server)) as relay:
        answers = {
            method: requests.request(
                method,
                f"https://127.0.0.1:{relay.port}/certcast/certs/example.test/{name}",
                headers={"Host": "relay.example.com"},
                verify=str(lab.ca_file),
                timeout=60,
            )
            for method, name in (("GET", "manifest"), ("PUT", "manifest"), ("DELETE", "manifest"))
        }
    assert b"signed" == answers["GET"].content
    assert [403, 403] == [answers[method].status_code for method in ("PUT", "DELETE")]
    assert lab.cloud.bucket.get(f"{PREFIX}/certs/example.test/manifest")
