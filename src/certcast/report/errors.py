"""What can go wrong, as an operator meets it.

    CertcastError
    ├── Defect               DEFECT               1   a mistake in certcast itself
    ├── ConfigInvalid        CONFIG               3   the file says what cannot be done
    ├── LocalFault           LOCAL                4   a file, a permission, a full disk here
    ├── Busy                 BUSY                 5   another run holds the lock
    ├── SecretExposed        SECRET-FILE          6   others may read or replace a file with a secret
    ├── IdentityUnusable     IDENTITY             7   this host's own key is missing or damaged
    ├── RenewalError                                  on the renewal host
    │   ├── CertbotFailed    CERTBOT             10   certbot did not call a hook as it should
    │   ├── NotPropagated    DNS-PROPAGATION     11   the nameservers do not show the TXT values
    │   ├── DnsDenied        DNS-DENIED          12   AccessKey refused, or no right to the zone
    │   ├── DnsFailed        DNS-API             13   the DNS API failed or cannot be reached
    │   ├── ZoneMissing      DNS-ZONE            14   no managed zone holds the name
    │   ├── OrderCapReached  ORDER-CAP           15   too many orders; the CA would lock us out
    │   ├── LineageUnusable  LINEAGE             16   certbot's live files cannot be published
    │   ├── CaUnreachable    CA-UNREACHABLE      46   the CA gave no answer, or is out of service
    │   ├── CaRefused        CA-REFUSED          47   the CA refused the order
    │   ├── CaAnswerInvalid  CA-ANSWER           48   the CA's answer is not ACME, or not what was ordered
    │   ├── ValidationFailed VALIDATION          49   the CA looked for the TXT value and did not find it
    │   ├── RateLimited      RATE-LIMITED        50   the CA asks to wait
    │   ├── AccountUnusable  ACCOUNT             51   the account at the CA is missing or refused
    │   ├── SourceUndecided  SOURCE              52   certbot has the certificate: adopt it, or leave it there
    │   ├── IssuedUnusable   ISSUED              53   certcast's own copy of a certificate is damaged
    │   ├── SigningFailed    SIGNING             17   the publisher's key is missing or does not sign
    │   ├── EnrolRefused     ENROL               18   a host cannot be enrolled or removed like this
    │   ├── KitRefused       KIT                 19   the recovery kit cannot be made or opened
    │   └── RevocationFailed REVOCATION          45   the CA did not revoke a certificate
    ├── StoreError                                    the bucket
    │   ├── StoreUnreachable STORE-UNREACHABLE   20   no answer, or 5xx to the end
    │   ├── StoreDenied      STORE-DENIED        21   AccessKey refused, or no right to the key
    │   ├── StoreNoBucket    STORE-NO-BUCKET     22   the bucket does not exist
    │   ├── StoreTooLarge    STORE-TOO-LARGE     23   an object is larger than it may be
    │   └── StoreClock       STORE-CLOCK         24   this host's clock is wrong
    ├── ReleaseError                                  what was downloaded is not to be installed
    │   ├── ManifestMissing  MANIFEST-MISSING    25   nothing was published yet
    │   ├── ManifestInvalid  MANIFEST            26   not a manifest, or not for this reader
    │   ├── ManifestReplayed MANIFEST-OLDER      27   a lower sequence than was seen before
    │   ├── ManifestExpired  MANIFEST-EXPIRED    28   the renewal host is silent
    │   ├── DigestMismatch   PULL-DIGEST         29   a file is not the one that was published
    │   ├── GateRefused      PULL-GATE           30   key, chain, names or dates do not fit
    │   ├── FilesUnchanged   PULL-UNCHANGED      31   a file that must change stayed the same
    │   ├── KeyTypeChanged   KEY-TYPE            32   RSA became ECDSA, or the other way round
    │   ├── SignatureInvalid SIGNATURE           33   no pinned publisher has signed the manifest
    │   ├── NotEnrolled      NOT-ENROLLED        34   no private key was sealed to this host's identity
    │   └── SealedInvalid    SEALED              43   the sealed key does not open
    ├── InstallError                                  nginx
    │   ├── NginxMissing     NGINX-MISSING       35   no nginx, or no running master
    │   ├── NginxRefused     NGINX-TEST          36   `nginx -t` says no
    │   ├── ReloadFailed     NGINX-RELOAD        37   the reload command failed
    │   ├── NotProved        PROOF               38   the new certificate was not seen served
    │   ├── NotIncluded      NOT-INCLUDED        39   staged; no site includes it yet
    │   └── FileMounted      FILE-MOUNT          42   a container would never see the new file
    ├── MailNotSent          MAIL-NOT-SENT       40   the work is done, nobody was told
    └── Overdue              OVERDUE             41   a newer certificate should be here by now

Each code is a heading of docs/runbook.md, and scripts may rely on the exit statuses. 0 is success (also:
nothing to do), 2 is wrong usage, 130 is Ctrl-C. A script must take any other status for a failure.

A failure says what happened, what was expected and found, what was kept (is the old certificate still
served?), and the next command. It is never changed on its way up, since others may hold it:

    with within(kept="…"):                      for all failures of a block that do not say it themselves
    raise failure.but(kept="…") from failure    where the caller knows better
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from certcast.report.names import printable, readable
from certcast.report.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self


class CertcastError(Exception):
    """A failure that a person can act on.

    `what` is one sentence without a full stop. The others are lines of the report; None leaves a line out.
    The line of a class gives its code and exit status, and may give `kept` and `next` for all failures of the
    class that have no words of their own.
    """

    code: ClassVar[str]
    exit_status: ClassVar[int]
    expected: str | None
    found: str | None
    kept: str | None = None
    next: str | None = None

    def __init_subclass__(
        cls,
        *,
        code: str | None = None,
        exit_status: int | None = None,
        kept: str | None = None,
        next: str | None = None,  # noqa: A002  the word that the report prints
    ) -> None:
        super().__init_subclass__()
        if code is not None and exit_status is not None:
            cls.code, cls.exit_status = code, exit_status
        if kept is not None:
            cls.kept = kept
        if next is not None:
            cls.next = next

    def __init__(
        self,
        what: str,
        *,
        expected: str | None = None,
        found: str | None = None,
        kept: str | None = None,
        next: str | None = None,  # noqa: A002
    ) -> None:
        super().__init__(what)
        self.what = what
        self.expected = expected
        self.found = found
        if kept is not None:
            self.kept = kept
        if next is not None:
            self.next = next

    def but(
        self,
        *,
        found: str | None = None,
        kept: str | None = None,
        next: str | None = None,  # noqa: A002
    ) -> Self:
        """Return this failure with other lines; None leaves a line as it is."""
        # Not copy.copy, which would call __init__ without what a subclass asks for.
        other = type(self).__new__(type(self), *self.args)
        vars(other).update(vars(self))
        for line, text in (("found", found), ("kept", kept), ("next", next)):
            if text is not None:
                setattr(other, line, text)
        return other

    @property
    def runbook(self) -> str:
        """Where the code is explained."""
        return f"docs/runbook.md#{self.code.lower()}"

    def report(self) -> str:
        """Return the error as the lines that a terminal and a mail show, without secrets."""
        lines = [f"error: {self.what}"]
        for label, text in (
            ("expected", self.expected),
            ("found", self.found),
            ("kept", self.kept),
            ("next", self.next),
        ):
            if text:
                lines.append(f"  {label:<9}" + text.replace("\n", "\n" + " " * 11))
        lines.append(f"  code     {self.code} (exit {self.exit_status}), {self.runbook}")
        return printable(readable(redacted("\n".join(lines))))


@contextmanager
def within(*, kept: str) -> Iterator[None]:
    """Say what was kept, for a failure of the block that does not say it itself.

    with within(kept="what is published and served stays"):
        store.put(...)  # a store knows only of requests
    """
    try:
        yield
    except CertcastError as failure:
        if failure.kept:
            raise
        raise failure.but(kept=kept) from failure


class Defect(CertcastError, code="DEFECT", exit_status=1): ...


def defect(error: Exception) -> Defect:
    """Return the report of an exception that certcast does not know: source lines, and no variables."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    # The last three frames in certcast, and the last one of all; those between belong to a library.
    in_certcast = [frame for frame in frames[:-1] if "/certcast/" in frame.filename]
    shown = traceback.StackSummary.from_list([*in_certcast[-3:], *frames[-1:]]).format()
    return Defect(
        f"certcast did not expect this: {type(error).__name__}: {error}",
        found="".join([*shown, *traceback.format_exception_only(error)]).strip(),
        kept="what was served before, unless the lines above say otherwise",
        next="run it again; if it repeats, report it with these lines",
    )


class ConfigInvalid(CertcastError, code="CONFIG", exit_status=3, kept="nothing was changed"): ...


class LocalFault(CertcastError, code="LOCAL", exit_status=4): ...


class Busy(CertcastError, code="BUSY", exit_status=5): ...


class SecretExposed(CertcastError, code="SECRET-FILE", exit_status=6): ...


class IdentityUnusable(CertcastError, code="IDENTITY", exit_status=7): ...


class RenewalError(CertcastError): ...


class CertbotFailed(RenewalError, code="CERTBOT", exit_status=10): ...


class NotPropagated(RenewalError, code="DNS-PROPAGATION", exit_status=11): ...


class DnsDenied(RenewalError, code="DNS-DENIED", exit_status=12): ...


class DnsFailed(RenewalError, code="DNS-API", exit_status=13): ...


class ZoneMissing(RenewalError, code="DNS-ZONE", exit_status=14): ...


class OrderCapReached(RenewalError, code="ORDER-CAP", exit_status=15): ...


class LineageUnusable(
    RenewalError, code="LINEAGE", exit_status=16, kept="what is published and served stays"
): ...


class CaUnreachable(RenewalError, code="CA-UNREACHABLE", exit_status=46): ...


class CaRefused(RenewalError, code="CA-REFUSED", exit_status=47): ...


class CaAnswerInvalid(RenewalError, code="CA-ANSWER", exit_status=48): ...


class ValidationFailed(RenewalError, code="VALIDATION", exit_status=49): ...


class RateLimited(RenewalError, code="RATE-LIMITED", exit_status=50): ...


class AccountUnusable(RenewalError, code="ACCOUNT", exit_status=51): ...


class SourceUndecided(
    RenewalError, code="SOURCE", exit_status=52, kept="what is published and served stays"
): ...


class IssuedUnusable(RenewalError, code="ISSUED", exit_status=53): ...


class SigningFailed(RenewalError, code="SIGNING", exit_status=17): ...


class EnrolRefused(RenewalError, code="ENROL", exit_status=18, kept="nothing was changed"): ...


class KitRefused(RenewalError, code="KIT", exit_status=19, kept="nothing was changed"): ...


class RevocationFailed(
    RenewalError,
    code="REVOCATION",
    exit_status=45,
    kept="the new certificate stays published, and this one is on its list of revoked ones",
): ...


class StoreError(CertcastError): ...


class StoreUnreachable(StoreError, code="STORE-UNREACHABLE", exit_status=20): ...


class StoreDenied(StoreError, code="STORE-DENIED", exit_status=21): ...


class StoreNoBucket(StoreError, code="STORE-NO-BUCKET", exit_status=22): ...


class StoreTooLarge(StoreError, code="STORE-TOO-LARGE", exit_status=23): ...


class StoreClock(StoreError, code="STORE-CLOCK", exit_status=24): ...


class ReleaseError(CertcastError): ...


class ManifestMissing(ReleaseError, code="MANIFEST-MISSING", exit_status=25): ...


class ManifestInvalid(ReleaseError, code="MANIFEST", exit_status=26): ...


class ManifestReplayed(ReleaseError, code="MANIFEST-OLDER", exit_status=27): ...


class ManifestExpired(ReleaseError, code="MANIFEST-EXPIRED", exit_status=28): ...


class DigestMismatch(ReleaseError, code="PULL-DIGEST", exit_status=29): ...


class GateRefused(ReleaseError, code="PULL-GATE", exit_status=30): ...


class FilesUnchanged(ReleaseError, code="PULL-UNCHANGED", exit_status=31): ...


class KeyTypeChanged(ReleaseError, code="KEY-TYPE", exit_status=32): ...


class SignatureInvalid(ReleaseError, code="SIGNATURE", exit_status=33): ...


class NotEnrolled(ReleaseError, code="NOT-ENROLLED", exit_status=34): ...


class SealedInvalid(ReleaseError, code="SEALED", exit_status=43): ...


class InstallError(CertcastError): ...


class NginxMissing(InstallError, code="NGINX-MISSING", exit_status=35): ...


class NginxRefused(InstallError, code="NGINX-TEST", exit_status=36): ...


class ReloadFailed(InstallError, code="NGINX-RELOAD", exit_status=37): ...


class NotProved(InstallError, code="PROOF", exit_status=38): ...


class NotIncluded(InstallError, code="NOT-INCLUDED", exit_status=39): ...


class FileMounted(InstallError, code="FILE-MOUNT", exit_status=42): ...


class MailNotSent(CertcastError, code="MAIL-NOT-SENT", exit_status=40): ...


class Overdue(CertcastError, code="OVERDUE", exit_status=41): ...
