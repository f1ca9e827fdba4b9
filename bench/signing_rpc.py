"""One call to Alidns, signed by RPC-SHA1 with the environment's keys; for the scripts beside certcast."""

from __future__ import annotations

import os
import uuid
from datetime import datetime, timezone

from certcast_lab.aliyun import signatures


def signed(parameters: dict[str, str]) -> dict[str, str]:
    """Return the parameters of an action with what every call has, and their signature."""
    found = {
        **parameters,
        "Version": "2015-01-09",
        "Format": "JSON",
        "AccessKeyId": os.environ["ALIBABA_CLOUD_ACCESS_KEY_ID"],
        "SignatureMethod": "HMAC-SHA1",
        "SignatureVersion": "1.0",
        "SignatureNonce": uuid.uuid4().hex,
        "Timestamp": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    text = signatures.rpc_string_to_sign("GET", found)
    found["Signature"] = signatures.rpc_signature(text, os.environ["ALIBABA_CLOUD_ACCESS_KEY_SECRET"])
    return found
