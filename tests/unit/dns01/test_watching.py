"""How often a nameserver is asked while orders wait; without any network."""

from __future__ import annotations

import pytest

from certcast.dns01.visibility.watching import next_pause


@pytest.mark.parametrize("lag", [0.01, 0.5, 2.0, 7.0, 30.0])
def test_a_wait_overshoots_by_a_twentieth(lag: float) -> None:
    """What becomes visible after a while is seen a twentieth of that while later, or a tenth of a second."""
    asked = 0.0
    while asked < lag:
        asked += next_pause(asked, names=1)

    assert asked - lag <= max(0.1, 0.05 * lag) + 1e-9


def test_a_long_wait_does_not_flood_a_nameserver() -> None:
    """In ten minutes a server is asked some hundreds of times about a name, never less than every 2 s."""
    asked, questions = 0.0, 0
    while asked < 600:
        asked, questions = asked + next_pause(asked, names=1), questions + 1

    assert questions < 400
    assert 2.0 == next_pause(600, names=1)


@pytest.mark.parametrize("names", [1, 20, 100, 400])
def test_many_names_do_not_flood_a_nameserver(names: int) -> None:
    """However many names are waited for, one address gets 200 questions a second at the most."""
    assert names / next_pause(0.0, names) <= 200
