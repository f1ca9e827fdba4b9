"""What OSS sends back, taken only if it is whole.

http.client takes a connection that breaks within the header for the end of the
header. What follows then looks like a success with an empty body: an object of no
octets, a listing of no keys. So a field that every whole answer has must be there.

A body is compared with the CRC-64 in the header; the SDK does that only in its
multi-part downloader.
"""

from __future__ import annotations

import alibabacloud_oss_v2 as oss

from certcast.report.errors import StoreUnreachable
from certcast.storage.oss_errors import NotReached
from certcast.storage.store import too_large


def present(url: str, field: str | None) -> str:
    """Return a field that every whole answer has; StoreUnreachable without it."""
    if not field:
        raise NotReached(
            f"{url} gives no usable answer",
            connected=True,
            found="an answer without the fields that OSS gives, or only the beginning of one",
            next="run it again; if it repeats, look at proxies between this host and the endpoint",
        )
    return field


def whole_body(body: oss.StreamBody, key: str, limit: int, header: oss.GetObjectResult) -> bytes:
    """Return the whole body. StoreTooLarge beyond `limit`; StoreUnreachable if it is not what was stored."""
    from alibabacloud_oss_v2.crc import Crc64

    octets = bytearray()
    checksum = Crc64(0)
    for chunk in body.iter_bytes(block_size=limit + 1):
        octets += chunk
        checksum.update(chunk)
        if len(octets) > limit:
            raise too_large(key, limit)
    # Objects from before 2015 have no CRC-64, and a CDN may leave the length out; one of them must prove it.
    if header.hash_crc64:
        expected, found = f"CRC-64 {header.hash_crc64}", f"CRC-64 {checksum.sum64()}"
    else:
        expected, found = f"{header.content_length} octets", f"{len(octets)} octets"
    if expected != found:
        raise StoreUnreachable(
            f"{key} was damaged on its way",
            expected=expected,
            found=found,
            next="run it again; if it repeats, look at proxies between this host and the endpoint",
        )
    return bytes(octets)


def version_ids(url: str, bucket: str, key: str, client: oss.Client) -> list[str]:
    """Return every version of exactly this key that can be deleted: from old to new, then the markers.

    A bucket without versioning lists its objects too, with an empty id ("GetBucketVersions
    (ListObjectVersions)", OSS API reference); these are not among them.
    """
    versions: list[str] = []
    markers: list[str] = []
    request = oss.ListObjectVersionsRequest(bucket, prefix=key)
    for page in client.list_object_versions_paginator(limit=1000).iter_page(request):
        present(url, page.name)
        versions += [found.version_id for found in page.version or () if found.key == key]
        markers += [found.version_id for found in page.delete_marker or () if found.key == key]
    return [version_id for version_id in versions[::-1] + markers if version_id]
