"""What two rounds of handshakes prove, judged without a network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from certcast.config.model import Address, Listener
from certcast.consumer.nginx.processes import Worker
from certcast.consumer.proof import explanation
from certcast.consumer.proof.handshake import MATRIX, Client, Handshake, Shown, Target
from certcast.consumer.proof.verdict import Expectation, Verdict, prove

ONE, TWO = Listener(Address("192.0.2.1", 443)), Listener(Address("2001:db8::1", 443))
NEW, OLD, OLDER, FOREIGN = (digit * 64 for digit in "abcd")
NO_HANDSHAKE = Shown(None, "no handshake (TLSV1_ALERT_INTERNAL_ERROR)")
DOWN = Shown(None, "no connection (Connection refused)", reached=False)
ANY = Client("TLS", "any")
TRIED = tuple(
    Handshake(Target(listener, name), ANY)
    for listener in (ONE, TWO)
    for name in ("example.test", "certcast-proof.example.test")
)


def verdict(before: dict[int, Shown], after: dict[int, Shown], lingering: tuple[Worker, ...] = ()) -> Verdict:
    """Judge with the old leaf before and the new one after, but for the handshakes that are given."""
    return Verdict(
        {handshake: before.get(i, Shown(OLD)) for i, handshake in enumerate(TRIED)},
        {handshake: after.get(i, Shown(NEW)) for i, handshake in enumerate(TRIED)},
        Expectation(NEW, (OLD, OLDER), (ONE, TWO)),
        lingering,
    )


def as_clients(before: dict[Client, str | None], after: dict[Client, str | None], **options: Any) -> Verdict:
    """Judge one target as it shows itself to each kind of client: a leaf, or none."""
    target = TRIED[0].target
    before_and_after = [
        {Handshake(target, client): Shown(leaf) if leaf else NO_HANDSHAKE for client, leaf in shown.items()}
        for shown in (before, after)
    ]
    return Verdict(*before_and_after, Expectation(NEW, (OLD, OLDER), (ONE,), **options))


def test_new_leaf_everywhere_is_proved() -> None:
    """The new leaf on every listener and name, and no old worker left: proved."""
    assert verdict({}, {}).is_proved
    assert TRIED == verdict({}, {}).shown


@pytest.mark.parametrize("before", [OLD, FOREIGN, NEW])
def test_handshake_that_is_gone_is_lost(before: str) -> None:
    """A target that had a handshake and has none is broken, whosever certificate it showed."""
    found = verdict({1: Shown(before)}, {1: NO_HANDSHAKE})
    assert (TRIED[1],) == found.lost
    assert [
        f"192.0.2.1:443 as certcast-proof.example.test: {NO_HANDSHAKE}; before it was leaf {before[:16]}…"
    ] == explanation.failures(found)


@pytest.mark.parametrize("leaf", [OLD, OLDER])
def test_old_leaf_of_ours_is_outdated(leaf: str) -> None:
    """A target that showed a release of ours, also one before the last, must show the new one."""
    found = verdict({1: Shown(leaf)}, {1: Shown(leaf)})
    assert (TRIED[1],) == found.outdated
    assert () == found.lost
    assert [f"{TRIED[1].target}: still leaf {leaf[:16]}…"] == explanation.failures(found)


def test_target_that_goes_over_to_another_certificate_is_told() -> None:
    """A name that showed ours and shows somebody else's after the reload: an edit that we took along."""
    found = verdict({}, {1: Shown(FOREIGN)})
    assert not found.is_proved
    assert [
        f"{TRIED[1].target}: now leaf {FOREIGN[:16]}…; before it was leaf {OLD[:16]}…"
    ] == explanation.failures(found)


def test_foreign_leaf_may_stay() -> None:
    """A name that is served with somebody else's certificate is none of our business, but it is said."""
    found = verdict({1: Shown(FOREIGN)}, {1: Shown(FOREIGN)})
    assert found.is_proved
    assert "another certificate in 1 handshake" in explanation.summary(found)
    assert [f"{TRIED[1].target}: leaf {FOREIGN[:16]}…, not one of certcast's"] == explanation.remarks(found)


def test_another_certificate_of_certcast_is_not_foreign() -> None:
    """A name, or clients of one key type, that get another certificate of this host's: nothing to be said."""
    before, after = {RSA_12: FOREIGN, ECDSA_12: OLD}, {RSA_12: FOREIGN, ECDSA_12: NEW}
    found = as_clients(dict(before), dict(after), other_leaves={FOREIGN[:16]})
    assert found.is_proved
    assert [] == explanation.remarks(found)
    assert "another certificate" not in explanation.summary(found)
    # In the place of ours it is still an alarm.
    assert 1 == len(as_clients({RSA_12: OLD}, {RSA_12: FOREIGN}, other_leaves={FOREIGN[:16]}).outdated)


def test_listener_without_the_new_leaf_is_unseen() -> None:
    """A configured listener that shows the new leaf for no name at all is not proved."""
    foreign = {2: Shown(FOREIGN), 3: Shown(FOREIGN)}
    found = verdict(foreign, foreign)
    assert (TWO,) == found.unseen
    assert not found.is_proved
    assert [f"[2001:db8::1]:443: leaf {FOREIGN[:16]}…"] == explanation.failures(found)


def test_target_that_was_down_before_cannot_be_lost() -> None:
    """What did not work before the reload is not blamed on it, as long as the listener is seen otherwise."""
    assert verdict({1: NO_HANDSHAKE}, {1: NO_HANDSHAKE}).is_proved
    assert (TWO,) == verdict({2: DOWN, 3: DOWN}, {2: DOWN, 3: DOWN}).unseen


def test_unconfigured_unreachable_listener_is_not_provable() -> None:
    """A listener that only nginx names and that cannot be connected to is said, not failed."""
    before = {handshake: DOWN if handshake.target.listener == TWO else Shown(OLD) for handshake in TRIED}
    after = {handshake: DOWN if handshake.target.listener == TWO else Shown(NEW) for handshake in TRIED}
    found = Verdict(before, after, Expectation(NEW, (OLD,), expected=(ONE, TWO)))
    assert found.is_proved
    assert ["[2001:db8::1]:443: no connection (Connection refused)"] == explanation.unreachable(found)


def test_listener_with_our_files_that_shows_others_is_unseen() -> None:
    """A listener whose site names our files, and which answers with another certificate, is not proved."""
    before = {handshake: Shown(FOREIGN) for handshake in TRIED}
    after = {handshake: Shown(FOREIGN if handshake.target.listener == TWO else NEW) for handshake in TRIED}
    assert (TWO,) == Verdict(before, after, Expectation(NEW, expected=(ONE, TWO))).unseen
    assert Verdict(before, after, Expectation(NEW, expected=(ONE,))).is_proved


def test_nothing_seen_is_nothing_proved() -> None:
    """A host on which no handshake shows the release is never called proved."""
    assert not Verdict({}, {}, Expectation(NEW)).is_proved


def test_old_worker_that_still_accepts_is_no_proof() -> None:
    """As long as a worker from before accepts connections, the new leaf may be luck."""
    found = verdict({}, {}, lingering=(Worker(4711, 1),))
    assert not found.is_proved
    assert ["workers from before still accept: 4711"] == explanation.failures(found)


class Rounds:
    """Clients that show something else in each round; they note what they were asked."""

    def __init__(self, *rounds: dict[Handshake, Shown]) -> None:
        self.rounds = list(rounds)
        self.asked: list[tuple[Handshake, ...]] = []

    def try_all(self, handshakes: Iterable[Handshake]) -> dict[Handshake, Shown]:
        self.asked.append(tuple(handshakes))
        shown = self.rounds.pop(0)
        return {handshake: shown[handshake] for handshake in self.asked[-1]}


def test_what_was_not_seen_at_once_is_asked_again() -> None:
    """On a loaded host a handshake may fail for a moment: only that one is asked again, and then proved."""
    before = {handshake: Shown(OLD) for handshake in TRIED}
    good = {handshake: Shown(NEW) for handshake in TRIED}
    clients = Rounds({**good, TRIED[1]: NO_HANDSHAKE}, good)
    expectation = Expectation(NEW, (OLD,), (ONE, TWO))
    found = prove(before, expectation, clients, workers=(), seconds=5.0)  # type: ignore[arg-type]
    assert found.is_proved
    assert [TRIED, (TRIED[1],)] == clients.asked


# -- kinds of client

RSA_12, ECDSA_12, RSA_13, ECDSA_13 = MATRIX


def test_clients_of_one_key_type_are_judged_by_themselves() -> None:
    """An old RSA pair beside our new one is found though most clients get the new one."""
    old_pair = {RSA_12: OLD, ECDSA_12: OLD, RSA_13: OLD, ECDSA_13: OLD}
    found = as_clients(old_pair, {RSA_12: OLD, ECDSA_12: NEW, RSA_13: OLD, ECDSA_13: NEW})
    assert not found.is_proved
    assert [f"192.0.2.1:443 as example.test (TLS 1.2 and 1.3, RSA clients): still leaf {OLD[:16]}…"] == (
        explanation.failures(found)
    )


def test_clients_that_never_got_a_handshake_are_no_fault() -> None:
    """Where RSA clients got nothing before, an ECDSA release that they cannot take is proved."""
    none: dict[Client, str | None] = {RSA_12: None, RSA_13: None}
    found = as_clients({**none, ECDSA_12: OLD, ECDSA_13: OLD}, {**none, ECDSA_12: NEW, ECDSA_13: NEW})
    assert found.is_proved
    assert "seen in 2 handshakes (TLS 1.2 and 1.3, ECDSA clients) on 1 listener" == explanation.summary(found)
    assert ["192.0.2.1:443 as example.test (TLS 1.2 and 1.3, ECDSA clients)"] == explanation.places(found)


def test_one_tls_version_that_breaks_is_named() -> None:
    """A release that TLS 1.2 clients lose, while those of TLS 1.3 get it, is broken for the former."""
    found = as_clients({ECDSA_12: OLD, ECDSA_13: OLD}, {ECDSA_12: None, ECDSA_13: NEW})
    assert 1 == len(found.lost)
    assert explanation.failures(found)[0].startswith(
        "192.0.2.1:443 as example.test (TLS 1.2, ECDSA clients): no handshake"
    )


def test_allowed_change_of_key_type_drops_its_old_clients() -> None:
    """
    With `allow_key_type_change`, RSA clients that lose our certificate as it becomes ECDSA are said
    and not broken; without, they are broken.
    """
    before = {RSA_12: OLD, ECDSA_12: None, RSA_13: OLD, ECDSA_13: None}
    after = {RSA_12: None, ECDSA_12: NEW, RSA_13: None, ECDSA_13: NEW}
    allowed = as_clients(before, after, droppable_keys="RSA")
    assert allowed.is_proved
    assert "no longer for TLS 1.2 and 1.3, RSA clients" in explanation.summary(allowed)
    assert 1 == len(explanation.remarks(allowed))
    assert 2 == len(as_clients(before, after).lost)


def test_clients_are_dropped_for_our_own_certificate_only() -> None:
    """Also with `allow_key_type_change`, RSA clients that lose somebody else's certificate are broken."""
    before = {RSA_12: FOREIGN, ECDSA_12: None}
    after = {RSA_12: None, ECDSA_12: NEW}
    assert 1 == len(as_clients(before, after, droppable_keys="RSA").lost)


def test_no_client_is_dropped_where_none_is_served() -> None:
    """A site whose ciphers suit only the old type of key serves nobody: broken, permission or not."""
    before = {RSA_12: OLD, ECDSA_12: None}
    assert 1 == len(as_clients(before, {RSA_12: None, ECDSA_12: None}, droppable_keys="RSA").lost)


def test_one_tls_version_is_not_dropped_for_another() -> None:
    """
    An ECDSA release under ciphers for RSA still serves TLS 1.3, but no TLS 1.2 client at all: that
    is broken, though TLS 1.3 looks well.
    """
    before = {RSA_12: OLD, ECDSA_12: None, RSA_13: OLD, ECDSA_13: None}
    found = as_clients(
        before, {RSA_12: None, ECDSA_12: None, RSA_13: None, ECDSA_13: NEW}, droppable_keys="RSA"
    )
    assert [RSA_12] == [handshake.client for handshake in found.lost]
    assert [RSA_13] == [handshake.client for handshake in found.dropped_clients]


def test_first_release_may_leave_old_clients_behind() -> None:
    """
    Where the operator put our include in place of an RSA certificate, RSA clients that an ECDSA
    release leaves behind are said; nothing is there to go back to.
    """
    before = {RSA_12: FOREIGN, ECDSA_12: None}
    found = as_clients(before, {RSA_12: None, ECDSA_12: NEW}, droppable_keys="RSA", first=True)
    assert found.is_proved
    assert 1 == len(explanation.remarks(found))


def test_many_findings_are_counted_not_listed() -> None:
    """Forty stale names are a report that a person still reads."""
    many = [replace(TRIED[0], target=Target(ONE, f"www{number}.example.test")) for number in range(40)]
    shown = {handshake: Shown(OLD) for handshake in many}
    lines = explanation.failures(Verdict(shown, shown, Expectation(NEW, (OLD,))))
    assert 8 == len(lines)
    assert "and 33 more like these" == lines[-1]
