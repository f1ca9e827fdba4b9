"""One suite for every source of releases, unchanged: what release/source.py promises its readers.

certcast's own store, written by certcast; and a certbot's lineage, with the files of certbot 5.8.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from certcast.config.model import CertificateConfig, CertificateName, DnsName
from certcast.publisher.chosen_source import source_of
from certcast.release import certificate
from certcast.release.source import Source
from certcast.report.errors import IssuedUnusable, LineageUnusable
from certcast_lab.serving.authority import Authority, Pair
from held import DIRECTORY, CertbotFiles, issued, leaf_of

NAME = "example.test"
UNUSABLE = (IssuedUnusable, LineageUnusable)


@dataclass
class Place:
    """Where one implementation keeps its releases, and who writes there."""

    root: Path
    source: Source
    add: Callable[[Pair], object]
    file: Callable[[str], Path]
    """One of the live version's files, by its kind."""
    go_back: Callable[[], object]
    """Make the version before the live one live again."""


def acme_place(root: Path, source: Source) -> Place:
    def folder() -> Path:
        numbered = {int(path.name.partition("-")[0]): path for path in source.place.glob("[1-9]*")}
        return numbered[max(numbered)]

    return Place(
        root,
        source,
        add=lambda pair: issued(root, NAME, pair),
        file=lambda kind: folder() / f"{kind}.pem",
        go_back=lambda: shutil.rmtree(folder()),
    )


def certbot_place(root: Path, source: Source) -> Place:
    files = CertbotFiles(root, NAME)

    def live() -> int:
        return int((files.live / "fullchain.pem").readlink().stem.removeprefix("fullchain"))

    def go_back() -> None:
        for kind in ("cert", "privkey", "chain", "fullchain"):
            files.link(kind, 1)

    return Place(
        root,
        source,
        add=files.add,
        file=lambda kind: files.archive / f"{kind}{live()}.pem",
        go_back=go_back,
    )


PLACES = {"acme": acme_place, "certbot": certbot_place}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A source in which there is nothing yet."""
    wanted = CertificateConfig(CertificateName(NAME), (DnsName(NAME),), source=request.param)
    source = source_of(wanted, state_dir=tmp_path, certbot_config_dir=tmp_path)
    return PLACES[request.param](tmp_path, source)


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    ca = Authority("Lab", parent=Authority("Lab Root"))
    return [ca.issue(NAME) for _ in range(4)]


@pytest.fixture
def filled(place: Place, pairs: list[Pair]) -> Place:
    """The same with three versions; the fourth pair is somebody else's."""
    for pair in pairs[:3]:
        place.add(pair)
    return place


def tree(root: Path) -> dict[Path, tuple[int, int, bytes]]:
    """All that there is below a folder: modes, moments of change, contents and where links lead."""
    return {
        path: (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [root, *root.rglob("*")]
    }


def test_where_there_is_nothing_it_says_so(place: Place) -> None:
    """A first order is told apart from a damaged certificate; the error says how to get the first one."""
    assert not place.source.exists()
    assert [] == place.source.all()
    assert place.source.find("f" * 64) is None
    assert place.source.exposed() is None
    with pytest.raises(UNUSABLE, match=NAME) as caught:
        place.source.live()
    assert caught.value.next


def test_the_live_release_is_the_last_one_with_its_key(filled: Place, pairs: list[Pair]) -> None:
    """Chain and key are the files as they are, and belong together; the issuing CA is known."""
    found = filled.source.live()
    assert (pairs[2].fullchain_pem, pairs[2].key_pem) == (found.fullchain, found.privkey)
    assert leaf_of(pairs[2]) == found.leaf
    assert certificate.key_fits(certificate.read_key(found.privkey), found.leaf)
    assert (NAME, DIRECTORY) == (found.name, found.directory)
    assert filled.source.exists()


def test_all_releases_are_listed_the_latest_first(filled: Place, pairs: list[Pair]) -> None:
    """What is to be revoked, and what can be stepped back to, is everything that is still here."""
    known = filled.source.all()
    assert [leaf_of(pair) for pair in (pairs[2], pairs[1], pairs[0])] == [one.leaf for one in known]
    assert [pairs[2].fullchain_pem, DIRECTORY] == [known[0].fullchain, known[0].directory]
    assert 3 == len({one.version for one in known})


def test_a_release_is_found_by_its_leaf(filled: Place, pairs: list[Pair]) -> None:
    """Whatever its number: certificate and key of exactly this leaf, or none."""
    for pair in pairs[:3]:
        found = filled.source.find(leaf_of(pair).sha256)
        assert found is not None
        assert (pair.fullchain_pem, pair.key_pem) == (found.fullchain, found.privkey)
    assert filled.source.find(leaf_of(pairs[3]).sha256) is None
    assert filled.source.find("0" * 64) is None


def test_a_key_is_never_printed(filled: Place, pairs: list[Pair]) -> None:
    """Neither by a debug print, nor in a traceback."""
    shown = repr([filled.source.live(), filled.source.find(leaf_of(pairs[0]).sha256), filled.source.all()])
    assert "PRIVATE KEY" not in shown


DAMAGES: dict[str, Callable[[Place, Pair], object]] = {
    "key of another certificate": lambda place, other: place.file("privkey").write_bytes(other.key_pem),
    "key empty": lambda place, _: place.file("privkey").write_bytes(b""),
    "key cut short": lambda place, _: place.file("privkey").write_bytes(b"-----BEGIN PRIVATE KEY-----\nMII"),
    "key missing": lambda place, _: place.file("privkey").unlink(),
    "certificate of another key": lambda place, other: place.file("fullchain").write_bytes(
        other.fullchain_pem
    ),
    "certificate empty": lambda place, _: place.file("fullchain").write_bytes(b""),
    "certificate garbled": lambda place, _: place.file("fullchain").write_bytes(b"\xff" * 100),
    "certificate missing": lambda place, _: place.file("fullchain").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_there_and_unusable_is_an_error(filled: Place, pairs: list[Pair], damage: str) -> None:
    """It is never "there is none", for which another would be ordered, nor silently an older one."""
    DAMAGES[damage](filled, pairs[3])
    assert filled.source.exists()
    with pytest.raises(UNUSABLE, match=NAME) as caught:
        filled.source.live()
    assert "stays" in (caught.value.kept or "")
    assert caught.value.next


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_release_is_never_found(filled: Place, pairs: list[Pair], damage: str) -> None:
    """Nothing is sealed to a host, or stepped back to, but a certificate with its own key."""
    DAMAGES[damage](filled, pairs[3])
    try:
        found = filled.source.find(leaf_of(pairs[2]).sha256)
    except UNUSABLE:
        found = None
    assert found is None
    assert filled.source.find(leaf_of(pairs[0]).sha256) is not None


@pytest.mark.parametrize("damage", ["key of another certificate", "key empty", "key cut short"])
def test_a_wrong_key_is_an_error_where_it_is_looked_for(
    filled: Place, pairs: list[Pair], damage: str
) -> None:
    """A key that was exchanged is told, and not taken for one that was removed."""
    DAMAGES[damage](filled, pairs[3])
    with pytest.raises(UNUSABLE, match=NAME):
        filled.source.find(leaf_of(pairs[2]).sha256)


def test_one_damaged_release_does_not_hide_the_others(filled: Place, pairs: list[Pair]) -> None:
    """The others can still be revoked and stepped back to."""
    filled.file("fullchain").write_bytes(b"")
    assert [leaf_of(pairs[1]), leaf_of(pairs[0])] == [one.leaf for one in filled.source.all()]


def test_the_mark_changes_as_soon_as_the_live_release_does(place: Place, pairs: list[Pair]) -> None:
    """A run that finds the same mark asks nobody: so each change of what is live shows in it."""
    marks = []
    for pair in pairs[:2]:
        place.add(pair)
        marks.append(place.source.mark())
        assert marks[-1] == place.source.mark()
    place.go_back()
    assert leaf_of(pairs[0]) == place.source.live().leaf
    assert place.source.mark() not in marks[1:]
    assert "" not in marks
    assert 2 == len(set(marks))


def test_reading_does_not_change_the_mark(filled: Place) -> None:
    """A look leaves nothing behind for which the next run would look again."""
    before = filled.source.mark()
    filled.source.live()
    filled.source.all()
    assert before == filled.source.mark()


@pytest.mark.parametrize("damage", [None, *DAMAGES])
def test_reading_never_writes(filled: Place, pairs: list[Pair], damage: str | None) -> None:
    """Whatever is asked, of good files and of damaged ones: each file, mode and moment is as before."""
    if damage is not None:
        DAMAGES[damage](filled, pairs[3])
    before = tree(filled.root)
    for read in (
        filled.source.exists,
        filled.source.live,
        filled.source.all,
        filled.source.mark,
        filled.source.exposed,
        lambda: filled.source.find(leaf_of(pairs[2]).sha256),
        lambda: filled.source.find("0" * 64),
    ):
        try:
            read()
        except (*UNUSABLE, OSError):
            continue
    assert before == tree(filled.root)


def test_reading_where_nothing_is_makes_no_folder(place: Place) -> None:
    """A question about a certificate that there is none of leaves nothing behind."""
    before = tree(place.root)
    place.source.exists()
    place.source.all()
    place.source.find("0" * 64)
    assert before == tree(place.root)


def test_keys_are_as_private_as_their_writer_makes_them(filled: Place) -> None:
    """No alarm about keys that only root can read."""
    assert filled.source.exposed() is None
