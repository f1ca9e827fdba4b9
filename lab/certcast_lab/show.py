"""Looking into a running lab: what stands in the zone, the bucket, the mailbox.

Three pages of plain text over HTTP on loopback, so that another terminal can
ask while `certcast-lab up` holds this one:

    certcast-lab show zone          the records, and what each nameserver says
    certcast-lab show bucket        the objects, with size and age
    certcast-lab show mailbox       every message

Only reading. What goes wrong in the lab is switched in Python, by tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from certcast_lab.aliyun.cloud import ACCOUNT, BUCKET
from certcast_lab.lab import Lab


def app(lab: Lab) -> Starlette:
    """Return the application that shows `lab`."""

    async def show(request: Request) -> Response:
        page = PAGES.get(request.path_params["page"])
        if page is None:
            return PlainTextResponse(f"there are: {', '.join(PAGES)}\n", status_code=404)
        return PlainTextResponse(page(lab))

    return Starlette(routes=[Route("/{page}", show)])


def zone_page(lab: Lab) -> str:
    """Return the records of every zone of the account, and how far behind each nameserver is."""
    lines = []
    for zone in reversed(lab.cloud.zones.all()):
        if zone.owner == ACCOUNT:
            lines.append(f"zone {zone.name}, serial {lab.cloud.zones.serial(zone)}")
            records = lab.cloud.zones.records(zone)
            lines += [f"  {record.name} {record.ttl} {record.type} {record.value}" for record in records]
            lines += [] if records else ["  no records"]
    for server in lab.dns.servers:
        host, port = server.address
        lines.append(f"nameserver {server.hostname} {host}:{port}, {server.lag:g} s behind")
    return "\n".join(lines) + "\n"


def bucket_page(lab: Lab) -> str:
    """Return the objects of the bucket, in the order in which OSS lists them."""
    lines = [f"oss://{BUCKET}"]
    objects = {key: lab.cloud.bucket.get(key) for key in lab.cloud.bucket.keys()}  # noqa: SIM118  not a dict
    for key, stored in objects.items():
        if stored is not None:
            age = max(0, int(time.time()) - stored.modified)
            lines.append(f"  {len(stored.body):>6} octets  {age:>5} s old  {key}")
    return "\n".join(lines if len(lines) > 1 else [*lines, "  no objects"]) + "\n"


def mailbox_page(lab: Lab) -> str:
    """Return every message since the lab came up."""
    pages = [
        f"To: {', '.join(received.recipients)}\nSubject: {received.subject}\n\n{received.text}"
        for received in lab.mailbox.messages
    ]
    return f"\n{'-' * 72}\n".join(pages) or "no messages\n"


PAGES: dict[str, Callable[[Lab], str]] = {
    "zone": zone_page,
    "bucket": bucket_page,
    "mailbox": mailbox_page,
}
