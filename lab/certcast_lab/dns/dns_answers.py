"""What the lab's zone data say, as DNS messages.

Zone and records come from zones.py. Here they become answers: negative ones carry
the SOA, and a client that offers EDNS gets it. There are no referrals, since no zone
of the lab is delegated out of it.
"""

from __future__ import annotations

from dnslib import EDNS0, OPCODE, QTYPE, RCODE, RR, SOA, TXT, DNSRecord

from certcast_lab.dns.zones import Record, Zone, Zones, canonical

UDP_OCTETS = 512  # RFC 1035 section 4.2.1: the limit where the client has no EDNS
EDNS_OCTETS = 1232  # DNS Flag Day 2020: what passes everywhere without fragments


def answer(zones: Zones, request: DNSRecord, *, at: float) -> DNSRecord:
    """Return the authoritative reply of a server whose zone data are those of `at` (monotonic seconds)."""
    if request.header.opcode != OPCODE.QUERY:
        return failure(request, "NOTIMP")
    reply = _blank(request)
    name, rtype = canonical(str(request.q.qname)), QTYPE[request.q.qtype]
    found = zones.lookup(name, rtype, at=at)
    reply.header.rcode = getattr(RCODE, found.rcode)
    if found.zone is None:
        reply.header.aa = 0
        return reply
    for record in found.records:
        reply.add_answer(_resource_record(record))
    # The name that the answer ends at: the one asked for, or where its CNAMEs lead.
    aliases = [record for record in found.records if record.type == "CNAME" != rtype]
    name = canonical(aliases[-1].value) if aliases else name
    if name == found.zone.name and rtype in ("NS", "SOA"):
        reply.add_answer(*_apex(zones, found.zone, rtype, at))
    elif len(found.records) == len(aliases) and zones.holding(name):
        # NODATA and NXDOMAIN carry the SOA (RFC 2308 section 2), also behind a CNAME.
        reply.add_auth(*_apex(zones, found.zone, "SOA", at))
    return reply


def _apex(zones: Zones, zone: Zone, rtype: str, at: float) -> list[RR]:
    """The records of a zone's own name that no API call makes; the SOA's timers are Alidns-like guesses."""
    if rtype == "NS":
        return [RR.fromZone(f"{zone.name}. 86400 IN NS {host}.")[0] for host in zone.nameservers]
    soa = SOA(
        zone.nameservers[0],
        f"hostmaster.{zone.nameservers[0].partition('.')[2]}",
        (zones.serial(zone, at), 3600, 1200, 86400, 600),
    )
    return [RR(zone.name, QTYPE.SOA, ttl=600, rdata=soa)]


def _resource_record(record: Record) -> RR:
    if record.type == "TXT":
        # RFC 1035 section 3.3.14: one or more strings of at most 255 octets.
        octets = record.value.encode()
        strings = [octets[start : start + 255] for start in range(0, len(octets), 255)]
        return RR(record.name, QTYPE.TXT, ttl=record.ttl, rdata=TXT(strings))
    value = f"{record.priority} {record.value}" if record.type == "MX" else record.value
    return RR.fromZone(f"{record.name}. {record.ttl} IN {record.type} {value}")[0]


def _blank(request: DNSRecord) -> DNSRecord:
    reply = request.reply(ra=0, aa=1)
    if payload_offered(request):
        # RFC 6891 section 6.1.1: an OPT is answered by an OPT.
        reply.add_ar(EDNS0(udp_len=EDNS_OCTETS))
    return reply


def failure(request: DNSRecord, rcode: str) -> DNSRecord:
    reply = _blank(request)
    reply.header.aa = 0
    reply.header.rcode = getattr(RCODE, rcode)
    return reply


def payload_offered(request: DNSRecord) -> int | None:
    """The UDP payload size in the client's OPT record, which sits in its class field; None without OPT."""
    return next((int(record.rclass) for record in request.ar if record.rtype == QTYPE.OPT), None)


def udp_limit(request: DNSRecord) -> int:
    return max(UDP_OCTETS, min(payload_offered(request) or UDP_OCTETS, EDNS_OCTETS))
