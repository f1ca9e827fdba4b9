"""What each kind of host has to install: a consumer the least, a renewal host no certbot."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import certcast

SOURCE = Path(certcast.__file__).parent
# What the extra `renewal` used to bring, and what only the tests have.
FOREIGN = ("certbot", "alibabacloud_tea_openapi", "Tea", "darabonba", "alibabacloud_alidns20150109")


def test_the_renewal_extra_brings_no_certbot() -> None:
    """`certcast[renewal]` installs certbot's ACME library, and neither certbot nor the Tea SDK."""
    wanted = [line for line in requires("certcast") or () if "renewal" in line]
    names = {line.partition(">")[0].strip() for line in wanted}
    assert {"acme", "configobj", "dnspython", "josepy", "pyrfc3339"} == {name.lower() for name in names}


def test_every_module_is_there_without_certbot() -> None:
    """No module of certcast imports what a renewal host does not have."""
    modules = [
        ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(SOURCE.rglob("*.py"))
        if path.name != "tls_client.py"  # a program, not a module
    ]
    blocked = f"import sys; sys.modules.update(dict.fromkeys({FOREIGN!r}))"
    importing = "\n".join(f"import {module}" for module in modules)
    done = subprocess.run(
        [sys.executable, "-c", f"{blocked}\n{importing}"], capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr
