"""Which account a zone belongs to, as the configuration says; nothing is sent here."""

from __future__ import annotations

from pathlib import Path

import pytest

from certcast.config.reading import load
from certcast.dns01.accounts import Accounts

TEXT = """
[store]
url = "oss://bucket/prefix"
region = "cn-hangzhou"
[[certificate]]
name = "a.test"
names = ["a.test"]
[dns]
profile = "main"
[[zone]]
name = "a.test"
[[zone]]
name = "b.test"
profile = "main"
[[zone]]
name = "c.test"
profile = "other"
[[zone]]
name = "d.test"
endpoint = "https://alidns.example"
[[zone]]
name = "e.test"
role_arn = "acs:ram::1:role/dns"
[[zone]]
name = "f.test"
endpoint = "https://alidns.example"
profile = "main"
"""


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    (tmp_path / "certcast.toml").write_text(TEXT)
    return Accounts(load(tmp_path / "certcast.toml"))


def test_zones_share_the_account_that_they_have_in_common(accounts):
    """One account for each source at each endpoint, however many zones it has; it is opened once."""
    main, other, elsewhere, role = (accounts.provider_of(f"{letter}.test") for letter in "acde")

    assert main is accounts.provider_of("b.test")
    assert elsewhere is accounts.provider_of("f.test")
    assert main is accounts.provider_of("not-configured.test")
    assert 4 == len({id(one) for one in (main, other, elsewhere, role)})


def test_zones_that_are_configured_are_not_asked_for(accounts, monkeypatch):
    """With [[zone]]s, the list of zones needs no account, no key and no right to list."""
    monkeypatch.setattr(accounts, "provider_of", None)
    monkeypatch.setattr(accounts, "_open", None)
    assert [f"{letter}.test" for letter in "abcdef"] == list(accounts.zones)
