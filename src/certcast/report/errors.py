"""What can go wrong, as an operator meets it.

Every failure that a person should read is a `CertcastError`: what happened,
what was expected and found, what was kept (is the old certificate still
served?), and the next command. Its class fixes a code, which is also its
heading in docs/runbook.md, and an exit status, which scripts may rely on:

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

0 is success (also: nothing to do), 2 wrong usage, 130 Ctrl-C. A status that a
script does not know must count as failure.
"""

from __future__ import annotations

from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, ClassVar

from certcast.report.names import printable, readable
from certcast.report.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self


class CertcastError(Exception):
    """A failure that a person can act on.

    `what` is one sentence without a full stop. The others are lines of the report; None leaves a line
    out. A subclass gives its code and exit status, and may give a `kept` and a `next` for those that say
    none, as words of its class line:

        class Busy(CertcastError, code="BUSY", exit_status=5, next="wait for the other run")
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
        """Return this failure with other lines; None leaves a line as it is.

        For a caller that knows more than the place of the failure: nobody changes an error that is on its
        way up, since others may hold it.
        """
        other = copy(self)
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


class Defect(CertcastError, code="DEFECT", exit_status=1):
    """certcast met a case that its authors did not think of."""


def defect(error: Exception) -> Defect:
    """Return what is told of a failure that is nobody's but ours: source lines, and no variables."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    # Where in certcast it was, and where it came to: what lies between is the library's business.
    ours = [frame for frame in frames[:-1] if "/certcast/" in frame.filename]
    shown = traceback.StackSummary.from_list([*ours[-3:], *frames[-1:]]).format()
    return Defect(
        f"certcast did not expect this: {type(error).__name__}: {error}",
        found="".join([*shown, *traceback.format_exception_only(error)]).strip(),
        kept="what was served before, unless the lines above say otherwise",
        next="run it again; if it repeats, report it with these lines",
    )


class ConfigInvalid(CertcastError, code="CONFIG", exit_status=3):
    """The configuration file is missing, malformed or contradicts itself."""


class LocalFault(CertcastError, code="LOCAL", exit_status=4):
    """A file, a permission or the disk of this host."""


class Busy(CertcastError, code="BUSY", exit_status=5):
    """Another run holds the lock."""


class SecretExposed(CertcastError, code="SECRET-FILE", exit_status=6):
    """A file with a secret belongs to somebody else, or others may read it."""


class IdentityUnusable(CertcastError, code="IDENTITY", exit_status=7):
    """The SSH identity of this host is missing, damaged, or of another kind."""


class RenewalError(CertcastError):
    """Something failed between this host, the CA and the DNS provider."""


class CertbotFailed(RenewalError, code="CERTBOT", exit_status=10):
    """A hook was not called as certbot calls it."""


class NotPropagated(RenewalError, code="DNS-PROPAGATION", exit_status=11):
    """The authoritative nameservers did not show every TXT value in time."""


class DnsDenied(RenewalError, code="DNS-DENIED", exit_status=12):
    """The DNS API refused the AccessKey, or the right to a zone."""


class DnsFailed(RenewalError, code="DNS-API", exit_status=13):
    """The DNS API answered with an error, or not at all."""


class ZoneMissing(RenewalError, code="DNS-ZONE", exit_status=14):
    """No zone of the configuration or of the account holds the name."""


class OrderCapReached(RenewalError, code="ORDER-CAP", exit_status=15):
    """The local cap on orders for one set of names is used up."""


class LineageUnusable(
    RenewalError, code="LINEAGE", exit_status=16, kept="what is published and served stays"
):
    """certbot's files for a certificate are missing, torn, or not fresh."""


class CaUnreachable(RenewalError, code="CA-UNREACHABLE", exit_status=46):
    """The CA gave no complete answer, or said that it is out of service."""


class CaRefused(RenewalError, code="CA-REFUSED", exit_status=47):
    """The CA answered with a problem document (RFC 8555, 6.7)."""


class CaAnswerInvalid(RenewalError, code="CA-ANSWER", exit_status=48):
    """The CA's answer is not what RFC 8555 describes, or its certificate is not the one ordered."""


class ValidationFailed(RenewalError, code="VALIDATION", exit_status=49):
    """The CA validated a name and did not find the TXT value, or was forbidden to issue (CAA)."""


class RateLimited(RenewalError, code="RATE-LIMITED", exit_status=50):
    """The CA takes no order before a certain moment."""


class AccountUnusable(RenewalError, code="ACCOUNT", exit_status=51):
    """There is no account at the CA, none can be made, or the CA refuses it."""


class SourceUndecided(RenewalError, code="SOURCE", exit_status=52, kept="what is published and served stays"):
    """certbot holds the certificate, and the configuration says that certcast orders it."""


class IssuedUnusable(RenewalError, code="ISSUED", exit_status=53):
    """A version in certcast's own store of certificates is missing a file, or damaged."""


class SigningFailed(RenewalError, code="SIGNING", exit_status=17):
    """The publisher's signing key is missing, or `ssh-keygen` did not sign with it."""


class EnrolRefused(RenewalError, code="ENROL", exit_status=18, kept="nothing was changed"):
    """A host cannot be enrolled or removed like this: the key, the name, or who has it already."""


class KitRefused(RenewalError, code="KIT", exit_status=19, kept="nothing was changed"):
    """The recovery kit cannot be made, or does not open."""


class RevocationFailed(
    RenewalError,
    code="REVOCATION",
    exit_status=45,
    kept="the new certificate stays published, and this one is on its list of revoked ones",
):
    """The CA did not revoke a certificate that it was asked to."""


class StoreError(CertcastError):
    """The bucket."""


class StoreUnreachable(StoreError, code="STORE-UNREACHABLE", exit_status=20):
    """No usable answer within the deadline."""


class StoreDenied(StoreError, code="STORE-DENIED", exit_status=21):
    """The store refused the AccessKey, the signature, or the right to a key."""


class StoreNoBucket(StoreError, code="STORE-NO-BUCKET", exit_status=22):
    """The bucket does not exist."""


class StoreTooLarge(StoreError, code="STORE-TOO-LARGE", exit_status=23):
    """An object is larger than its reader accepts."""


class StoreClock(StoreError, code="STORE-CLOCK", exit_status=24):
    """The store says that this host's clock is wrong."""


class ReleaseError(CertcastError):
    """What the store holds must not be installed here."""


class ManifestMissing(ReleaseError, code="MANIFEST-MISSING", exit_status=25):
    """No manifest has been published for the certificate."""


class ManifestInvalid(ReleaseError, code="MANIFEST", exit_status=26):
    """The bytes are not a manifest, or one for another store or certificate."""


class ManifestReplayed(ReleaseError, code="MANIFEST-OLDER", exit_status=27):
    """The manifest is older than one that this host has seen."""


class ManifestExpired(ReleaseError, code="MANIFEST-EXPIRED", exit_status=28):
    """The manifest was not renewed in time: the renewal host is silent."""


class DigestMismatch(ReleaseError, code="PULL-DIGEST", exit_status=29):
    """A downloaded file is not the one that the manifest names."""


class GateRefused(ReleaseError, code="PULL-GATE", exit_status=30):
    """Key, chain, names or dates of a release do not fit this host."""


class FilesUnchanged(ReleaseError, code="PULL-UNCHANGED", exit_status=31):
    """A new release in which a file that must change is the old one."""


class KeyTypeChanged(ReleaseError, code="KEY-TYPE", exit_status=32):
    """The new key has another type than the one that is served, which old clients may not take."""


class SignatureInvalid(ReleaseError, code="SIGNATURE", exit_status=33):
    """The manifest is not signed, or not by a publisher that this host has pinned."""


class NotEnrolled(ReleaseError, code="NOT-ENROLLED", exit_status=34):
    """The release has no private key sealed to the identity of this host."""


class SealedInvalid(ReleaseError, code="SEALED", exit_status=43):
    """The sealed key does not open with this host's identity, or holds no private key."""


class InstallError(CertcastError):
    """nginx did not take the new certificate into service."""


class NginxMissing(InstallError, code="NGINX-MISSING", exit_status=35):
    """nginx cannot be run, or no master process was found."""


class NginxRefused(InstallError, code="NGINX-TEST", exit_status=36):
    """The configuration test failed."""


class ReloadFailed(InstallError, code="NGINX-RELOAD", exit_status=37):
    """The reload command ended with an error."""


class NotProved(InstallError, code="PROOF", exit_status=38):
    """Handshakes after the reload did not show the new certificate."""


class NotIncluded(InstallError, code="NOT-INCLUDED", exit_status=39):
    """The files are ready, but no site's configuration includes them yet."""


class FileMounted(InstallError, code="FILE-MOUNT", exit_status=42):
    """A single file is mounted into a container, which goes on seeing the old one after a rename."""


class MailNotSent(CertcastError, code="MAIL-NOT-SENT", exit_status=40):
    """The work is done, but the mail about it could not be sent."""


class Overdue(CertcastError, code="OVERDUE", exit_status=41):
    """A newer certificate should have been published by now."""
