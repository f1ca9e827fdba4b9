"""The bucket through which releases reach the hosts: `store.py` is the contract.

    oss://bucket/prefix     oss.py       Alibaba Cloud OSS
    file:///folder          folder.py    a folder, such as a mount
    s3://bucket/prefix      objects.py   S3 and what speaks like it   ┐ extra
    memory://name           objects.py   this process, for tests      ┘ `buckets`

A host without credentials reads any of them through `read_from`, by HTTP: web.py.

Each implementation is imported when a URL asks for it, since a consumer that
has nothing to do must not pay for an SDK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from certcast.report.errors import ConfigInvalid

if TYPE_CHECKING:
    from pathlib import Path

    from certcast.config.model import StoreConfig
    from certcast.storage.store import Reader, Store


def open_reader(config: StoreConfig, state_dir: Path | None = None) -> Reader:
    """Return the store of `[store]` for a host that only reads: by `read_from`, if that is given.

    Else as `open_store`.
    """
    if config.read_from is None:
        return open_store(config, state_dir)
    from certcast.storage.web import WebStore

    return WebStore.from_config(config)


def open_store(config: StoreConfig, state_dir: Path | None = None) -> Store:
    """Return the store that `[store]` names; nothing is sent yet.

    Which endpoint served is remembered in `state_dir`, if one is given. Keys come from
    `certcast.credentials` for oss://, and from the AWS_* environment for s3://. Raises
    ConfigInvalid for what the URL's scheme lacks, and for a host that only reads;
    StoreNoBucket for a folder that isn't there.
    """
    if config.read_from is not None:
        raise ConfigInvalid(
            "store.read_from: this host only reads the store",
            expected="a host with credentials of its own",
            kept="nothing was changed",
            next="run it on the renewal host",
        )
    if config.url.startswith("oss://"):
        from certcast.storage.oss import OssStore

        return OssStore.from_config(config, state_dir)
    if config.url.startswith("file://"):
        from certcast.storage.folder import FolderStore

        return FolderStore.from_config(config)
    from certcast.storage.objects import ObjectsStore

    return ObjectsStore.from_config(config)
