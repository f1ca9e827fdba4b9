"""Lists of host keys that somebody has already, read as hosts to enrol."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

from certcast.publisher.hosts.host_lists import HostList, read_list
from certcast.release.ssh_keys import PublicKey
from certcast.report.errors import EnrolRefused, LocalFault

# Points of the curve: of all 32 octets half are.
KEYS = [PublicKey(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes([n]) * 32).bare for n in (0, 1, 3, 6, 9)]
RSA = "ssh-rsa " + base64.b64encode(b"\0\0\0\x07ssh-rsa\0\0\0\x01\3\0\0\0\x01\1").decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "list"


def listed(path: Path, text: str, **options: tuple[str, ...]) -> HostList:
    path.write_text(text)
    return read_list(path, **options)


def names(found: HostList) -> dict[str, str]:
    return {host.name: host.key.bare for host in found.hosts}


def test_lines_of_name_and_key(path: Path) -> None:
    """Lines as `certcast identity` gives them for a name, with remarks between them, are hosts."""
    found = listed(path, f"# hosts\n\nweb1 {KEYS[0]}\nweb2 {KEYS[1]} root@web2\r\n")
    assert {"web1": KEYS[0], "web2": KEYS[1]} == names(found)
    assert ([], []) == (found.left_out, found.mistakes)


def test_known_hosts(path: Path) -> None:
    """
    Of known_hosts, each host is taken once, by its first name that is no address, however many lines,
    ports, addresses and other types of key it has there.
    """
    found = listed(
        path,
        f"web1.internal,10.0.0.1 {KEYS[0]}\n"
        f"web1.internal {RSA}\n"
        f"10.0.0.2 {KEYS[1]}\n"
        f"[Web2.internal]:2222,[10.0.0.2]:2222 {KEYS[1]}\n"
        f"fe80::1,web3,web3.internal {KEYS[2]}\n"
        f"web3 {KEYS[2]}\n",
    )
    assert {"web1.internal": KEYS[0], "web2.internal": KEYS[1], "web3": KEYS[2]} == names(found)
    assert [] == found.mistakes
    assert ["line 2: the type of its key is 'ssh-rsa'"] == found.left_out


def test_who_cannot_be_taken_is_named(path: Path) -> None:
    """Hashed names, patterns, marked lines, addresses without a name are left out, each with its reason."""
    found = listed(
        path,
        f"@cert-authority *.internal {KEYS[1]}\n"
        f"|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= {KEYS[2]}\n"
        f"*.internal,!bad {KEYS[3]}\n"
        f"10.0.0.4 {KEYS[4]}\n"
        f"@revoked old {KEYS[3]}\n"
        f"web1 {KEYS[0]}\n",
    )
    assert ["web1"] == list(names(found))
    assert [
        "line 1: is marked @cert-authority",
        "line 2: its name is hashed",
        "line 3: '*.internal,!bad' is a pattern",
        "line 4: 10.0.0.4 is an address without a name",
        "line 5: is marked @revoked",
    ] == sorted(found.left_out)


def test_what_ssh_keygen_has_hashed_is_left_out(path: Path) -> None:
    """A list that `ssh-keygen -H` has hashed names nobody, and that is said."""
    path.write_text(f"web1 {KEYS[0]}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", str(path)], check=True, capture_output=True)
    with pytest.raises(EnrolRefused, match="names no host") as caught:
        read_list(path)
    assert "hashed" in str(caught.value.found)


def test_a_revoked_key_is_never_taken(path: Path) -> None:
    """A key that the list itself has revoked is a mistake wherever else it stands."""
    found = listed(path, f"web1 {KEYS[0]}\nweb2 {KEYS[1]}\n@revoked * {KEYS[0]}\n")
    assert ["line 1: the same list has this key marked @revoked"] == found.mistakes


def test_every_mistake_is_told(path: Path) -> None:
    """All mistakes of a list are found in one go, each with its line."""
    found = listed(
        path,
        f"web1\nweb2 {KEYS[0][:-6]}\n../etc {KEYS[1]}\nrecovery {KEYS[2]}\n"
        f"web/5 {KEYS[3]}\nweb6 ssh-ed25519\n",
    )
    assert [1, 2, 3, 4, 5, 6] == sorted(int(m.split(":")[0].removeprefix("line ")) for m in found.mistakes)
    assert [] == found.hosts


def test_only_who_is_wanted(path: Path) -> None:
    """
    Names choose from a list: a person's known_hosts has strangers in it, whose lines are then no matter,
    and a host with several names is called as it was asked for.
    """
    text = f"github.com {KEYS[0]}\nweb1,web1.internal {KEYS[1]}\nother/bad {KEYS[2]}\n"
    found = listed(path, text, wanted=("*.internal",))
    assert {"web1.internal": KEYS[1]} == names(found)
    assert [] == found.mistakes


def facts(key: str | None, **more: str) -> dict[str, object]:
    """What `ansible -m setup` collects of a host, as far as it matters here."""
    found: dict[str, object] = {"ansible_distribution": "Debian", "ansible_all_ipv4_addresses": ["10.0.0.1"]}
    if key:
        kind, found["ansible_ssh_host_key_ed25519_public"] = key.split()
        found["ansible_ssh_host_key_ed25519_public_keytype"] = kind
    return {**found, **more}


def test_one_host_s_facts(path: Path) -> None:
    """`ansible web1 -m setup --tree DIR` writes such a file; the name is what the host calls itself."""
    document = {
        "ansible_facts": facts(KEYS[0], ansible_nodename="WEB1", ansible_fqdn="web1.internal"),
        "changed": False,
    }
    assert {"web1": KEYS[0]} == names(listed(path, json.dumps(document)))


def test_a_dict_of_hosts(path: Path) -> None:
    """Hosts in a dict are called what they call themselves, else as the dict does; prefixes or not."""
    document = {
        "one": facts(KEYS[0], ansible_nodename="web1"),
        "two": {"ansible_facts": facts(KEYS[1], ansible_hostname="web2")},
        "web3": {"ansible_facts": {"ssh_host_key_ed25519_public": KEYS[2].split()[1]}},
        "web4": facts(None, ansible_nodename="web4"),
    }
    found = listed(path, json.dumps(document))
    assert {"web1": KEYS[0], "web2": KEYS[1], "web3": KEYS[2]} == names(found)
    assert ["list, 'web4': has no ansible_ssh_host_key_ed25519_public"] == found.left_out


def test_a_folder_of_facts(tmp_path: Path) -> None:
    """
    A folder with a file for each host is read whole: of --tree, of the fact cache, and of the fact cache
    of ansible-core 2.19 and later, whose JSON holds JSON. A host that did not answer stops it.
    """
    folder = tmp_path / "facts"
    folder.mkdir()
    (folder / "web1").write_text(json.dumps({"ansible_facts": facts(KEYS[0]), "changed": False}))
    (folder / "web2").write_text(json.dumps(facts(KEYS[1])))
    (folder / "s1_web3").write_text(json.dumps({"__payload__": json.dumps(facts(KEYS[2]))}))
    assert {"web1": KEYS[0], "web2": KEYS[1], "web3": KEYS[2]} == names(read_list(folder))

    (folder / "web4").write_text(json.dumps({"changed": False, "msg": "timed out", "unreachable": True}))
    assert ["web4: holds no facts of hosts: 'changed' is no object"] == read_list(folder).mistakes


def test_no_host_chooses_itself_by_a_name_in_its_facts(tmp_path: Path) -> None:
    """
    Facts are what a host says of itself: one that calls itself like those who are meant is not enrolled with
    them. Whom a name means is looked up in the inventory's names; a file that is named alone needs none.
    """
    folder = tmp_path / "facts"
    folder.mkdir()
    (folder / "web1.internal").write_text(json.dumps(facts(KEYS[0], ansible_nodename="web1")))
    (folder / "db9").write_text(json.dumps(facts(KEYS[1], ansible_nodename="web7")))
    inventory = {one.name: json.loads(one.read_text()) for one in folder.iterdir()}
    found = listed(tmp_path / "all", json.dumps(inventory), wanted=("web*",))

    assert {"web1": KEYS[0]} == names(read_list(folder, wanted=("web*",))) == names(found)
    with pytest.raises(EnrolRefused):
        read_list(folder, wanted=("web7",))
    assert {"web7": KEYS[1]} == names(read_list(folder / "db9", wanted=("web7",)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "is not an object"),
        ('{"__payload__": "{"}', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (json.dumps({"web1": facts("ssh-ed25519 AAAA")}), "cut short"),
        (json.dumps({"../x": facts(KEYS[0])}), "must be a name"),
        (json.dumps({"x": facts(KEYS[0], ansible_nodename="../../etc")}), "must be a name"),
        (
            json.dumps({"web1": facts(KEYS[0], ansible_ssh_host_key_ed25519_public_keytype="ssh-rsa")}),
            "only ssh-ed25519",
        ),
    ],
)
def test_facts_that_are_none(path: Path, text: str, words: str) -> None:
    """JSON that is cut short, of another kind, or with a name or key that can't be, is a mistake in words."""
    (mistake,) = listed(path, text).mistakes
    assert words in mistake


@pytest.mark.parametrize("text", ["", "# nobody\n", "{}"])
def test_a_list_of_nobody(path: Path, text: str) -> None:
    """An empty list enrols nobody, and ends in an error that says what is read."""
    with pytest.raises(EnrolRefused, match="names no host"):
        listed(path, text)


def test_a_file_of_another_kind(path: Path) -> None:
    """Octets that are no text are a mistake with its line, never a traceback."""
    path.write_bytes(b"\0\0\0\xff\n\x1b[2J\n")
    assert ["line 1", "line 2"] == [mistake.split(":")[0] for mistake in read_list(path).mistakes]


def test_a_list_that_is_not_there(path: Path) -> None:
    """A missing list is a fault of this host's files, not an empty list."""
    with pytest.raises(LocalFault, match="read"):
        read_list(path)


def test_thousands_of_lines_are_left_out_in_one(path: Path) -> None:
    """A reason is told once, with the first lines that it is about: who is to be enrolled stays in sight."""
    found = listed(path, f"web1 {KEYS[0]}\n" + f"web1 {RSA}\n" * 3000)
    assert ["line 2, line 3, line 4 and 2,997 more: the type of its key is 'ssh-rsa'"] == found.left_out


def test_a_damaged_key_is_a_mistake(path: Path) -> None:
    """No point of the curve: nobody could seal to it, and each publication would stop."""
    damaged = PublicKey(b"\0\0\0\x0bssh-ed25519\0\0\0\x20\2" + bytes(31)).bare
    found = listed(path, f"web1 {damaged}\n")
    assert ["line 1: its key is damaged: age seals nothing to it"] == found.mistakes
