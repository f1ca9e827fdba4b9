"""The publisher's key files when writing them fails half-way: no key that hosts need is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from certcast.config.model import AbsolutePath, Config, RenewalConfig, StoreConfig, StoreUrl
from certcast.host import files
from certcast.publisher.keys import keyring, recovery_kit
from certcast.publisher.keys.recovery_kit import Kit
from certcast.publisher.signer import Signer
from certcast.release.host_identity import new_key
from certcast.release.ssh_keys import PublicKey
from certcast.report.errors import LocalFault, SigningFailed

WRITES = 4


class FullAfter:
    """A disk that takes some more files, and then no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
        self._write = files.write_atomically
        self._left = writes
        monkeypatch.setattr(files, "write_atomically", self)

    def __call__(self, path: Path, body: bytes) -> None:
        if self._left == 0:
            raise OSError(28, "No space left on device", str(path))
        self._left -= 1
        self._write(path, body)


def begun(key: Path) -> Kit:
    """Make a first set of files; return its kit."""
    private, working = new_key("")
    made = recovery_kit.make("file:///store", working)
    keyring.begin(key, private, made)
    return made


def blob(key: PublicKey | None) -> bytes | None:
    return key.blob if key else None


@pytest.mark.parametrize("writes", range(WRITES))
def test_a_first_set_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Where the disk is full after any of the files, none is left: `init` can be run again."""
    FullAfter(monkeypatch, writes)
    with pytest.raises(LocalFault, match="could not write"):
        begun(tmp_path / "publisher")
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("writes", range(WRITES + 1))  # who signed before is noted besides
def test_an_exchange_that_stops_can_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """
    Wherever an exchange stops, the working key is one that hosts believe, the old kit is still in force,
    and the same exchange with another new kit finishes it.
    """
    key = tmp_path / "publisher"
    first = begun(key)
    with monkeypatch.context() as patch:
        FullAfter(patch, writes)
        with pytest.raises(LocalFault):
            keyring.exchange(key, first, recovery_kit.make("file:///store", first.spare))
    stopped = keyring.read(key)
    assert blob(stopped.working) in {first.working.blob, first.spare.blob}
    assert keyring.is_in_force(key, first)

    second = recovery_kit.make("file:///store", first.spare)
    keyring.exchange(key, first, second)
    done = keyring.read(key)
    assert (first.spare.blob, first.spare.blob) == (blob(done.working), blob(done.published))
    assert (second.spare.blob, second.recovery) == (blob(done.spare), done.recovery)
    assert (False, True) == (keyring.is_in_force(key, first), keyring.is_in_force(key, second))


def test_a_kit_that_came_into_force_is_known_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An I/O error after the last exchange: the new kit is in force, so its file must not be taken back."""
    key = tmp_path / "publisher"
    begun(key)
    made = recovery_kit.make("file:///store", new_key("")[1])

    def last_sync_fails(path: Path) -> None:
        if keyring.is_in_force(key, made):
            raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(files, "sync_dir", last_sync_fails)
    with pytest.raises(LocalFault, match="could not write"):
        keyring.replace_kit(key, made)
    assert keyring.is_in_force(key, made)


@pytest.mark.parametrize("name", ["publisher.pub", "publisher-spare.pub", "publisher-recovery.pub"])
@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_public_file_that_others_may_write_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    """Nobody but root exchanges whom this host believes, or adds himself to who gets every private key."""
    key = tmp_path / "publisher"
    begun(key)
    (tmp_path / name).chmod(mode)
    with pytest.raises(SigningFailed, match="written by others"):
        keyring.read(key)
    config = Config(store=StoreConfig(StoreUrl("file:///store")), certificates=())
    with pytest.raises(SigningFailed, match=name) as caught:
        Signer.of(config, RenewalConfig(signing_key=AbsolutePath(key)), "renewal-1")
    assert f"chmod go-w {tmp_path / name}" in caught.value.report()
