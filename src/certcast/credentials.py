"""Where the AccessKey of an account comes from, by the `KeySource` that its section names.

    nothing said    the environment's ALIBABA_CLOUD_ACCESS_KEY_ID and _SECRET, else the
                    official chain: OIDC, ~/.aliyun/config.json, an ECS instance's RAM
                    role, a credentials URI
    profile         that entry of ~/.aliyun/config.json, whatever the environment says
    role_arn        with the keys of the above, the RAM role is assumed at STS

Keys in the environment are read here, because importing Alibaba Cloud's
credentials package costs half a second and starts a thread even when the
environment has all it needs. Everything else is that package's business: also
AssumeRole, whose keys last an hour and are asked for anew 15 minutes before
their end. So whoever signs asks for keys each time.

Nothing here logs, and `Keys` hides the secret from repr(). The package's own
words are not passed on: its errors hold requests with signature and token, and
what STS answered, whole. What is given out is struck out wherever it turns up
(redaction.py). A file with keys that others may read is refused before it is used.

Not here: which account holds what (dns01/accounts.py, [store]). Not bounded: the
time of one call to STS or to a credentials URI, if the peer sends one octet at a
time; the package has time-outs for silence alone (5 s to connect, 10 s to read).
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from certcast.host import clock, private_files
from certcast.report import redaction

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator

    from certcast.config.model import KeySource
    from certcast.host.clock import WrongClock

# Seen in the trail of the account's operations, beside the role.
_SESSION = "certcast"
_DEFAULT_STS = "https://sts.aliyuncs.com"  # the package's; overseas and VPC ones are named by sts_endpoint


@dataclass(frozen=True)
class Keys:
    """An AccessKey, and the STS token where it is a temporary one."""

    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)


class CredentialsMissing(Exception):
    """There are no keys; the text says what was tried, `source` where, `remedy` what would give some.

    Its kinds: STS was asked for them.
    """

    source = ""
    remedy = ""


class RoleRefused(CredentialsMissing):
    """STS refuses to give the role; a person must mend that."""


class StsUnavailable(CredentialsMissing):
    """STS gave no answer, or one that asks to come again."""


class StsClock(CredentialsMissing):
    """STS refuses because this host's clock is wrong."""

    def __init__(self, why: str, wrong: WrongClock | None) -> None:
        super().__init__(why)
        self.wrong = wrong


def provider(source: KeySource) -> Callable[[], Keys]:
    """Return a function that gives current keys each time it is called; it raises CredentialsMissing.

    Raises SecretExposed if somebody else can read or change the file with the keys.
    """
    redaction.guard_logs()
    own = _own(source.profile)
    keys = own if source.role_arn is None else _assumed(own, source.role_arn, source.sts_endpoint)

    def current() -> Keys:
        try:
            found = keys()
        except CredentialsMissing as missing:
            missing.source = said(source)
            missing.remedy = _remedy(source)
            raise
        redaction.remember(found.access_key_secret, found.security_token)
        return found

    return current


def said(source: KeySource) -> str:
    """Return in a few words which keys these are, for an error that they cause; never a key."""
    if source.profile is not None:
        own = f"profile {source.profile} of ~/.aliyun/config.json"
    elif _from_environment() is not None:
        own = "ALIBABA_CLOUD_ACCESS_KEY_ID of the environment"
    else:
        own = "the official credential chain"
    return own if source.role_arn is None else f"role {source.role_arn}, assumed with {own}"


def _remedy(source: KeySource) -> str:
    if source.profile is not None:
        return (
            f"add profile {source.profile} to ~/.aliyun/config.json of the user that runs certcast, "
            "or correct the line that names it"
        )
    return (
        "set both ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, or name a profile, "
        "or give the host a RAM role"
    )


def _own(profile: str | None) -> Callable[[], Keys]:
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
    for path in _files(profile):
        # Asked as the package does: what it takes for missing is not ours to complain about.
        if os.path.isfile(path):  # noqa: PTH113
            private_files.require_private(path, "the AccessKey")
    _silence()
    from alibabacloud_credentials.client import Client
    from alibabacloud_credentials.provider import CLIProfileCredentialsProvider

    client = Client(provider=CLIProfileCredentialsProvider(profile_name=profile)) if profile else Client()

    def current() -> Keys:
        try:
            found = client.get_credential()
        except Exception as error:
            # The package raises its own, requests' and plain ValueErrors; each means "no keys".
            raise CredentialsMissing(_without_secrets(str(error))) from None
        return Keys(found.access_key_id, found.access_key_secret, found.security_token or None)

    return current


def _files(profile: str | None) -> list[Path]:
    """Return the files from which the package takes keys, as it finds them (1.0.12, provider/default.py)."""
    home = Path(os.environ.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111  never raises
    command_line_tool = home / ".aliyun/config.json"
    if profile is not None:
        return [command_line_tool]
    own = os.environ.get("ALIBABA_CLOUD_CREDENTIALS_FILE")
    found = [Path(own) if own else home / ".alibabacloud/credentials.ini"]
    disabled = os.environ.get("ALIBABA_CLOUD_CLI_PROFILE_DISABLED", "").lower() == "true"
    return found if disabled else [command_line_tool, *found]


def _assumed(own: Callable[[], Keys], role_arn: str, endpoint: str | None) -> Callable[[], Keys]:
    _silence()
    from alibabacloud_credentials.provider import RamRoleArnCredentialsProvider

    official = RamRoleArnCredentialsProvider(
        credentials_provider=_Caller(own),
        role_arn=role_arn,
        role_session_name=_SESSION,
        sts_endpoint=urlsplit(endpoint).netloc if endpoint else None,
    )

    def current() -> Keys:
        with _reported(role_arn, endpoint or _DEFAULT_STS):
            found = official.get_credentials()
        return Keys(found.get_access_key_id(), found.get_access_key_secret(), found.get_security_token())

    return current


class _Caller:
    """Our keys in the form in which the package asks for those that assume a role."""

    def __init__(self, own: Callable[[], Keys]) -> None:
        self._own = own

    def get_credentials(self) -> Any:
        from alibabacloud_credentials.provider.refreshable import Credentials

        keys = self._own()
        return Credentials(
            access_key_id=keys.access_key_id,
            access_key_secret=keys.access_key_secret,
            security_token=keys.security_token,
            provider_name="certcast",
        )


@contextmanager
def _reported(role_arn: str, endpoint: str) -> Iterator[None]:
    """Say in our words why STS gave no keys. What it answers in JSON stands in the package's text."""
    try:
        yield
    except CredentialsMissing:
        raise
    except Exception as error:
        text = str(error)
        status, code = re.search(r"http_code: (\d+)", text), re.search(r'"Code": ?"([\w.]+)"', text)
        if status is None:
            from certcast.host.transport import reason

            why = reason(error.__context__ or error)
            raise StsUnavailable(f"STS at {endpoint} cannot be reached: {why}") from None
        if code is None or status[1].startswith("5") or code[1].startswith("Throttling"):
            answer = code[1] if code else "without a code of STS"
            raise StsUnavailable(f"STS at {endpoint} answered {status[1]} {answer}") from None
        refusal = f"STS at {endpoint} refused to give {role_arn}: {code[1]}"
        wrong = _clock_at(endpoint) if code[1].startswith(("InvalidTimeStamp", "SignatureDoesNot")) else None
        if wrong or code[1].startswith("InvalidTimeStamp"):
            raise StsClock(refusal, wrong) from None
        raise RoleRefused(refusal) from None


def _clock_at(endpoint: str) -> WrongClock | None:
    """Ask STS for the time, unsigned: the package shows no headers of the refusal."""
    from requests import RequestException, head

    try:
        reply = head(endpoint, timeout=(5, 5), allow_redirects=False)
    except RequestException:
        return None
    return clock.wrong_clock(reply.headers.get("Date"), clock.now())


def _without_secrets(text: str) -> str:
    """Cut what a service answered down to its codes, and addresses at the question mark."""
    codes = re.compile(r'"Code": ?"([\w.]+)"')
    text = re.sub(r"\{.*\}", lambda answer: ", ".join(codes.findall(answer[0])) or "…", text, flags=re.DOTALL)
    return re.sub(r"\?\S+", "?…", text)


def _silence() -> None:
    """Keep what the package sends, and how that failed, out of every log: certbot's has all there is.

    The package prints each failure with its traceback, request and signature; its logger's level would
    not do, since it is set anew at import. urllib3 tells of each request with its query, where RPC-SHA1
    has everything.
    """
    import logging

    logging.getLogger("credentials").disabled = True
    logging.getLogger("urllib3.connectionpool").addFilter(_unsigned)


def _unsigned(record: logging.LogRecord) -> bool:
    return "Signature=" not in record.getMessage()
