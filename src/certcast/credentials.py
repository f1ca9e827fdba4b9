"""Where the AccessKey comes from: the environment, else the official chain.

Keys in the environment are read here, because importing Alibaba Cloud's
credentials package costs half a second and starts a thread even when the
environment has all it needs. Everything else (OIDC, a profile of
~/.aliyun/config.json, an ECS instance's RAM role, a credentials URI) is that
package's business.

Nothing here logs, and `Keys` hides the secret from repr().
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from certcast.config import Source


@dataclass(frozen=True)
class Keys:
    """An AccessKey, and the STS token where it is a temporary one."""

    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)


class CredentialsMissing(Exception):
    """No link of the chain gave an AccessKey; the text says what was tried."""


def provider(source: Source) -> Callable[[], Keys]:
    """Return a function that gives current keys each time it is called; it raises CredentialsMissing."""
    profile = source.profile
    if profile is None:
        keys = _from_environment()
        if keys is not None:
            return lambda: keys
    return _official_chain(profile)


def _from_environment() -> Keys | None:
    access_key_id = os.environ.get("ALIBABA_CLOUD_ACCESS_KEY_ID")
    secret = os.environ.get("ALIBABA_CLOUD_ACCESS_KEY_SECRET")
    if not access_key_id or not secret:
        return None
    return Keys(access_key_id, secret, os.environ.get("ALIBABA_CLOUD_SECURITY_TOKEN") or None)


def _official_chain(profile: str | None) -> Callable[[], Keys]:
    import logging

    # The package prints tracebacks for every link that merely has nothing to say.
    logging.getLogger("credentials").setLevel(logging.CRITICAL)
    from alibabacloud_credentials.client import Client
    from alibabacloud_credentials.provider import CLIProfileCredentialsProvider

    client = Client(provider=CLIProfileCredentialsProvider(profile_name=profile)) if profile else Client()

    def current() -> Keys:
        try:
            found = client.get_credential()
        except Exception as error:
            # The package raises its own, requests' and plain ValueErrors; each means "no keys".
            raise CredentialsMissing(str(error)) from None
        return Keys(found.access_key_id, found.access_key_secret, found.security_token or None)

    return current
