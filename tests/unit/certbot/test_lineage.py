"""certbot's files, as they are after good and bad days."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from certcast.certbot.lineage import Lineage, require_fresh
from certcast.report.errors import LineageUnusable
from certcast_lab.serving.authority import Authority, Pair
from held import DIRECTORY, CertbotFiles, held, leaf_of

NAME = "example.test"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)


@dataclass
class Certbot:
    """A certbot with two versions of one certificate, the second one live."""

    files: CertbotFiles
    lineage: Lineage
    old: Pair
    new: Pair


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority("Lab", parent=Authority("Lab Root"))


@pytest.fixture
def certbot(tmp_path: Path, ca: Authority) -> Certbot:
    files, old, new = CertbotFiles(tmp_path, NAME), ca.issue(NAME), ca.issue(NAME)
    files.add(old)
    files.add(new)
    return Certbot(files, Lineage(tmp_path, NAME), old, new)


def test_links_between_two_versions_give_a_matching_pair(certbot: Certbot) -> None:
    """While certbot moves its links one by one, certificate and key are read from one version."""
    certbot.files.link("privkey", 1)
    found = certbot.lineage.live()
    assert ("2", certbot.new.fullchain_pem, certbot.new.key_pem) == (
        found.version,
        found.fullchain,
        found.privkey,
    )


def test_a_key_of_another_certificate_is_never_published(certbot: Certbot) -> None:
    """A mixed-up archive is refused with the command that mends it."""
    (certbot.files.archive / "privkey2.pem").write_bytes(certbot.old.key_pem)
    with pytest.raises(LineageUnusable, match="is not a certificate and its key") as caught:
        certbot.lineage.live()
    assert "does not belong to its certificate" in (caught.value.found or "")
    assert "--force-renewal" in (caught.value.next or "")


def test_where_there_is_no_lineage_the_way_to_one_is_shown(tmp_path: Path) -> None:
    """A certificate that certbot has never issued is told apart from one that is damaged."""
    lineage = Lineage(tmp_path, NAME)
    assert not lineage.exists()
    with pytest.raises(LineageUnusable, match="no such lineage yet") as caught:
        lineage.live()
    assert "three hooks" in (caught.value.next or "")


DAMAGES: dict[str, Callable[[CertbotFiles], object]] = {
    "conf gone": lambda files: files.conf.unlink(),
    "conf renamed": lambda files: files.conf.rename(files.conf.with_suffix(".conf.bak")),
    "conf emptied": lambda files: files.conf.write_text(""),
    "conf garbled": lambda files: files.conf.write_bytes(b"\xff[[[\n= ="),
    "conf without parameters": lambda files: files.conf.write_text(
        files.conf.read_text().split("[renewalparams]")[0]
    ),
    "conf without a link": lambda files: files.conf.write_text(
        files.conf.read_text().replace("chain = ", "chains = ", 1)
    ),
    "conf of another folder": lambda files: files.conf.write_text(
        files.conf.read_text().replace(f"fullchain = {files.live}", f"fullchain = {files.archive}")
    ),
    "links gone": lambda files: files.live.rename(files.live.with_name("moved")),
    "link dangling": lambda files: files.link("fullchain", 9),
    "link of another kind dangling": lambda files: files.link("chain", 9),
    "link became a file": lambda files: files.unlinked("cert"),
    "chain empty": lambda files: (files.archive / "chain2.pem").write_bytes(b""),
    "certificate empty": lambda files: (files.archive / "fullchain2.pem").write_bytes(b""),
    "certificate cut short": lambda files: (files.archive / "fullchain2.pem").write_bytes(b"-----BEGIN CE"),
    "key empty": lambda files: (files.archive / "privkey2.pem").write_bytes(b""),
    "key gone": lambda files: (files.archive / "privkey2.pem").unlink(),
    "archive gone": lambda files: files.archive.rename(files.archive.with_name("moved")),
}


def test_a_link_that_became_a_file_is_called_that(certbot: Certbot) -> None:
    """After a copy without links, the message says which of them it was, and how to copy."""
    certbot.files.unlinked("cert")
    with pytest.raises(LineageUnusable, match=r"cert\.pem is a file") as caught:
        certbot.lineage.live()
    assert "`cp -a`" in (caught.value.next or "")


def test_a_conf_of_another_folder_is_told(certbot: Certbot) -> None:
    """Where certbot would change the links of another folder, this one would never be renewed."""
    other = certbot.files.live.with_name(f"{NAME}-0001")
    shutil.copytree(certbot.files.live, other, symlinks=True)
    certbot.files.conf.write_text(
        certbot.files.conf.read_text().replace(f"{certbot.files.live}/", f"{other}/")
    )
    with pytest.raises(LineageUnusable, match="names another folder"):
        certbot.lineage.live()


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_certbot_could_not_renew_is_told_with_its_mend(certbot: Certbot, damage: str) -> None:
    """certbot would skip it, or order under another name: the error says what is wrong, and what mends it."""
    certbot.lineage.live()
    DAMAGES[damage](certbot.files)
    assert certbot.lineage.exists()
    with pytest.raises(LineageUnusable, match=NAME) as caught:
        certbot.lineage.live()
    assert "certbot" in (caught.value.next or "")
    assert "stays" in (caught.value.kept or "")


def test_what_certbot_cannot_renew_can_still_be_taken_over(certbot: Certbot) -> None:
    """`--adopt` is a way out of a lineage whose conf is lost: certificate and key are as good as before."""
    certbot.files.conf.unlink()
    found = certbot.lineage.live_as_it_is()
    assert (certbot.new.key_pem, None) == (found.privkey, found.directory)


def test_a_lineage_says_which_ca_issued_it(certbot: Certbot) -> None:
    """A staging certificate is known as one; a conf that says nothing of it is no failure here."""
    assert DIRECTORY == certbot.lineage.live().directory
    assert "0123456789abcdef" == certbot.lineage.parameter("account")
    certbot.files.conf.write_text("[renewalparams]\nserver =")
    assert certbot.lineage.parameter("account") is None


def test_a_release_never_prints_its_key(certbot: Certbot) -> None:
    """A debug print or a traceback with the object in it shows no private key."""
    assert "BEGIN" not in repr(certbot.lineage.live())


def test_other_files_in_the_archive_are_no_versions(certbot: Certbot) -> None:
    """What an administrator has put beside certbot's files is left alone, and nothing stumbles over it."""
    (certbot.files.archive / "fullchain-old.pem").write_bytes(certbot.old.fullchain_pem)
    (certbot.files.archive / "fullchain3.pem").write_text("not a certificate")
    assert ["2", "1"] == [one.version for one in certbot.lineage.all()]


def test_the_tenth_version_is_later_than_the_ninth(certbot: Certbot, ca: Authority) -> None:
    """Versions are numbers: fullchain10.pem comes after fullchain9.pem."""
    for version in (9, 10):
        certbot.files.archived(version, ca.issue(NAME))
    assert ["10", "9", "2", "1"] == [one.version for one in certbot.lineage.all()]


def test_a_version_whose_key_was_removed_is_not_held(certbot: Certbot) -> None:
    """Administrators delete old keys from the archive: such a release cannot be sealed to anybody."""
    (certbot.files.archive / "privkey1.pem").unlink()
    assert certbot.lineage.find(leaf_of(certbot.old).sha256) is None


@pytest.mark.parametrize("life", [timedelta(days=90), timedelta(days=45), timedelta(hours=160)])
def test_fresh_means_before_the_window_whatever_the_life(ca: Authority, life: timedelta) -> None:
    """A new 45-day certificate is fresh; one that is due again is not, though it is valid."""
    found = held(ca.issue(NAME, not_before=NOW, not_after=NOW + life))
    require_fresh(found, NOW)
    with pytest.raises(LineageUnusable, match="not a fresh one"):
        require_fresh(found, NOW + life * 0.7)
    with pytest.raises(LineageUnusable, match="not a fresh one"):
        require_fresh(found, NOW - timedelta(seconds=1))


@pytest.mark.parametrize(("folder", "key", "exposed"), [(0o755, 0o644, True), (0o700, 0o644, False)])
def test_a_key_that_anybody_may_read_is_an_alarm(
    certbot: Certbot, folder: int, key: int, exposed: bool
) -> None:
    """What an old certbot made readable is told with the chmod; behind a closed folder it is not readable."""
    for path in (certbot.files.archive, certbot.files.archive.parent):
        path.chmod(folder)
    for path in certbot.files.archive.glob("privkey*.pem"):
        path.chmod(key)
    found = certbot.lineage.exposed()
    assert exposed == (found is not None)
    if found is not None:
        assert "chmod o= " in (found.next or "")
