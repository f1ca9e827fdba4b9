"""Which of a store's endpoints is asked first, remembered from one run to the next.

    [store] endpoints = ["https://oss-cn-hangzhou-internal.aliyuncs.com",    inside Alibaba Cloud
                         "https://certs.example.com",                        custom domain (CNAME)
                         "https://oss-cn-hangzhou.aliyuncs.com"]             public

One file fits every host of a fleet: the first in this order that can be reached is
used. A host where that isn't the first one would wait for it in each run, so what
served is written down and asked first for six hours:

    {state_dir}/store-endpoint.json    {"endpoint": "https://certs.example.com",
                                        "until": "2026-11-23T18:00:00+00:00",
                                        "of": [the configured ones]}

After that the better ones get their chance again. So an outage inside costs a host
at most six hours of the slower way, and a host outside waits four times a day.

The file is a hint. If it can't be read or written, or was written under another
list, the order is the configured one.

Not here: what counts as reached (oss.py, oss_errors.py).
"""

from __future__ import annotations

import ipaddress
import json
import logging
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from certcast.host import clock, files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

REMEMBERED = timedelta(hours=6)


class Endpoints:
    """The endpoints of one store in the configured order; None stands for the region's own."""

    def __init__(
        self,
        configured: Sequence[str],
        state_dir: Path | None = None,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        self._all: tuple[str | None, ...] = tuple(configured) or (None,)
        self._file = state_dir / "store-endpoint.json" if state_dir and len(self._all) > 1 else None
        self._now = now
        self._chosen: str | None = None
        self._until: datetime | None = None
        if self._file is not None:
            self._recall(self._file)

    def in_turn(self) -> list[str | None]:
        """Return all of them: the one that served lately, then the others as configured."""
        if self._until is None or not timedelta(0) < self._until - self._now() <= REMEMBERED:
            return list(self._all)
        return [self._chosen, *(other for other in self._all if other != self._chosen)]

    def is_last_resort(self, endpoint: str | None) -> bool:
        """Whether nothing comes after it in the configured order, so that waiting for it is worth more."""
        return endpoint == self._all[-1]

    def served(self, endpoint: str | None) -> None:
        """Take note that this one has answered."""
        if endpoint == self._all[0]:
            if self._until is None:
                return
            self._chosen = self._until = None
        elif endpoint == self.in_turn()[0]:
            return
        else:
            self._chosen, self._until = endpoint, self._now() + REMEMBERED
            logger.info("the store is reached by %s", endpoint)
        if self._file is not None:
            self._remember(self._file)

    def _recall(self, file: Path) -> None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(file.read_bytes())
            until = datetime.fromisoformat(found["until"])
            if found["of"] == [*self._all] and found["endpoint"] in self._all and until.tzinfo:
                self._chosen, self._until = found["endpoint"], until

    def _remember(self, file: Path) -> None:
        with suppress(OSError):
            if self._until is None:
                file.unlink(missing_ok=True)
                return
            files.make_private_dir(file.parent)
            until = self._until.isoformat(timespec="seconds")
            note = {"endpoint": self._chosen, "until": until, "of": self._all}
            files.write_atomically(file, json.dumps(note).encode() + b"\n")


def is_custom_domain(endpoint: str) -> bool:
    """Whether the endpoint is a bucket's own domain (CNAME), which the bucket isn't put in front of.

    Since 2025-03-20 new users need one for data on mainland buckets over public
    endpoints. IP addresses, for which the SDK chooses the path style, are none.
    """
    host = urlsplit(endpoint).hostname or ""
    return not host.endswith(".aliyuncs.com") and not _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
