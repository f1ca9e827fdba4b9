"""Sites that name fixed paths: every path gets the release, or all are what they were.

`web.host` begins with a site that names two files of its operator's, as most sites do before
they meet certcast; nothing of the site is edited in these stories.
"""

from __future__ import annotations

import os
import shutil
import ssl
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from certcast.config.model import Argv
from certcast.report.errors import (
    LocalFault,
    NginxMissing,
    NginxRefused,
    NotIncluded,
    NotProved,
    ReloadFailed,
)
from certcast_lab.serving.children import free_ports
from consuming import DAY, NAMES, Consumer, consumer, is_full_root, needs_namespaces, sha256
from full_disk import DISK

SOON = DAY + timedelta(minutes=1)


@pytest.fixture
def web(tmp_path: Path, nginx_program: str) -> Iterator[Consumer]:
    """A host whose site names fixed paths, which copy_to writes."""
    with consumer(tmp_path, program=nginx_program) as started:
        started.name_fixed_paths()
        yield started


def ssl_folder(web: Consumer) -> Path:
    return web.host.root / "etc/nginx/ssl"


def fullchain(web: Consumer) -> Path:
    return ssl_folder(web) / "fullchain.pem"


def privkey(web: Consumer) -> Path:
    return ssl_folder(web) / "privkey.pem"


@dataclass(frozen=True)
class Stands:
    """Everything about a path that somebody could miss, but for its time."""

    link: str | None
    body: bytes
    mode: int
    owner: int
    group: int


def stands(path: Path) -> Stands:
    found = path.lstat()
    link = os.readlink(path) if path.is_symlink() else None  # noqa: PTH115  to the letter
    return Stands(link, path.read_bytes(), stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)


def all_stand(web: Consumer) -> dict[str, Stands]:
    """Return what stands in the folder of the targets, hidden files included."""
    return {path.name: stands(path) for path in ssl_folder(web).iterdir()}


def reloads(web: Consumer) -> int:
    """Return how often nginx was told to reload."""
    return web.host.error_log.read_text().count("(SIGHUP) received")


# -- what is written


def test_site_with_fixed_paths_is_proved_without_an_edit(web: Consumer) -> None:
    """
    Where a site names the targets, the first run already ends "installed": the release is served,
    and a newer one follows, with nothing left beside the targets.
    """
    web.publish("A")
    assert "installed" == web.pull().result
    assert web.leaf("A") == web.served()
    web.publish("B")
    assert "installed" == web.pull(force=True).result
    assert web.leaf("B") == web.served()
    assert web.pairs["B"].fullchain_pem == fullchain(web).read_bytes()
    assert web.pairs["B"].key_pem == privkey(web).read_bytes()
    assert {"fullchain.pem", "privkey.pem"} == set(all_stand(web))
    assert [] == web.leftovers()


def test_forty_sites_with_files_of_their_own(web: Consumer) -> None:
    """
    Forty virtual hosts that each name a pair of their own all get the release by one run and one reload; when
    nginx refuses the next release's run, all eighty files are what they were.
    """
    names = [f"site{number:02}.example.test" for number in range(40)]
    old = web.issue(days_ago=30)
    pairs = {name: old.write(ssl_folder(web) / name) for name in names}
    for name, (chain, key) in pairs.items():
        web.copy_to(fullchain=chain, privkey=key)
        web.host.site_conf.with_name(f"{name}.conf").write_text(
            f"server {{ listen 127.0.0.1:{web.host.ports[0]} ssl; server_name {name};\n"
            f"ssl_certificate {chain}; ssl_certificate_key {key}; }}\n"
        )
    web.reload(until=lambda: web.served(names[-1]) == sha256(old))
    before = reloads(web)
    web.publish("A")
    outcome = web.pull()

    assert "installed" == outcome.result
    assert {web.leaf("A")} == {web.served(name) for name in names}
    assert set(names) <= {place.split()[2] for place in outcome.proved}
    assert before + 1 == reloads(web)
    written = {path: stands(path) for pair in pairs.values() for path in pair}
    web.publish("B")
    web.host.break_configuration()
    with pytest.raises(NginxRefused):
        web.pull(force=True)
    assert written == {path: stands(path) for path in written}
    assert [] == web.leftovers()


def test_unchanged_release_leaves_copies_and_nginx_alone(web: Consumer) -> None:
    """A run that finds nothing new writes no target and reloads nothing."""
    web.publish("A")
    web.pull()
    workers, before = web.workers(), privkey(web).stat().st_ctime_ns
    assert "current" == web.pull(force=True).result
    assert workers == web.workers()
    assert before == privkey(web).stat().st_ctime_ns


def test_copy_that_somebody_overwrote_is_written_again(web: Consumer) -> None:
    """A target that is not what was installed any more is put right by the next run that asks the store."""
    web.publish("A")
    web.pull()
    fullchain(web).write_bytes(web.issue().fullchain_pem)
    assert "installed" == web.pull(force=True).result
    assert web.pairs["A"].fullchain_pem == fullchain(web).read_bytes()
    assert web.host.test()


def test_target_that_no_site_names(tmp_path: Path) -> None:
    """Before any site names a target, the files are put there all the same, for the operator to name."""
    with consumer(tmp_path) as web:
        ssl_folder(web).mkdir()
        web.copy_to(fullchain=fullchain(web), privkey=privkey(web))
        placeholder = web.served()
        web.publish("A")
        with pytest.raises(NotIncluded) as caught:
            web.pull()
        assert "or an ssl_certificate that copy_to writes" in (caught.value.expected or "")
        assert placeholder == web.served()
        assert web.pairs["A"].key_pem == privkey(web).read_bytes()
        web.host.name_files(fullchain(web), privkey(web))
        assert "installed" == web.pull().result
        assert web.leaf("A") == web.served()


def test_snippet_and_copies_side_by_side(web: Consumer) -> None:
    """A site that includes the snippet and one that names fixed paths on one host both get the release."""
    web.publish("A")
    web.pull()
    (port,) = free_ports(1)
    beside = web.host.site_conf.with_name("beside.conf")
    beside.write_text(
        f"server {{ listen 127.0.0.1:{port} ssl; server_name {' '.join(NAMES)}; "
        f"include {web.folder.snippet}; }}\n"
    )
    web.reload(until=lambda: web.host.served("example.test", port).sha256 == web.leaf("A"))
    web.publish("B")
    web.pull(force=True)
    assert web.leaf("B") == web.served() == web.host.served("example.test", port).sha256


def test_owner_group_and_mode_are_those_of_the_entry(web: Consumer) -> None:
    """Each entry's owner, group and mode hold for its files, by name or number; without a mode it is 0600."""
    if not is_full_root():
        pytest.skip("only root may give files away")
    shared = ssl_folder(web) / "shared.pem"
    web.copy_to(fullchain=shared, owner="daemon", group="1", mode="0640")
    web.publish("A")
    web.pull()
    assert (0o640, 1, 1) == (stands(shared).mode, stands(shared).owner, stands(shared).group)
    assert (0o600, 0) == (stands(privkey(web)).mode, stands(privkey(web)).owner)


def test_copy_whose_rights_changed_is_put_right(web: Consumer) -> None:
    """A key that somebody made readable for all is private again after the next run that asks the store."""
    web.publish("A")
    web.pull()
    privkey(web).chmod(0o644)
    web.pull(force=True)
    assert 0o600 == stands(privkey(web)).mode


def test_other_programs_get_their_files(web: Consumer) -> None:
    """
    cert.pem and chain.pem together are fullchain.pem; combined.pem alone starts a TLS server, nginx
    too; `derive` puts them beside the release, 0600, and mends them.
    """
    others = {name: ssl_folder(web) / f"{name}.pem" for name in ("cert", "chain", "combined")}
    web.copy_to(**others)
    web.configure(derive=("chain.pem", "combined.pem"))
    web.publish("A")
    web.pull()
    assert web.pairs["A"].fullchain_pem == others["cert"].read_bytes() + others["chain"].read_bytes()
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(others["combined"])
    web.host.name_files(others["combined"], others["combined"])
    assert web.host.test()

    derived = {path.name: stands(path) for path in web.folder.current.resolve().iterdir()}
    assert {"fullchain.pem", "privkey.pem", "chain.pem", "combined.pem"} == set(derived)
    assert {0o600} == {found.mode for found in derived.values()}
    assert others["combined"].read_bytes() == derived["combined.pem"].body

    (web.folder.current / "combined.pem").write_bytes(b"damaged")
    web.configure(derive=("cert.pem", "combined.pem"))
    web.pull(force=True)
    assert derived["combined.pem"].body == (web.folder.current / "combined.pem").read_bytes()
    assert others["cert"].read_bytes() == (web.folder.current / "cert.pem").read_bytes()


# -- all, or none


def test_refused_configuration_puts_everything_back(web: Consumer) -> None:
    """
    When nginx refuses its configuration, each target is what it was: a link into certbot's live
    folder is that link again, a file has its content, owner and mode, and what was not there isn't.
    """
    live = web.host.root / "etc/letsencrypt/archive/privkey1.pem"
    live.parent.mkdir(parents=True)
    shutil.move(privkey(web), live)
    privkey(web).symlink_to("../../letsencrypt/archive/privkey1.pem")
    fullchain(web).chmod(0o644)
    if is_full_root():
        os.chown(fullchain(web), 1, 2)
    web.copy_to(combined=ssl_folder(web) / "new.pem")
    before, archived = all_stand(web), stands(live)
    old, workers = web.served(), web.workers()
    web.publish("A")
    web.host.break_configuration()
    with pytest.raises(NginxRefused) as caught:
        web.pull()
    assert "copies put back; nginx was not reloaded" in (caught.value.kept or "")
    assert before == all_stand(web)
    assert archived == stands(live)
    assert [] == web.leftovers()

    web.host.mend()
    assert (old, workers) == (web.served(), web.workers())
    assert web.host.test()
    assert "installed" == web.pull(SOON).result
    assert web.leaf("A") == web.served()
    assert archived == stands(live)


def test_broken_handshakes_roll_the_files_back(tmp_path: Path, nginx_program: str) -> None:
    """
    A first release with which nobody gets a handshake any more (ECDSA, where the site allows RSA only)
    is taken back, though certcast has no earlier one: the operator's own files serve again.
    """
    with consumer(tmp_path, program=nginx_program) as web:
        web.name_fixed_paths(web.issue(days_ago=30, key_type="rsa"))
        rsa_only = "ssl_protocols TLSv1.2; ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256;"
        site = web.host.site_conf.read_text()
        web.host.site_conf.write_text(site.replace("server_name", f"{rsa_only}\nserver_name"))
        web.reload(until=lambda: True)
        before, old = all_stand(web), web.served()
        web.publish("A")
        with pytest.raises(NotProved, match="handshakes failed that had worked") as caught:
            web.pull()
        assert "copies put back, reloaded; what worked before works again" in (caught.value.kept or "")
        assert before == all_stand(web)
        assert old == web.served()


def test_failing_reload_goes_back_to_the_release_before(web: Consumer) -> None:
    """When the reload fails, snippet and copies are those of the proved release again."""
    web.publish("A")
    web.pull()
    before = all_stand(web)
    web.publish("B")
    assert web.config.consumer
    server = web.config.consumer.nginx[0]
    web.configure(nginx=(replace(server, reload=Argv(("false",))),))
    with pytest.raises(ReloadFailed):
        web.pull(force=True)
    assert before == all_stand(web)
    assert web.folder.is_pointed_at(f"1-{web.leaf('A')[:16]}")
    assert web.host.test()


def test_stopped_nginx_starts_with_the_new_copies(web: Consumer) -> None:
    """While nginx is stopped the release is put there all the same: it may be waiting for these files."""
    web.publish("A")
    web.host.stop()
    with pytest.raises(NginxMissing, match="nginx is not running"):
        web.pull()
    assert web.pairs["A"].key_pem == privkey(web).read_bytes()
    web.host.start()
    assert web.leaf("A") == web.served()
    assert "installed" == web.pull(SOON).result
    assert {"fullchain.pem", "privkey.pem"} == set(all_stand(web))


def test_reload_without_effect_leaves_the_new_copies(web: Consumer) -> None:
    """When nginx does not take the release over, the new pair stays on the disk: it passed every check."""
    web.publish("A")
    web.configure(proof_deadline=0.5)
    assert web.config.consumer
    server = web.config.consumer.nginx[0]
    web.configure(nginx=(replace(server, reload=Argv(("true",))),))
    with pytest.raises(NotProved):
        web.pull()
    assert web.pairs["A"].key_pem == privkey(web).read_bytes()
    assert {"fullchain.pem", "privkey.pem"} == set(all_stand(web))
    web.configure(nginx=(server,))
    assert "installed" == web.pull(SOON).result


@pytest.mark.parametrize("step", ["prepared", "copied fullchain.pem", "copied privkey.pem", "reloaded"])
def test_run_that_is_interrupted_puts_the_old_files_back(web: Consumer, step: str) -> None:
    """A Ctrl-C, also between two of the renames, leaves the pair that stood there, and nothing beside it."""
    web.publish("A")
    web.pull()
    before = all_stand(web)
    web.publish("B")

    def interrupt(done: str) -> None:
        if done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        web.pull(force=True, after=interrupt)

    assert before == all_stand(web)
    assert web.host.test()


def test_certificate_goes_before_its_key(tmp_path: Path) -> None:
    """However the entries are written, fullchain.pem is replaced first: nginx reads it first (ADR 0003)."""
    with consumer(tmp_path) as web:
        ssl_folder(web).mkdir()
        web.copy_to(privkey=privkey(web))
        web.copy_to(fullchain=fullchain(web))
        web.publish("A")
        steps: list[str] = []
        with pytest.raises(NotIncluded):
            web.pull(after=steps.append)
        copied = [step for step in steps if step.startswith("copied")]
        assert ["copied fullchain.pem", "copied privkey.pem"] == copied


def refused(web: Consumer, match: str) -> LocalFault:
    """Expect a fault of this host; nothing but the report is different afterwards."""
    before, workers, old = all_stand(web), web.workers(), web.served()
    with pytest.raises(LocalFault, match=match) as caught:
        web.pull()
    assert before == all_stand(web)
    assert (old, workers) == (web.served(), web.workers())
    assert [] == web.leftovers()
    assert "every target of copy_to is as it was; nginx was not touched" in (caught.value.kept or "")
    return caught.value


@pytest.mark.parametrize(
    ("entry", "match", "next_step"),
    [
        ({"chain": "nowhere/chain.pem"}, r"write .*nowhere/chain\.pem", "install -d"),
        ({"chain": "folder"}, "write .*folder", "name a file"),
        ({"chain": "privkey.pem/chain.pem"}, "write .*chain.pem", "a file stands where"),
        ({"chain": "x", "owner": "nobody-of-that-name"}, "no user nobody-of-that-name", "copy_to.owner"),
        ({"chain": "x", "group": "nobody-of-that-name"}, "no group nobody-of-that-name", "copy_to.group"),
    ],
)
def test_entry_that_cannot_be_written_changes_nothing(
    tmp_path: Path, entry: dict[str, Any], match: str, next_step: str
) -> None:
    """One target that cannot be written, and none is: the report names it and the next step."""
    with consumer(tmp_path) as web:
        web.name_fixed_paths()
        (web.host.root / "etc/nginx/folder").mkdir()
        base = ssl_folder(web) if "/" in entry["chain"] else ssl_folder(web).parent
        web.copy_to(**{**entry, "chain": base / entry["chain"]})
        web.publish("A")
        assert next_step in (refused(web, match).next or "")


def test_two_targets_that_links_make_one(tmp_path: Path) -> None:
    """Two entries that mean one file by different paths are both named, and nothing is written."""
    with consumer(tmp_path) as web:
        web.name_fixed_paths()
        (web.host.root / "etc/nginx/linked").symlink_to(ssl_folder(web))
        web.copy_to(chain=web.host.root / "etc/nginx/linked/fullchain.pem")
        web.publish("A")
        fault = refused(web, "the same file")
    assert f"{fullchain(web)}\n{web.host.root}/etc/nginx/linked/fullchain.pem" == fault.found


@needs_namespaces
@pytest.mark.parametrize(
    ("mount", "found", "next_step"),
    [
        ("mount -t tmpfs -o size=4k none {folder}", "No space left on device", "df -h"),
        ("mount -t tmpfs -o ro none {folder}", "Read-only file system", "mount the file system writable"),
        (
            "mknod {folder}/chain.pem p",
            "not a file",
            "name a file",
        ),
        (
            "touch {folder}/chain.pem {folder}/a && mount --bind {folder}/a {folder}/chain.pem",
            "Device or resource busy",
            "mount its directory instead",
        ),
    ],
)
def test_file_system_that_refuses_one_target_changes_nothing(
    tmp_path: Path, mount: str, found: str, next_step: str
) -> None:
    """A full or read-only file system below one target, or a mount on it: nothing changes, nor nginx."""
    with consumer(tmp_path) as web:
        web.name_fixed_paths()
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        web.copy_to(chain=elsewhere / "chain.pem", combined=elsewhere / "combined.pem")
        before, workers, old = all_stand(web), web.workers(), web.served()
        web.publish("A")
        # A mount namespace of its own: what is mounted there ends with the command.
        ended = subprocess.run(
            [
                "unshare",
                "-m",
                "sh",
                "-ec",
                f'{mount.format(folder=elsewhere)}; exec "$@"',
                "",
                *web.command(),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert 4 == ended.returncode, ended.stderr
        assert found in ended.stderr
        assert str(elsewhere) in ended.stderr
        assert next_step in ended.stderr
        assert before == all_stand(web)
        assert (old, workers) == (web.served(), web.workers())
        assert [] == web.leftovers()


def pull_with_full_disk(web: Consumer, call: int) -> LocalFault | None:
    """Return how the run ended whose n-th write below the targets' folder failed; None if it has less."""
    with DISK.at(call, ssl_folder(web)):
        try:
            web.pull(force=True)
        except LocalFault as fault:
            return fault
    assert DISK.left > 0, "a write failed, and the run called itself a success"
    return None


def test_disk_that_is_full_at_any_write_leaves_no_half_copies(tmp_path: Path) -> None:
    """
    Whichever write below the targets' folder meets a full disk, all targets are what they were, and
    with room again the next run brings the release into service.
    """
    with consumer(tmp_path) as web:
        web.name_fixed_paths()
        (ssl_folder(web) / "link.pem").symlink_to("fullchain.pem")
        web.copy_to(combined=ssl_folder(web) / "link.pem", chain=ssl_folder(web) / "new.pem")
        before = all_stand(web)
        web.publish("A")
        for call in range(1, 100):
            fault = pull_with_full_disk(web, call)
            if fault is None:
                break
            assert "No space left on device" in (fault.found or "")
            assert before == all_stand(web)
            assert [] == web.leftovers()
        assert call > 10, "the run writes more often than that"
        assert web.leaf("A") == web.served()
        assert [] == web.leftovers()
