"""What lego's exec provider runs: add or remove one TXT at Alidns, with the standard library alone.

alidns_hook.py present|cleanup FQDN VALUE     ALIDNS_URL, ALIBABA_CLOUD_ACCESS_KEY_ID and _SECRET are set
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from typing import Any
from urllib.parse import urlencode

from signing_rpc import signed

ZONE = "example.test"


def alidns(**parameters: str) -> dict[str, Any]:
    """Call one action, signed by RPC-SHA1."""
    parameters = signed(parameters)
    with urllib.request.urlopen(f"{os.environ['ALIDNS_URL']}/?{urlencode(parameters)}", timeout=10) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


event, fqdn, value = sys.argv[1:4]
label = fqdn.rstrip(".").removesuffix(f".{ZONE}")
if event == "present":
    alidns(Action="AddDomainRecord", DomainName=ZONE, RR=label, Type="TXT", Value=value, TTL="600")
elif event == "cleanup":
    records = alidns(Action="DescribeDomainRecords", DomainName=ZONE, RRKeyWord=label, TypeKeyWord="TXT")
    for record in records["DomainRecords"]["Record"]:
        if record["Value"] == value:
            alidns(Action="DeleteDomainRecord", RecordId=record["RecordId"])
