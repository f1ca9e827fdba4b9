"""The doors of OSS: signature, clock, token, RAM.

    authenticate   Authorization header → the RAM user whose key made it
    authorize      the bucket exists, is the user's account's, and RAM allows it

An unsigned request is refused, unless a bucket policy with Principal `*` allows it
("Bucket Policy", OSS user guide), mostly by network:

    {"Version": "1", "Statement": [{"Effect": "Allow", "Principal": ["*"], "Action": ["oss:GetObject"],
      "Resource": ["acs:oss:*:<uid>:bucket/prefix/*"],
      "Condition": {"StringEquals": {"acs:SourceVpc": ["vpc-lab"]}}}]}

Every client of the lab is in the network `vpc-lab`. For a signed request the bucket
policy is not asked; OSS would.

Assumptions, found in no source: that the steps come in this order, the Code of a
refused V1 request (only its EC is documented), and the texts of a disabled key
and of a bucket of another account.

Not here: computing signatures (oss_signatures.py), policies (ram.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from certcast_lab.aliyun.ram import Ram, User, is_allowed
from certcast_lab.oss.oss_bucket import Bucket
from certcast_lab.oss.oss_errors import OssError
from certcast_lab.oss.oss_signatures import (
    UNSIGNED_PAYLOAD,
    Claim,
    Malformed,
    SignedRequest,
    matches,
    parse,
    string_to_sign,
)

MAX_SKEW_SECONDS = 15 * 60
# HEAD has no right of its own ("RAM policy", OSS developer guide).
VPC = "vpc-lab"
RIGHTS = {"HeadObject": "GetObject", "ListObjectsV2": "ListObjects"}


@dataclass(frozen=True)
class Asked:
    """One request, decoded: header names in lower case, `key` None when it is about a bucket.

    `bare`: the path is a bucket's name without the slash behind it.
    """

    action: str
    method: str
    bucket: str | None
    key: str | None
    query: Mapping[str, str]
    headers: Mapping[str, str]
    source_ip: str
    bare: bool

    @property
    def target(self) -> str:
        return f"{self.bucket or ''}/{self.key or ''}"

    @property
    def version_id(self) -> str | None:
        """The version that is meant; None for the current one."""
        return self.query.get("versionId") if self.key is not None else None

    @property
    def right(self) -> str:
        """The RAM action that it needs: one version's are of their own ("RAM policy", OSS user guide)."""
        return f"oss:{RIGHTS.get(self.action, self.action)}" + ("Version" if self.version_id else "")


def authenticate(asked: Asked, ram: Ram, bucket: Bucket | None, now: float) -> User:
    """The user who signed this. Raises OssError for what doesn't fit. `now`: seconds of the epoch."""
    if "authorization" not in asked.headers and bucket is not None and bucket.policy is not None:
        return _anybody(bucket, bucket.policy)
    claim = _claim(asked.headers)
    user = ram.by_access_key(claim.access_key_id)
    if user is None or not user.active:
        reason = "does not exist in our records" if user is None else "is disabled"
        raise OssError(
            403,
            "InvalidAccessKeyId",
            f"The OSS Access Key Id you provided {reason}.",
            OSSAccessKeyId=claim.access_key_id,
        )
    _check_clock(asked.headers, now)
    signed = SignedRequest(
        asked.method, asked.bucket, asked.key, list(asked.query.items()), asked.headers, asked.bare
    )
    if not matches(user.access_key_secret, signed, claim):
        raise OssError(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method.",
            ec="0002-00000201" if claim.scope else "0002-00000040",
            OSSAccessKeyId=claim.access_key_id,
            SignatureProvided=claim.signature,
            StringToSign=string_to_sign(signed, claim),
        )
    if (asked.headers.get("x-oss-security-token") or None) != user.security_token:
        raise OssError(403, "InvalidSecurityToken", "The security token you provided is invalid.")
    if user.expires is not None and now >= user.expires:
        raise OssError(403, "SecurityTokenExpired", "The security token you provided has expired.")
    if bucket is not None:
        _check_version(claim, bucket)
    return user


def authorize(asked: Asked, user: User, bucket: Bucket | None) -> Bucket:
    """The bucket, if it exists and RAM lets this user do this there. Raises OssError."""
    if bucket is None:
        raise OssError(
            404, "NoSuchBucket", "The specified bucket does not exist.", BucketName=asked.bucket or ""
        )
    if bucket.account != user.account:
        raise OssError(403, "AccessDenied", "The bucket you access does not belong to you.")
    context = {"acs:SourceIp": asked.source_ip, "acs:SourceVpc": VPC}
    resource = f"acs:oss:{bucket.region}:{bucket.account}:{bucket.name}"
    if asked.key is None:
        # Absent parameters count as empty, so that a condition on the prefix can require one.
        context |= {f"oss:{name.title()}": asked.query.get(name, "") for name in ("prefix", "delimiter")}
    else:
        resource += f"/{asked.key}"
    if not is_allowed(user, asked.right, resource, context):
        raise OssError(403, "AccessDenied", "You have no right to access this object.", ec="0003-00000001")
    return bucket


def moment(text: str) -> float:
    """Seconds of the epoch, from V4's compact ISO form or an HTTP date; ValueError for others."""
    if text.endswith("Z") and "T" in text:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()
    return parsedate_to_datetime(text).timestamp()


def _anybody(bucket: Bucket, policy: Mapping[str, Any]) -> User:
    """A caller without a signature, with what the bucket's policy says of everybody."""
    statements = [
        {name: value for name, value in statement.items() if name != "Principal"}
        for statement in policy["Statement"]
        if "*" in statement["Principal"]
    ]
    return User(bucket.account, "anybody", "", "", policies=[{**policy, "Statement": statements}])


def _claim(headers: Mapping[str, str]) -> Claim:
    authorization = headers.get("authorization")
    if authorization is None:
        message = "You have no right to access this object because of bucket acl."
        raise OssError(403, "AccessDenied", message)
    try:
        claim = parse(authorization)
    except Malformed:
        raise OssError(400, "InvalidArgument", "Authorization header is invalid.") from None
    if claim.scope and headers.get("x-oss-content-sha256") != UNSIGNED_PAYLOAD:
        raise OssError(400, "InvalidArgument", "Invalid x-oss-content-sha256 header.")
    return claim


def _check_clock(headers: Mapping[str, str], now: float) -> None:
    try:
        requested = moment(headers.get("x-oss-date") or headers.get("date") or "")
    except ValueError:
        raise OssError(403, "AccessDenied", "OSS authentication requires a valid Date.") from None
    if abs(now - requested) > MAX_SKEW_SECONDS:
        raise OssError(
            403,
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            ec="0002-00000504",
            MaxAllowedSkewMilliseconds=str(MAX_SKEW_SECONDS * 1000),
            RequestTime=_iso(requested),
            ServerTime=_iso(now),
        )


def _check_version(claim: Claim, bucket: Bucket) -> None:
    """V1 is closed to newer buckets; V4 names the bucket's region and the product."""
    if claim.scope is None:
        if not bucket.accepts_v1:
            raise OssError(403, "AccessDenied", "Signature version 1 is not allowed.", ec="0002-00000080")
        return
    _, region, product = claim.scope
    for name, said, true, ec in (
        ("region", region, bucket.region, "0002-00000226"),
        ("product", product, "oss", "0002-00000227"),
    ):
        if said != true:
            message = f"Invalid signing {name} in Authorization header."
            raise OssError(400, "InvalidArgument", message, ec=ec)


def _iso(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%S}.000Z"
