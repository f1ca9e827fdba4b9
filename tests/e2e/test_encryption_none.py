"""encryption = "none": somebody chose that keys lie open in the bucket. It works, and each run warns.

Both sides have to say it. Where only one does, hosts go on serving and are told what to change, and
nothing is taken that lies open. The way back is a line less on each side; then no private key is left
readable, older versions included.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from certcast_lab.lab import Lab
from journey import Done, Journey

WARNING = 'warning: store.encryption = "none": whoever can read the bucket has the private keys\n'
OPEN = 'encryption = "none"\n'


def chosen(toml: Path, *, none: bool) -> None:
    """Put the line into [store] of a configuration, or take it out."""
    text = toml.read_text().replace(OPEN, "")
    toml.write_text(text.replace("[store]\n", f"[store]\n{OPEN}") if none else text)


def keys_in(lab: Lab) -> list[str]:
    """Return where private keys lie open in the bucket, older versions included."""
    return [
        key
        for key, version in lab.cloud.bucket.versions()
        if version.stored is not None and b"PRIVATE KEY" in version.stored.body
    ]


@pytest.fixture
def journey(lab: Lab) -> Iterator[Journey]:
    """A journey in a bucket with versioning, where what was overwritten or deleted is still to be had."""
    lab.cloud.bucket.versioning = "Enabled"
    journey = Journey(lab)
    yield journey
    chosen(journey.renewal.certcast_toml, none=False)
    journey.renew()


def host_command(journey: Journey, *words: str) -> Done:
    return journey.lab.certcast(journey.renewal.certcast_toml, *words, user="renewal")


def test_both_sides(journey: Journey) -> None:
    """
    The whole journey with keys that lie open: published, taken over, renewed, taken over again. Each run of
    each command warns, and that is all that a run with nothing to do says.
    """
    chosen(journey.renewal.certcast_toml, none=True)
    published = journey.renew()
    assert (0, WARNING) == (published.returncode, published.stderr[: len(WARNING)])
    host = journey.consumer("web1")
    chosen(host.certcast_toml, none=True)
    staged = journey.pull("web1")
    assert (39, WARNING) == (staged.returncode, staged.stderr[: len(WARNING)])
    host.include(host.certcast_folder / "certs/example.test/nginx.conf")
    assert 0 == journey.pull("web1").returncode
    journey.want_replaced()
    assert 0 == journey.renew().returncode
    assert 0 == journey.pull("web1", "--now").returncode
    assert journey.published() == journey.served("web1") == journey.live().leaf.sha256

    for quiet in (journey.renew(), journey.pull("web1"), journey.pull("web1", "--now")):
        assert (0, "", WARNING) == (quiet.returncode, quiet.stdout, quiet.stderr)
    for words in (["check"], ["host", "list"], ["publish", "--at-least", "9"]):
        assert WARNING in host_command(journey, *words).stderr


def test_only_the_host(journey: Journey) -> None:
    """
    A host that expects open keys of a renewal host that seals is told at its next look, while it still
    serves and long before it needs the key; what `next` says mends it.
    """
    journey.renew()
    host = journey.first_pull("web1")
    served = journey.served("web1")
    chosen(host.certcast_toml, none=True)
    for _ in range(2):
        done = journey.pull("web1", "--now")
        assert 34 == done.returncode, done.stderr
        assert "the renewal host seals private keys, as it does by default" in done.stderr
        assert f"take `encryption` out of [store] in {host.certcast_toml}" in done.stderr
    assert (served, []) == (journey.served("web1"), keys_in(journey.lab))

    chosen(host.certcast_toml, none=False)
    done = journey.pull("web1", "--now")
    assert (0, "") == (done.returncode, done.stderr)


def test_only_the_renewal_host(journey: Journey) -> None:
    """
    A host that expects sealed keys never takes one that lies open: it serves what it has, and says that
    nothing is sealed to it. Enrolling it says why that doesn't help.
    """
    journey.renew()
    journey.first_pull("web1")
    served = journey.served("web1")
    chosen(journey.renewal.certcast_toml, none=True)
    journey.want_replaced()
    assert 0 == journey.renew().returncode
    done = journey.pull("web1", "--now")
    assert 34 == done.returncode, done.stderr
    assert 'or the renewal host seals nothing (encryption = "none")' in done.stderr
    assert served == journey.served("web1") != journey.published()

    line = journey.lab.trust.public("web1")
    enrolled = host_command(journey, "host", "add", "web1", line)
    assert f'nothing is sealed to anybody: {journey.renewal.certcast_toml} has encryption = "none"' in (
        enrolled.stderr
    )


def test_and_back(journey: Journey) -> None:
    """
    Without the line, `renew` seals what is published to everybody who is enrolled, deletes each open key
    with its older versions, and says how to replace a key that others may have. Hosts follow.
    """
    chosen(journey.renewal.certcast_toml, none=True)
    journey.renew()
    journey.want_replaced()
    journey.renew()
    host = journey.consumer("web1")
    chosen(host.certcast_toml, none=True)
    assert 39 == journey.pull("web1").returncode
    host.include(host.certcast_folder / "certs/example.test/nginx.conf")
    assert 0 == journey.pull("web1").returncode
    assert 2 == len(keys_in(journey.lab))

    chosen(journey.renewal.certcast_toml, none=False)
    back = journey.renew()
    assert 0 == back.returncode, back.stderr
    assert [] == keys_in(journey.lab)
    assert "a private key lay open in the bucket" in back.stderr
    assert "`certcast renew --replace example.test --reason superseded`" in back.stderr
    silent = journey.renew()
    assert (0, "", "") == (silent.returncode, silent.stdout, silent.stderr)

    chosen(host.certcast_toml, none=False)
    for _ in range(2):
        done = journey.pull("web1", "--now")
        assert (0, "") == (done.returncode, done.stderr)
    old = journey.served("web1")
    replaced = journey.renew("--replace", "example.test", "--reason", "superseded")
    assert 0 == replaced.returncode, replaced.stderr
    assert 0 == journey.pull("web1", "--now").returncode
    assert journey.published() == journey.served("web1") != old
