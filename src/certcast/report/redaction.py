"""Secrets are struck out of whatever is printed, mailed and logged.

This is the second line. The first: errors are made of our own words, and a library's text is cut down where
it is caught.

    errors.report()    stderr
    mail               subject and text
    guard_logs()       every record that a handler writes

Known secrets (`remember`, and the environment's) are found to the letter, also in an address; others by
their form. An AccessKey's id stays: it is no secret, and says which key it was. Not found: a private key
without its BEGIN line, and a secret that nobody remembered and that has no label.

Every run imports this; patterns are compiled when there is something to say.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    import re

# Not a list of allowed variables: nobody can foresee which ones `docker exec` and `systemctl` need.
# The first four are what Alibaba Cloud's SDKs and its CLI read.
SECRET_VARIABLES = ("ALIBABA_CLOUD_", "ALIBABACLOUD_", "ALICLOUD_", "OSS_", "AWS_", "CERTCAST_")
STRUCK = "[struck out]"
_SHORTEST = 6  # a shorter one would strike out words
_known: set[str] = set()


def remember(*secrets: str | None) -> None:
    """Strike these out from now on, wherever they turn up."""
    _known.update(secret for secret in secrets if secret and len(secret) >= _SHORTEST)


def redacted(text: str) -> str:
    """Return the text without secrets."""
    secrets = _known.union(value for value in secrets_of_the_environment() if len(value) >= _SHORTEST)
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, STRUCK)
        if not secret.isalnum():
            from urllib.parse import quote

            text = text.replace(quote(secret, safe=""), STRUCK)
    for pattern in _patterns():
        text = pattern.sub(_strike, text)
    return text


def secrets_of_the_environment() -> list[str]:
    """Return the secrets in the environment."""
    words = ("SECRET", "TOKEN", "PASSWORD", "PASSPHRASE")
    return [
        value
        for name, value in os.environ.items()
        if name.startswith(SECRET_VARIABLES)
        and any(word in name for word in words)
        and not name.endswith("_FILE")
    ]


def _strike(match: re.Match[str]) -> str:
    """Keep the text around the group `secret`; without such a group, nothing."""
    if "secret" not in match.re.groupindex:
        return STRUCK
    start, end = match.span("secret")
    whole, offset = match[0], match.start()
    return whole[: start - offset] + STRUCK + whole[end - offset :]


@functools.cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    import re

    return tuple(
        re.compile(pattern, re.VERBOSE | re.IGNORECASE)
        for pattern in (
            # PEM and OpenSSH (RFC 7468, PROTOCOL.key), also cut short, indented, or in a repr() with \n.
            r"""-----BEGIN\ (?:[A-Z0-9]+\ )*PRIVATE\ KEY-----
                (?:\s|\\[nr])* (?:[A-Z-]+:\ [^\n]*\n\s*)* [A-Z0-9+/=]{16,} (?:\s|\\[nr]|[A-Z0-9+/=]{16,})*
                (?:[A-Z0-9+/=]{0,80} (?:\s|\\[nr])* -----END\ (?:[A-Z0-9]+\ )*PRIVATE\ KEY-----)?""",
            # An age identity (https://age-encryption.org/v1): Bech32.
            r"AGE-SECRET-KEY-1[A-Z0-9]{16,}",
            # STS tokens as Alibaba Cloud's documentation shows them; the form is not promised.
            r"\bCAIS[A-Z0-9+/=%]{60,}",
            # An AccessKey's id with something beside it that looks like its secret.
            r"\b(?:LTAI[A-Z0-9]{8,26}|STS\.[A-Z0-9]{16,})[\"']?[\s:,;=/|]{1,4}[\"']?(?P<secret>[A-Z0-9]{28,64})\b",
            r"""(?:access[_-]?key[_-]?secret|secret[_-]?(?:access[_-]?)?key|(?:security|sts|session)[_-]?token
                |client[_-]?secret|password|passphrase)["']?\s*[:=]\s*["']?(?P<secret>(?!\[struck)[^\s"',;&}\]]{6,})""",
            r"authorization[\"']?\s*[:=]\s*[\"']?(?P<secret>(?:OSS|ACS|AWS|Basic|Bearer)[^\r\n\"']{8,})",
            r"\b(?:x-oss-|x-amz-)?signature=(?P<secret>[^\s&\"']{8,})",
            r"://[^/\s:@]+:(?P<secret>[^/\s@]+)@",
        )
    )


def guard_logs() -> None:
    """Make every handler of now, and Python's last resort, strike out secrets."""
    import logging

    for handler in (*logging.getLogger().handlers, logging.lastResort):
        if handler is not None and _in_record not in handler.filters:
            handler.addFilter(_in_record)


def _in_record(record: logging.LogRecord) -> bool:
    """Redact a record; always true, as a filter that lets it pass."""
    try:
        record.msg, record.args = redacted(record.getMessage()), ()
    except Exception:  # a record with the wrong arguments; its handler reports that
        return True
    if record.exc_info:
        import traceback

        # Formatters take the text that is there before they make one.
        record.exc_text = redacted("".join(traceback.format_exception(*record.exc_info)).rstrip())
    return True
