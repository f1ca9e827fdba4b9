"""Versioning in OSS's words: the bucket's state, the listing of versions, one version's headers.

    GET ?versioning     GetBucketVersioning     a bucket that never had it answers with an empty document
    PUT ?versioning     PutBucketVersioning     Enabled or Suspended
    GET ?versions       ListObjectVersions      by key; of one key the newest first, markers among them
    GET, DELETE key?versionId=…                 one version, for which RAM has actions of their own

A bucket without versioning answers ListObjectVersions too: each object is its only
version, with an empty VersionId ("GetBucketVersions(ListObjectVersions)", OSS API
reference, first example). Reading a marker by its id is a 405, and by its key a 404.

Assumptions: that deleting a version that isn't there is a 204, as deleting a key is;
that a bucket without versioning knows its objects' versions as `null` only.

Not here: delimiters in the listing, changing the state back to none (OSS can't).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from urllib.parse import quote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from starlette.responses import Response

from certcast_lab.oss.oss_bucket import Bucket, Stored, Version
from certcast_lab.oss.oss_errors import OssError

DEFAULT_KEYS = 100
MOST_KEYS = 1000


def state(bucket: Bucket) -> Response:
    """GetBucketVersioning."""
    status = f"<Status>{bucket.versioning}</Status>" if bucket.versioning else ""
    document = f"<VersioningConfiguration>{status}</VersioningConfiguration>"
    return _xml(document)


def change(bucket: Bucket, body: bytes) -> Response:
    """PutBucketVersioning. OssError for anything but the two states."""
    try:
        status = ET.fromstring(body).findtext("Status")
    except ET.ParseError:
        status = None
    if status == "Enabled":
        bucket.versioning = "Enabled"
    elif status == "Suspended":
        bucket.versioning = "Suspended"
    else:
        raise OssError(400, "MalformedXML", "The XML you provided was not well-formed.")
    return Response()


def listing(bucket: Bucket, query: Mapping[str, str]) -> Response:
    """ListObjectVersions, one page. OssError for a senseless parameter."""
    if query.get("delimiter"):
        raise OssError(400, "NotImplemented", "The lab lists versions without delimiters.")
    most = _max_keys(query.get("max-keys"))
    key_marker, id_marker = query.get("key-marker", ""), query.get("version-id-marker", "")
    if id_marker and not key_marker:
        raise OssError(
            400, "InvalidArgument", "A version-id marker cannot be specified without a key marker."
        )
    entries = _after(bucket.versions(query.get("prefix", "")), key_marker, id_marker)
    shown, is_truncated = entries[:most], len(entries) > most
    url_encoded = query.get("encoding-type") == "url"

    def name(key: str) -> str:
        return escape(quote(key, safe="") if url_encoded else key)

    parts = [
        f"<Name>{bucket.name}</Name><Prefix>{name(query.get('prefix', ''))}</Prefix>",
        f"<KeyMarker>{name(key_marker)}</KeyMarker><VersionIdMarker>{id_marker}</VersionIdMarker>",
        f"<MaxKeys>{most}</MaxKeys><Delimiter></Delimiter>",
        "<EncodingType>url</EncodingType>" if url_encoded else "",
        f"<IsTruncated>{str(is_truncated).lower()}</IsTruncated>",
    ]
    if is_truncated:
        key, last = shown[-1]
        parts.append(
            f"<NextKeyMarker>{name(key)}</NextKeyMarker>"
            f"<NextVersionIdMarker>{_shown_id(bucket, last)}</NextVersionIdMarker>"
        )
    newest = dict(reversed(bucket.versions(query.get("prefix", ""))))
    for key, version in shown:
        modified = datetime.fromtimestamp(version.modified, timezone.utc)
        about = (
            f"<Key>{name(key)}</Key><VersionId>{_shown_id(bucket, version)}</VersionId>"
            f"<IsLatest>{str(version is newest[key]).lower()}</IsLatest>"
            f"<LastModified>{modified:%Y-%m-%dT%H:%M:%S}.000Z</LastModified>"
        )
        owner = f"<Owner><ID>{bucket.account}</ID><DisplayName>{bucket.account}</DisplayName></Owner>"
        if version.stored is None:
            parts.append(f"<DeleteMarker>{about}{owner}</DeleteMarker>")
            continue
        parts.append(
            f"<Version>{about}<ETag>{escape(version.stored.etag)}</ETag><Type>Normal</Type>"
            f"<Size>{len(version.stored.body)}</Size><StorageClass>Standard</StorageClass>{owner}</Version>"
        )
    return _xml(f"<ListVersionsResult>{''.join(parts)}</ListVersionsResult>")


def delete(bucket: Bucket, key: str, version_id: str | None) -> Response:
    """DeleteObject: with a version's id that version, for good; without one as the bucket's state says."""
    gone = bucket.delete(key) if version_id is None else bucket.delete_version(key, version_id)
    return Response(status_code=204, headers=headers(bucket, gone))


def find(bucket: Bucket, key: str, version_id: str) -> tuple[Version, Stored]:
    """The version that GetObject or HeadObject is asked for. OssError for none, and for a marker."""
    for name, version in bucket.versions(key):
        if name == key and version.id == version_id:
            if version.stored is None:
                message = "The specified method is not allowed against this resource."
                about = {"allow": "DELETE", **headers(bucket, version)}
                raise OssError(405, "MethodNotAllowed", message, headers=about, ResourceType="DeleteMarker")
            return version, version.stored
    message = "The specified version does not exist."
    raise OssError(404, "NoSuchVersion", message, Key=key, VersionId=version_id)


def current(bucket: Bucket, key: str) -> Version | None:
    """The version that counts, a marker too."""
    return next((version for name, version in bucket.versions(key) if name == key), None)


def headers(bucket: Bucket, version: Version | None) -> dict[str, str]:
    """What an answer says of the version that it is about, in a bucket that has or had versioning."""
    if version is None or bucket.versioning is None:
        return {}
    marker = {"x-oss-delete-marker": "true"} if version.stored is None else {}
    return {"x-oss-version-id": version.id, **marker}


def _shown_id(bucket: Bucket, version: Version) -> str:
    return version.id if bucket.versioning else ""


def _after(
    entries: Sequence[tuple[str, Version]], key_marker: str, id_marker: str
) -> list[tuple[str, Version]]:
    """What comes behind the markers: behind all versions of the key, or behind one of them."""
    at = [
        number
        for number, (key, version) in enumerate(entries)
        if (key, version.id) == (key_marker, id_marker)
    ]
    if at:
        return list(entries[at[0] + 1 :])
    return [entry for entry in entries if entry[0].encode() > key_marker.encode()]


def _max_keys(value: str | None) -> int:
    if value is None:
        return DEFAULT_KEYS
    if not value.isdigit() or not 1 <= int(value) <= MOST_KEYS:
        raise OssError(400, "InvalidArgument", "Argument max-keys must be an integer between 1 and 1000.")
    return int(value)


def _xml(document: str) -> Response:
    return Response(f'<?xml version="1.0" encoding="UTF-8"?>\n{document}', media_type="application/xml")
