"""One page of ListObjectsV2 (OSS API reference, same name).

Keys come in order; with a delimiter, keys that share the part up to it are one
common prefix, which counts as one of `max-keys`. The continuation token is
opaque to clients; here it is the last key or prefix of the page before.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime, timezone
from urllib.parse import quote
from xml.sax.saxutils import escape

from certcast_lab.oss.oss_bucket import Stored
from certcast_lab.oss.oss_errors import OssError

DEFAULT_KEYS = 100
MOST_KEYS = 1000


def page(bucket: str, query: Mapping[str, str], objects: Mapping[str, Stored]) -> bytes:
    """The XML for these objects (those with the prefix, in order). OssError for a senseless parameter."""
    url_encoded = query.get("encoding-type") == "url"
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    most = _max_keys(query.get("max-keys"))
    entries = _after(_entries(objects, prefix, delimiter), query)
    shown, left = entries[:most], entries[most:]
    token = base64.urlsafe_b64encode(shown[-1].encode()).decode() if left and shown else None

    def text(name: str, value: str | None, *, encode: bool = False) -> str:
        if value is None:
            return ""
        return f"<{name}>{escape(quote(value, safe='') if encode and url_encoded else value)}</{name}>"

    parts = [
        text("Name", bucket),
        text("Prefix", prefix, encode=True),
        text("StartAfter", query.get("start-after"), encode=True),
        text("MaxKeys", str(most)),
        text("Delimiter", delimiter, encode=True),
        text("EncodingType", query.get("encoding-type")),
        text("IsTruncated", "true" if left else "false"),
        text("KeyCount", str(len(shown))),
        text("ContinuationToken", query.get("continuation-token")),
        text("NextContinuationToken", token),
    ]
    for entry in shown:
        stored = objects.get(entry)
        if stored is None or (delimiter and delimiter in entry[len(prefix) :]):
            parts.append(f"<CommonPrefixes>{text('Prefix', entry, encode=True)}</CommonPrefixes>")
            continue
        modified = datetime.fromtimestamp(stored.modified, timezone.utc)
        parts += [
            "<Contents>",
            text("Key", entry, encode=True),
            text("LastModified", f"{modified:%Y-%m-%dT%H:%M:%S}.000Z"),
            text("ETag", stored.etag),
            text("Type", "Normal"),
            text("Size", str(len(stored.body))),
            text("StorageClass", "Standard"),
            "</Contents>",
        ]
    inner = "".join(parts)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult>{inner}</ListBucketResult>'.encode()


def _entries(objects: Mapping[str, Stored], prefix: str, delimiter: str) -> list[str]:
    """Keys and common prefixes, each once, in order."""
    if not delimiter:
        return list(objects)
    entries: dict[str, None] = {}
    for key in objects:
        head, found, _ = key[len(prefix) :].partition(delimiter)
        entries[prefix + head + found] = None
    return list(entries)


def _after(entries: list[str], query: Mapping[str, str]) -> list[str]:
    start = query.get("start-after", "")
    if "continuation-token" in query:
        try:
            start = base64.b64decode(query["continuation-token"], altchars=b"-_", validate=True).decode()
        except ValueError:
            raise OssError(400, "InvalidArgument", "The continuation-token is not valid.") from None
    return [entry for entry in entries if entry.encode() > start.encode()]


def _max_keys(value: str | None) -> int:
    if value is None:
        return DEFAULT_KEYS
    if not value.isdigit() or not 1 <= int(value) <= MOST_KEYS:
        raise OssError(400, "InvalidArgument", "Argument max-keys must be an integer between 1 and 1000.")
    return int(value)
