"""What lego's exec provider runs: add or remove one TXT at Alidns, with the standard library alone.

alidns_hook.py present|cleanup FQDN VALUE     ALIDNS_URL, ALIBABA_CLOUD_ACCESS_KEY_ID and _SECRET are set
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
import uuid
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

from certcast_lab import signatures

ZONE = "example.test"


def alidns(**parameters: str) -> dict[str, Any]:
    """Call one action, signed by RPC-SHA1."""
    parameters = {
        **parameters,
        "Version": "2015-01-09",
        "Format": "JSON",
        "AccessKeyId": os.environ["ALIBABA_CLOUD_ACCESS_KEY_ID"],
        "SignatureMethod": "HMAC-SHA1",
        "SignatureVersion": "1.0",
        "SignatureNonce": uuid.uuid4().hex,
        "Timestamp": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    text = signatures.rpc_string_to_sign("GET", parameters)
    parameters["Signature"] = signatures.rpc_signature(text, os.environ["ALIBABA_CLOUD_ACCESS_KEY_SECRET"])
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
