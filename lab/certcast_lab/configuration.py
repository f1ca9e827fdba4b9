"""certcast.toml for the hosts of the lab: what an operator would write, with the lab's addresses.

The two texts differ from a real host's in a few lines only: the endpoints of the
three services, `trust_roots`, since no public root signs for the lab, and where keys lie.

A host that gets a configuration is enrolled, and may do what `certcast policy consumer` prints
for it. The USUAL hosts are enrolled from the beginning, as in a new fleet. With `keys` off, the
test makes the keys itself, where the configuration expects them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from certcast_lab.aliyun.cloud import ACCOUNT, BUCKET, PREFIX, REGION
from certcast_lab.lab import Lab
from certcast_lab.web.hosts import WebHost

Names = dict[str, tuple[str, ...]]
"""Certificates by their name, each with the DNS names that it must hold."""

USUAL = ("renewal", "web1", "web2", "web3")
"""Names of hosts that are enrolled before anything is published."""

EXAMPLE: Names = {"example.test": ("example.test", "*.example.test")}


def consumer_toml(lab: Lab, host: WebHost, certificates: Names = EXAMPLE, *, keys: bool = True) -> str:
    """Return the configuration of a host that serves `certificates` with its nginx."""
    lab.cloud.let_serve(host.name, certificates)
    if keys:
        lab.trust.enrol(*USUAL, host.name)
    return _serving(lab, host, certificates)


def _serving(lab: Lab, host: WebHost, certificates: Names) -> str:
    return f"""{_shared(lab, host, certificates, pinned=lab.trust.publishers)}
[consumer]
trust_roots = {_toml(lab.roots_file)}

[[consumer.nginx]]
listeners = {_addresses(("127.0.0.1", port) for port in host.ports)}
test = {_toml(host.test_command)}
reload = {_toml(host.reload_command)}
pid_file = {_toml(host.pid_file)}
"""


def _shared(lab: Lab, host: WebHost, certificates: Names, *, pinned: list[str]) -> str:
    return f"""\
host = "{host.name}"
identity = {_toml(lab.trust.identity_file(host.name))}
state_dir = {_toml(host.certcast_folder)}

[store]
publishers = {_toml(pinned)}
url = "oss://{BUCKET}/{PREFIX}"
region = "{REGION}"
endpoints = ["{lab.oss_url}"]
{"".join(_certificate(name, names) for name, names in certificates.items())}
[mail]
host = "localhost"
port = {lab.mailbox.ports["starttls"]}
security = "starttls"
ca_file = {_toml(lab.ca_file)}
sender = "certcast@{host.name}.example.test"
failures_to = ["it@example.test"]
installs_to = ["administrator@example.test"]
"""


def renewal_toml(
    lab: Lab,
    host: WebHost,
    certificates: Names = EXAMPLE,
    *,
    serves: bool = True,
    keys: bool = True,
    by_certbot: Iterable[str] = (),
) -> str:
    """Return the configuration of the renewal host; one that `serves` installs with its own nginx, too.

    The certificates in `by_certbot` are renewed by a certbot with certcast's hooks.
    """
    nameservers = _addresses(server.address for server in lab.dns.servers)
    zones = "".join(
        f'\n[[zone]]\nname = "{zone.name}"\nnameservers = {nameservers}\n'
        for zone in lab.cloud.zones.all()
        if zone.owner == ACCOUNT
    )
    if keys:
        lab.trust.make_publisher()
        lab.trust.enrol(*USUAL)
    else:
        lab.trust.make_folder()
    # Its own keys count on the renewal host, whatever it pins besides.
    shared = _serving(lab, host, certificates) if serves else _shared(lab, host, certificates, pinned=[])
    for name in by_certbot:
        shared = shared.replace(f'name = "{name}"\n', f'name = "{name}"\nsource = "certbot"\n')
    return f"""{shared}
[renewal]
signing_key = {_toml(lab.trust.signing_key)}
hosts_file = {_toml(lab.trust.hosts_file)}
directory = "{lab.directory_url}"
terms_of_service_agreed = true
certbot_config_dir = {_toml(host.root / "etc/letsencrypt")}

[dns]
endpoint = "{lab.alidns_url}"
resolvers = {_addresses([lab.dns.resolver.address])}
settle = "0s"
{zones}"""


def _certificate(name: str, names: tuple[str, ...]) -> str:
    return f'\n[[certificate]]\nname = "{name}"\nnames = {_toml(names)}\n'


def _addresses(addresses: Iterable[tuple[str, int]]) -> str:
    return _toml([f"{host}:{port}" for host, port in addresses])


def _toml(value: object) -> str:
    """Strings and lists of strings are written alike in TOML and in JSON; paths as their text."""
    return json.dumps(value, default=str)
