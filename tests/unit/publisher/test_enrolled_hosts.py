"""The file of enrolled hosts: what it takes, and what it refuses to guess."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from certcast.publisher.hosts import enrolled_hosts
from certcast.publisher.hosts.enrolled_hosts import Host
from certcast.release.ssh_keys import PublicKey
from certcast.report.errors import EnrolRefused, LocalFault

# RFC 8709 section 4; any 32 octets will do where nothing is sealed.
ONE, TWO, THREE = (PublicKey(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes([n]) * 32) for n in (1, 2, 3))
WEB1, WEB2 = Host("web1", ONE), Host("web2", TWO)
POOL = Host("pool", THREE, group=True)


@pytest.fixture
def hosts_file(tmp_path: Path) -> Path:
    return tmp_path / "etc/hosts"


def add(path: Path, *hosts: Host) -> tuple[Host, ...]:
    return enrolled_hosts.add(path, hosts, lock=path.parent.parent / "state/hosts.lock")


def remove(path: Path, name: str) -> Host | None:
    return enrolled_hosts.remove(path, name, lock=path.parent.parent / "state/hosts.lock")


def write(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o644)  # whatever the umask


def test_what_was_added_is_read_back(hosts_file: Path) -> None:
    """Hosts, groups and those that get some certificates only come back as they were enrolled, in order."""
    some = Host("web2", TWO, certificates=("example.com", "xn--fiq228c.com"))
    assert () == enrolled_hosts.read_hosts(hosts_file)
    assert (WEB1, some, POOL) == add(hosts_file, WEB1, some, POOL)
    assert (WEB1, some, POOL) == enrolled_hosts.read_hosts(hosts_file)
    assert f"web1 {ONE.bare}\n" in hosts_file.read_text()
    assert f"@pool {THREE.bare}\n" in hosts_file.read_text()
    assert 0o600 == hosts_file.stat().st_mode & 0o777


def test_a_host_gets_every_certificate_unless_it_names_some() -> None:
    """Without `certificates=` a host gets them all, also those that come later; with it, only these."""
    some = Host("web2", TWO, certificates=("example.com",))
    assert (WEB1, some) == enrolled_hosts.hosts_for((WEB1, some), "example.com")
    assert (WEB1,) == enrolled_hosts.hosts_for((WEB1, some), "example.net")


def test_remarks_stay_where_they_are(hosts_file: Path) -> None:
    """An administrator's remarks, empty lines and order survive adding, changing and removing."""
    write(
        hosts_file,
        f"# Hangzhou\n\n  web1   {ONE.bare} # rack 7\nweb2 {TWO.bare}\n# Shanghai\n@pool {THREE.bare}",
    )
    remove(hosts_file, "web2")
    add(hosts_file, Host("web1", ONE, certificates=("example.com",)))
    add(hosts_file, WEB2)
    assert hosts_file.read_text() == (
        f"# Hangzhou\n\nweb1 {ONE.bare} certificates=example.com    # rack 7\n# Shanghai\n"
        f"@pool {THREE.bare}\nweb2 {TWO.bare}\n"
    )


def test_the_same_again_changes_nothing(hosts_file: Path) -> None:
    """Enrolling a host once more, with the same key, is no mistake and leaves the file alone."""
    add(hosts_file, WEB1)
    before = hosts_file.stat()
    assert () == add(hosts_file, Host("web1", PublicKey(ONE.blob, "root@web1")))
    assert (before.st_ino, before.st_mtime_ns) == (hosts_file.stat().st_ino, hosts_file.stat().st_mtime_ns)


def test_a_name_with_another_key_is_refused(hosts_file: Path) -> None:
    """A key is never exchanged silently: both fingerprints are shown, and both commands."""
    add(hosts_file, WEB1)
    with pytest.raises(EnrolRefused) as caught:
        add(hosts_file, Host("web1", TWO))
    report = caught.value.report()
    assert ONE.fingerprint in report
    assert TWO.fingerprint in report
    assert "`certcast host remove web1`" in report
    assert f'`certcast host add web1 "{TWO.bare}"`' in report
    assert (WEB1,) == enrolled_hosts.read_hosts(hosts_file)


def test_a_key_with_another_name_is_refused(hosts_file: Path) -> None:
    """Two names for one key are refused, naming both and what they may be."""
    add(hosts_file, WEB1)
    with pytest.raises(EnrolRefused, match="web2 has the key of web1") as caught:
        add(hosts_file, Host("web2", ONE))
    assert "certcast host add --group" in str(caught.value.next)
    assert (WEB1,) == enrolled_hosts.read_hosts(hosts_file)


def test_of_a_list_all_are_enrolled_or_none(hosts_file: Path) -> None:
    """Every mistake of a list is told at once, those within it too, and nobody of it is enrolled."""
    add(hosts_file, WEB1)
    with pytest.raises(EnrolRefused) as caught:
        add(hosts_file, POOL, Host("web1", TWO), Host("web4", THREE))
    assert caught.value.found is not None
    assert 2 == len(caught.value.found.splitlines())
    assert "web4 has the key of pool" in caught.value.found
    assert (WEB1,) == enrolled_hosts.read_hosts(hosts_file)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("web1", "a line has a name, a type and a key"),
        (f"web1 ssh-rsa {ONE.bare.split()[1]}", "only ssh-ed25519"),
        (f"web1 {ONE.bare[:-8]}", "cut short"),
        (f"web1 {ONE.bare} root@web1", "a remark begins with #"),
        (f"web1 {ONE.bare} certificates=", "must be"),
        (f"web1 {ONE.bare} certificates=../../etc", "must be a name"),
        (f"web1 {ONE.bare} certificates=a,b c", "a remark begins with #"),
        (f"../web1 {ONE.bare}", "must be a name"),
        (f"web1/x {ONE.bare}", "must be a name"),
        (f"a..b {ONE.bare}", "must be a name"),
        (f"WEB1 {ONE.bare}", "lower case"),
        (f"recovery {ONE.bare}", "not recovery"),
        (f"@ {ONE.bare}", "must be a text"),
        (f"@@web {ONE.bare}", "must be a name"),
        (f"{'x' * 64} {ONE.bare}", "must be a name"),
        (f"web1\x1b {ONE.bare}", "must be a text"),
        (b"web\xff ssh-ed25519 AAAA", "UTF-8"),
        (f"web3 {THREE.bare}", "stands in line 1"),
        (f"web9 {THREE.bare}", "has the key of web3 in line 1"),
    ],
)
def test_a_line_that_is_not_understood_stops_it(hosts_file: Path, line: str | bytes, words: str) -> None:
    """A mistake in the file is reported with its line, and nothing is enrolled, removed or guessed."""
    octets = line if isinstance(line, bytes) else line.encode()
    write(hosts_file, f"web3 {THREE.bare}\n# a remark\n".encode() + octets + b"\n")
    before = hosts_file.read_bytes()
    for act in (
        lambda: enrolled_hosts.read_hosts(hosts_file),
        lambda: add(hosts_file, WEB2),
        lambda: remove(hosts_file, "web3"),
    ):
        with pytest.raises(EnrolRefused) as caught:
            act()
        assert "line 3" in str(caught.value.found)
        assert words in str(caught.value.found)
    assert before == hosts_file.read_bytes()


def test_all_mistakes_are_told_at_once(hosts_file: Path) -> None:
    """Whoever edits the file sees every mistake in one go."""
    write(hosts_file, f"web1\nweb2 {TWO.bare}\n../x {ONE.bare}\nweb2 {THREE.bare}\n")
    with pytest.raises(EnrolRefused, match="3 mistakes") as caught:
        enrolled_hosts.read_hosts(hosts_file)
    assert ["line 1", "line 3", "line 4"] == [
        line.split(":")[0] for line in str(caught.value.found).splitlines()
    ]


def test_windows_line_ends_are_fine(hosts_file: Path) -> None:
    """A file that went through an editor of another system is read as it was meant."""
    write(hosts_file, f"# hosts\r\nweb1 {ONE.bare}\r\n")
    assert (WEB1,) == enrolled_hosts.read_hosts(hosts_file)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(hosts_file: Path, mode: int) -> None:
    """Whoever can write the file gets the private keys, so nobody else may; the report mends it."""
    add(hosts_file, WEB1)
    hosts_file.chmod(mode)
    with pytest.raises(EnrolRefused, match="written by others") as caught:
        enrolled_hosts.read_hosts(hosts_file)
    assert "chmod go-w" in str(caught.value.next)


def test_what_cannot_be_read_is_not_an_empty_list(hosts_file: Path) -> None:
    """A hosts file that is a folder, or that cannot be opened, is a fault, not a fleet without hosts."""
    hosts_file.mkdir(parents=True)
    with pytest.raises(LocalFault, match="read"):
        enrolled_hosts.read_hosts(hosts_file)


def test_mode_owner_and_link_stay(hosts_file: Path, tmp_path: Path) -> None:
    """A file that is kept elsewhere (a link), readable for a group, stays so when a host is added."""
    kept = tmp_path / "managed-hosts"
    kept.write_text("# managed\n")
    kept.chmod(0o640)
    hosts_file.parent.mkdir()
    hosts_file.symlink_to(kept)
    if os.geteuid() == 0:
        os.chown(kept, 0, 1)
    before = kept.stat()
    add(hosts_file, WEB1)
    after = kept.stat()
    assert hosts_file.is_symlink()
    assert f"# managed\nweb1 {ONE.bare}\n" == kept.read_text()
    assert (before.st_uid, before.st_gid, before.st_mode) == (after.st_uid, after.st_gid, after.st_mode)
    assert [kept, hosts_file.parent, tmp_path / "state"] == sorted(
        tmp_path.iterdir(), key=lambda path: path.name != "managed-hosts"
    )


def test_removing_somebody_who_is_not_there(hosts_file: Path) -> None:
    """Removing tells whether there was anybody; others stay."""
    add(hosts_file, WEB1, WEB2)
    assert remove(hosts_file, "web3") is None
    assert WEB1 == remove(hosts_file, "web1")
    assert (WEB2,) == enrolled_hosts.read_hosts(hosts_file)
