"""What Alidns answers when it refuses: code, HTTP status, words.

The documentation's table and the wire disagree on statuses (Forbidden.RAM is
documented as 403 and arrives as 400); the wire is right. Codes marked (doc)
were found documented only, so their status here is the documented one, or 400
where none is. Clients are to look at `Code`, never at the status.
"""

from __future__ import annotations

from typing import Any

_REFUSALS: dict[str, tuple[int, str]] = {
    # The request as such.
    "InvalidApi.NotFound": (404, "Specified api is not found, please check your url and method."),  # doc
    "InvalidTimeStamp.Expired": (400, "Specified time stamp or date value is expired."),
    "InvalidTimeStamp.Format": (400, "Specified time stamp or date value is not well formatted."),  # doc
    "InvalidParameter.Format": (400, "Specified parameter format is not valid."),  # doc
    "UnsupportedHTTPMethod": (400, "This http method is not supported."),  # doc
    # Who asks.
    "InvalidAccessKeyId": (404, "Specified access key is not found or invalid."),
    "InvalidAccessKeyId.Inactive": (400, "Specified access key is disabled."),  # doc
    "InvalidSecurityToken.MismatchWithAccessKey": (
        400,
        "Specified security token does not match the access key.",
    ),  # doc; the words are ours
    "InvalidSecurityToken.Expired": (400, "Specified SecurityToken is expired."),  # doc
    "IncompleteSignature": (400, "The request signature does not conform to Aliyun standards."),  # doc
    "SignatureNonceUsed": (400, "Specified signature nonce was used already."),
    "Forbidden.RAM": (
        400,
        "User not authorized to operate on the specified resource, or this API doesn't support RAM.",
    ),
    # How often, and when not.
    "Throttling.User": (400, "Request was denied due to user flow control."),  # status: doc
    "ServiceUnavailable": (503, "The request has failed due to a temporary failure of the server."),  # doc
    # Zones and records.
    "InvalidDomainName.Format": (400, "Invalid domain name."),
    "InvalidDomainName.NoExist": (
        400,
        "The specified domain name does not exist. Refresh the page and try again.",
    ),
    "IncorrectDomainUser": (
        400,
        "The domain name belongs to other users. "
        "Transfer the domain name to the current user and then try the binding and setting actions.",
    ),
    "DomainRecordNotBelongToUser": (400, "The DNS record does not exist in your account."),
    "DomainRecordDuplicate": (400, "The DNS record already exists."),
    "DomainRecordConflict": (400, "The domain record is conflict with other records."),  # doc
    "DomainRecordLocked": (400, "The DNS record is locked."),  # doc; the words are ours
    "SubDomainInvalid.Value": (400, "The DNS record is invalid or in the wrong format."),
    "QuotaExceeded.TTL": (
        400,
        "The specified TTL is invalid. A valid TTL must be in the range of 600 to 86400.",
    ),
}


class Refusal(Exception):
    """An error reply; `details` are further fields of its body."""

    def __init__(
        self, code: str, message: str | None = None, *, status: int | None = None, **details: Any
    ) -> None:
        known_status, known_message = _REFUSALS.get(code, (400, ""))
        self.code = code
        self.status = status or known_status
        self.message = message or known_message
        self.details = details
        super().__init__(f"{code}: {self.message}")


def missing(parameter: str) -> Refusal:
    """A mandatory parameter that isn't there."""
    return Refusal(f"Missing{parameter}", f"{parameter} is mandatory for this action.")


def invalid(parameter: str) -> Refusal:
    """A parameter whose value can't be read."""
    return Refusal(f"Invalid{parameter}", f"Specified parameter {parameter} is not valid.")
