"""The bucket through which releases reach the hosts.

    store.py         what every store promises: the contract
    oss.py           oss://bucket/prefix     Alibaba Cloud OSS
    oss_errors.py    what the OSS SDK raises, as the operator should read it
    folder.py        file:///folder          a folder, such as a mount
    objects.py       s3://bucket/prefix      S3 and what speaks like it   ┐ extra
                     memory://name           this process, for tests      ┘ `buckets`
    web.py           any of them, read by HTTP through `read_from`, without credentials
    attempts.py      one operation over HTTP: attempts, pauses, a deadline

Each is imported when a URL asks for it: a consumer that has nothing to do must not pay for an SDK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from certcast.report.errors import ConfigInvalid

if TYPE_CHECKING:
    from certcast.config.model import StoreConfig
    from certcast.storage.store import Reader, Store


def open_reader(config: StoreConfig) -> Reader:
    """Return the store of `[store]` for a host that only reads: by `read_from`, if that is given.

    Else as `open_store`.
    """
    if config.read_from is None:
        return open_store(config)
    from certcast.storage.web import WebStore

    return WebStore.from_config(config)


def open_store(config: StoreConfig) -> Store:
    """Return the store that `[store]` names; nothing is sent yet.

    Keys come from `certcast.credentials` for oss://, and from the AWS_* environment for s3://. Raises
    ConfigInvalid for what the URL's scheme lacks, and for a host that only reads; StoreNoBucket for a
    folder that isn't there.
    """
    if config.read_from is not None:
        raise ConfigInvalid(
            "store.read_from: this host only reads the store",
            expected="a host with credentials of its own",
            next="run it on the renewal host",
        )
    if config.url.startswith("oss://"):
        from certcast.storage.oss import OssStore

        return OssStore.from_config(config)
    if config.url.startswith("file://"):
        from certcast.storage.folder import FolderStore

        return FolderStore.from_config(config)
    from certcast.storage.objects import ObjectsStore

    return ObjectsStore.from_config(config)
