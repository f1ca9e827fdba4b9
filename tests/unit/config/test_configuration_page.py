"""docs/configuration.md and the types of the configuration say the same."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from certcast.config import model

PAGE = (Path(__file__).parents[3] / "docs/configuration.md").read_text()

SECTIONS = {
    "[store]": model.StoreConfig,
    "[[certificate]]": model.CertificateConfig,
    "[renewal]": model.RenewalConfig,
    "[renewal.external_account]": model.ExternalAccount,
    "[dns]": model.DnsConfig,
    "[[zone]]": model.ZoneConfig,
    "[consumer]": model.ConsumerConfig,
    "[[consumer.nginx]]": model.NginxConfig,
    "[[consumer.copy_to]]": model.CopyConfig,
    "[mail]": model.MailConfig,
}
NAMES = {section.strip("[]") for section in SECTIONS}  # tables have headings of their own


@pytest.mark.parametrize("section", SECTIONS)
def test_each_key_of_a_section_is_explained_and_no_other(section: str) -> None:
    """An administrator finds every key on the page, and none that certcast would refuse."""
    (text,) = re.findall(rf"^##+ `{re.escape(section)}`.*?(?=^##|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    rows = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    explained = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    own = section.strip("[]")
    keys = {field.name for field in fields(SECTIONS[section]) if f"{own}.{field.name}" not in NAMES}
    assert keys == explained
