"""The folder of one certificate: names, what is swept, what is pruned, what nginx is told to read."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from certcast.config.model import AbsolutePath, NginxConfig
from certcast.consumer.disk.versions import Folder, derive, version_name
from certcast.host.files import make_private_dir, write_new
from certcast.report.errors import ConfigInvalid
from certcast_lab.serving.authority import Authority


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path, "example.test")
    make_private_dir(made.versions)
    return made


def install(folder: Folder, sequence: int, leaf: str) -> str:
    with folder.staging() as incoming:
        write_new(incoming / "fullchain.pem", leaf.encode())
        write_new(incoming / "privkey.pem", b"key")
        folder.promote(incoming, version_name(sequence, leaf))
    return version_name(sequence, leaf)


def leaf(digit: str) -> str:
    return digit * 64


def test_snippet_names_both_files_absolutely(folder: Folder) -> None:
    """The one file that a site includes holds exactly the two lines that belong together."""
    version = install(folder, 42, leaf("a"))
    folder.point_snippets(version)
    lines = [line for line in folder.snippet.read_text().splitlines() if not line.startswith("#")]
    assert [
        f"ssl_certificate {folder.versions}/42-{'a' * 16}/fullchain.pem;",
        f"ssl_certificate_key {folder.versions}/42-{'a' * 16}/privkey.pem;",
    ] == lines
    assert folder.is_pointed_at(version)


def container(inside: str, host: str) -> NginxConfig:
    return NginxConfig(paths={AbsolutePath(Path(host)): AbsolutePath(Path(inside))})


def test_container_has_a_snippet_with_its_own_paths(tmp_path: Path) -> None:
    """
    An nginx that sees the folder elsewhere reads a snippet of its own, which names the paths that
    it sees; a version is only served if each snippet names it.
    """
    inside = container("/etc/nginx/certs", f"{tmp_path}/certs")
    folder = Folder(tmp_path, "example.test", [NginxConfig(), inside])
    make_private_dir(folder.versions)
    older, newer = install(folder, 41, leaf("a")), install(folder, 42, leaf("b"))
    folder.point_snippets(older)
    theirs = folder.snippet_of(inside)
    before = theirs.read_text()

    folder.point_snippets(newer)
    assert folder.root / "nginx.etc-nginx-certs.conf" == theirs
    assert [
        f"ssl_certificate /etc/nginx/certs/example.test/versions/{newer}/fullchain.pem;",
        f"ssl_certificate_key /etc/nginx/certs/example.test/versions/{newer}/privkey.pem;",
    ] == theirs.read_text().splitlines()[1:]
    assert str(tmp_path) in folder.snippet.read_text()
    assert folder.snippet == folder.snippet_of(NginxConfig())
    assert folder.is_pointed_at(newer)

    theirs.write_text(before)  # as after a crash between the two
    assert not folder.is_pointed_at(newer)
    assert not folder.is_pointed_at(older)
    theirs.unlink()
    assert not folder.is_pointed_at(newer)


def test_container_with_the_same_paths_reads_the_same_snippet(tmp_path: Path) -> None:
    """A container that has the folder where this host has it needs no snippet of its own."""
    same = container(f"{tmp_path}/certs", f"{tmp_path}/certs")
    assert "nginx.conf" == Folder(tmp_path, "example.test", [same]).snippet_of(same).name


def test_longest_mapping_counts(tmp_path: Path) -> None:
    """Where a folder and one inside of it are mounted, the inner one says what the container sees."""
    both = NginxConfig(
        paths={
            AbsolutePath(tmp_path): AbsolutePath(Path("/state")),
            AbsolutePath(tmp_path / "certs/example.test"): AbsolutePath(Path("/tls")),
        }
    )
    folder = Folder(tmp_path, "example.test", [both])
    make_private_dir(folder.root)
    assert folder.root / "nginx.tls.conf" == folder.snippet_of(both)
    folder.point_snippets("42-aaaaaaaaaaaaaaaa")
    assert "ssl_certificate /tls/versions/42-" in folder.snippet_of(both).read_text()


def test_odd_or_shared_paths_of_containers_are_refused(tmp_path: Path) -> None:
    """An inner path with nginx's syntax, and two inner paths that would share a snippet, are refused."""
    with pytest.raises(ConfigInvalid, match="cannot stand in an nginx configuration"):
        Folder(tmp_path, "example.test", [container("/etc/$x", f"{tmp_path}/certs")])
    with pytest.raises(ConfigInvalid, match=r"nginx\.a-b\.conf"):
        Folder(
            tmp_path,
            "example.test",
            [container("/a/b", f"{tmp_path}/certs"), container("/a-b", f"{tmp_path}/certs")],
        )


@pytest.mark.parametrize("odd", ["with space", "do$$lar", "semi;colon", 'quo"te', "bra{ce"])
def test_path_that_nginx_would_read_otherwise_is_refused(tmp_path: Path, odd: str) -> None:
    """A state_dir that nginx would take for syntax or a variable is refused before anything is written."""
    with pytest.raises(ConfigInvalid, match="cannot stand in an nginx configuration"):
        Folder(tmp_path / odd, "example.test")


def test_crash_leftovers_are_swept_and_nothing_else(folder: Folder) -> None:
    """Staging folders (they hold keys) and half-written files of a killed run go; versions stay."""
    version = install(folder, 1, leaf("a"))
    folder.point_snippets(version)
    (folder.root / "incoming-0badcafe").mkdir()
    (folder.root / "incoming-0badcafe" / "privkey.pem").write_bytes(b"secret")
    (folder.root / ".nginx.conf.new").write_bytes(b"ssl_certif")
    (folder.versions / version / ".combined.pem.new").write_bytes(b"half a secret")
    (folder.root / ".current.new").symlink_to("versions/gone")
    (folder.versions / ".damaged-0badcafe").mkdir()
    folder.sweep()
    assert {"versions", "nginx.conf"} == {path.name for path in folder.root.iterdir()}
    assert [version] == [path.name for path in folder.versions.iterdir()]
    assert {"fullchain.pem", "privkey.pem"} == set(folder.read_files(version))


def test_staging_is_gone_after_a_failure(folder: Folder) -> None:
    """A download that fails leaves no key behind."""
    with contextlib.suppress(OSError), folder.staging() as incoming:
        write_new(incoming / "privkey.pem", b"secret")
        raise OSError("the disk is full")
    assert not list(folder.root.glob("incoming-*"))


def test_newest_three_stay_and_what_must_be_kept(folder: Folder) -> None:
    """By number, not by text: 9, 10 and 11 are the newest three; the served one stays however old it is."""
    for sequence, digit in ((1, "a"), (2, "b"), (9, "c"), (10, "d"), (11, "e")):
        install(folder, sequence, leaf(digit))
    folder.prune(keep=(version_name(1, leaf("a")), None))
    assert [1, 9, 10, 11] == sorted(sequence for sequence, _ in folder.list_versions().values())


def test_foreign_files_are_not_versions(folder: Folder) -> None:
    """What an operator puts beside the versions is neither counted nor removed."""
    (folder.versions / "notes.txt").write_text("mine")
    install(folder, 3, leaf("a"))
    folder.prune(keep=())
    assert [version_name(3, leaf("a"))] == list(folder.list_versions())
    assert (folder.versions / "notes.txt").exists()


def test_damaged_version_is_replaced_whole(folder: Folder) -> None:
    """A version that is fetched again takes the place of the damaged one under the same name."""
    version = install(folder, 1, leaf("a"))
    (folder.versions / version / "privkey.pem").unlink()
    install(folder, 1, leaf("a"))
    assert {"fullchain.pem": leaf("a").encode(), "privkey.pem": b"key"} == folder.read_files(version)


# -- files for other programs, made of the two

ISSUER = Authority("Issuer", parent=Authority("Root"))


def test_derived_files_lose_and_add_nothing() -> None:
    """cert.pem and chain.pem are fullchain.pem in two parts; combined.pem is the key before it."""
    pair = ISSUER.issue("example.test")
    release = {"fullchain.pem": pair.fullchain_pem, "privkey.pem": pair.key_pem}
    made = derive(release, ["cert.pem", "chain.pem", "combined.pem", "privkey.pem"])
    assert pair.fullchain_pem == made["cert.pem"] + made["chain.pem"]
    assert ISSUER.pem == made["chain.pem"][: len(ISSUER.pem)]
    assert pair.key_pem + pair.fullchain_pem == made["combined.pem"]
    assert pair.key_pem == made["privkey.pem"]


def test_key_without_a_last_line_feed_stays_a_block() -> None:
    """A key whose last line has no line feed is still a block of its own in combined.pem."""
    pair = {"fullchain.pem": b"-----BEGIN CERTIFICATE-----", "privkey.pem": b"-----END PRIVATE KEY-----"}
    combined = derive(pair, ["combined.pem"])["combined.pem"]
    assert b"-----END PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----" == combined


def test_leaf_alone_has_an_empty_chain() -> None:
    """A certificate that a trusted root has signed itself has no intermediates."""
    leaf = derive({"fullchain.pem": ISSUER.pem, "privkey.pem": b""}, ["chain.pem"])
    assert {"chain.pem": b""} == leaf
