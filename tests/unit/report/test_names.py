"""Internationalised names: punycode for machines, and how people write them beside it."""

from __future__ import annotations

import pytest

from certcast.report.errors import DnsFailed
from certcast.report.names import readable, to_ascii, to_unicode


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.com: nothing to explain", "example.com: nothing to explain"),
        ("xn--fiq228c.test", "xn--fiq228c.test (中文.test)"),
        ("*.xn--fiq228c.test, a", "*.xn--fiq228c.test (*.中文.test), a"),
        (
            "at _acme-challenge.xn--fiq228c.test.",
            "at _acme-challenge.xn--fiq228c.test (_acme-challenge.中文.test).",
        ),
        ("xn--fiq228c.test: xn--fiq228c.test", "xn--fiq228c.test (中文.test): xn--fiq228c.test"),
        ("run `certcast renew xn--fiq228c.test` now", "run `certcast renew xn--fiq228c.test` now"),
        ("/etc/letsencrypt/live/xn--fiq228c.test/x", "/etc/letsencrypt/live/xn--fiq228c.test/x"),
        ("acs:alidns:*:*:domain/xn--fiq228c.test", "acs:alidns:*:*:domain/xn--fiq228c.test"),
        ("it@xn--fiq228c.test", "it@xn--fiq228c.test"),
        ("not punycode: xn--zzzzzzzzz999.test", "not punycode: xn--zzzzzzzzz999.test"),
        # U+202E turns the line round from there on: no registry gives such a name, and none is printed.
        ("xn--abc-7q0a.test", "xn--abc-7q0a.test"),
    ],
)
def test_a_punycode_name_is_followed_by_how_it_is_written(text, expected):
    """Each name once, where it first occurs; commands, paths and addresses stay as they must be typed."""
    assert expected == readable(text)


def test_an_error_report_is_readable():
    """Every report passes through here, whatever raised it."""
    failure = DnsFailed("no answer for xn--fiq228c.test", next="run `certcast renew xn--fiq228c.test`")

    assert "no answer for xn--fiq228c.test (中文.test)\n" in failure.report()
    assert "`certcast renew xn--fiq228c.test`" in failure.report()


def test_the_two_forms_lead_to_each_other():
    """Labels that have one form only stay; what is no valid label in either form stays, too."""
    for ascii_form, written in [
        ("_acme-challenge.xn--fiq228c", "_acme-challenge.中文"),
        ("*.xn--fiq228c.xn--fiqs8s", "*.中文.中国"),
        ("example.com", "example.com"),
        ("@", "@"),
    ]:
        assert (ascii_form, written) == (to_ascii(written), to_unicode(ascii_form))
    assert "example.com" == to_ascii("Example.COM")
    assert "\u202e.test" == to_ascii("\u202e.test")
