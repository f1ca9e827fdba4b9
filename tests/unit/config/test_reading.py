"""The configuration file: what an administrator may write, and what they are told."""

from __future__ import annotations

import textwrap
import typing
from pathlib import Path

import pytest

from certcast.config.model import Address, Config, Listener
from certcast.config.reading import config_path, load
from certcast.report.errors import ConfigInvalid

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAID6/a9h/EAwhV4y/Y3MXz+HLNmEULf2dGxcLyiVocjuO"

SMALLEST = f"""
    [store]
    url = "oss://bucket/prefix"
    region = "cn-hangzhou"
    publishers = ["{KEY}"]
    [[certificate]]
    name = "example.com"
    names = ["example.com", "*.example.com"]
"""


def read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "certcast.toml"
    path.write_text(textwrap.dedent(text))
    return load(path)


def mistakes(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigInvalid) as caught:
        read(tmp_path, text)
    assert caught.value.found is not None
    return caught.value.found.splitlines()


def test_a_store_and_a_certificate_are_enough(tmp_path: Path) -> None:
    """Seven lines make a valid file; everything else has a default that an administrator would choose."""
    config = read(tmp_path, SMALLEST)
    assert ("example.com", "*.example.com") == config.certificates[0].names
    assert 300.0 == config.dns.deadline
    assert config.renewal is None
    assert config.consumer is None


def test_all_mistakes_are_told_at_once_with_their_paths(tmp_path: Path) -> None:
    """Whoever wrote four mistakes sees four lines, each with the path of the key, after one run."""
    found = mistakes(
        tmp_path,
        """
        state_dir = "relative"
        [store]
        url = "http://bucket"
        [[certificate]]
        name = "../etc"
        names = ["example.com", "exa mple"]
        """,
    )
    assert ["store.url", "certificate[0].name", "certificate[0].names[1]", "state_dir"] == [
        line.partition(":")[0] for line in found
    ]


def test_for_a_misspelt_key_the_right_one_is_suggested(tmp_path: Path) -> None:
    """A key that certcast does not know never silently does nothing."""
    (line,) = mistakes(tmp_path, SMALLEST.replace("region =", "regoin ="))
    assert "store: 'regoin' is not a known key; did you mean 'region'?" == line


def test_a_misspelt_table_is_a_mistake(tmp_path: Path) -> None:
    """[[certificates]] for [[certificate]] is named, not ignored."""
    found = mistakes(tmp_path, SMALLEST.replace("[[certificate]]", "[[certificates]]"))
    assert any("did you mean 'certificate'?" in line for line in found)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[dns]\nsettle = 10", "dns.settle: must be a duration"),
        ('[dns]\npropagation = "wait"', "dns.propagation: must be"),
        ('[mail]\nhost = "h"\nsender = "a@b"\nfailures_to = []', "mail.failures_to: must hold"),
        ('[mail]\nhost = "h"\nsender = "a"\nfailures_to = ["a@b"]', "mail.sender: must be a mail address"),
        (
            '[mail]\nhost = "h"\nsender = "a@b\\r\\nBcc: x@y"\nfailures_to = ["a@b"]',
            "mail.sender: must be a text",
        ),
        (
            '[mail]\nhost = "h"\nsender = "a@b"\nfailures_to = ["a@b"]\nusername = "u"',
            "mail: username and password_file belong together",
        ),
        ('[consumer]\n[[consumer.nginx]]\nlisteners = ["443"]', "consumer.nginx[0].listeners[0]: must be"),
        ("[consumer]\nnginx = []", "consumer.nginx: at least one"),
        (
            '[consumer]\n[[consumer.nginx]]\ntest = ["systemctl", "start", "nginx-test"]\n'
            'reload = ["systemctl", "reload", "nginx"]',
            "consumer.nginx[0].listeners: must hold",
        ),
        (
            '[consumer]\n[[consumer.nginx]]\npaths = {"/var/lib/certcast/certs" = "/etc/nginx/certs"}',
            "consumer.nginx[0].listeners: must hold",
        ),
        (
            '[consumer]\n[[consumer.nginx]]\nlisteners = ["127.0.0.1:443 http2"]',
            "consumer.nginx[0].listeners[0]: must be an address",
        ),
        (
            '[consumer]\n[[consumer.nginx]]\ncertificates = ["exmaple.com"]',
            "consumer.nginx[0].certificates: no [[certificate]] is called exmaple.com",
        ),
        (
            '[consumer]\nderive = ["chains.pem"]\n[[consumer.nginx]]',
            "consumer.derive[0]: must be one of chain.pem, cert.pem, combined.pem",
        ),
        (
            '[consumer]\n[[consumer.nginx]]\n[[consumer.copy_to]]\nprivkey = "/a"\nmode = "0644"',
            "consumer.copy_to[0].mode: must give others no rights",
        ),
        (
            '[consumer]\n[[consumer.nginx]]\n[[consumer.copy_to]]\nowner = "root"',
            "consumer.copy_to[0]: must name a path",
        ),
        (
            '[consumer]\n[[consumer.nginx]]\n[[consumer.copy_to]]\nprivkey = "/a"\nfullchain = "/a"',
            "consumer.copy_to: two files would be written to /a",
        ),
        ('[[zone]]\nname = "example.com"\nrole_arn = "certcast"', "zone[0].role_arn: must be a role"),
        (
            '[dns]\nresolvers = ["223.5.5.5"]',
            'dns.resolvers[0]: must be an address with a port, like "223.5.5.5:53"',
        ),
        ('[dns]\nresolvers = ["dns.example:53"]', "dns.resolvers[0]: must be an IP address with a port"),
        ('[dns]\nresolvers = ["http://dns.example/dns-query"]', "dns.resolvers[0]: must be an https address"),
        (
            '[consumer]\n[[consumer.nginx]]\nlisteners = ["[::1]:443"]\ntest = "nginx -t"',
            "consumer.nginx[0].test: must be a list of words",
        ),
        (
            '[consumer]\n[[consumer.nginx]]\ntest = ["/opt/nginx", "-t"]',
            "consumer.nginx[0].reload: must be said where test is",
        ),
        (
            '[consumer]\n[[consumer.nginx]]\nlisteners = ["127.0.0.1:443"]\n'
            'paths = {"/etc/nginx/certs" = "/var/lib/certcast/certs"}',
            "consumer.nginx[0].paths: none of its first paths holds /var/lib/certcast/certs",
        ),
        ('[consumer]\nidle_check = "1h"', "consumer.nginx: [[consumer.nginx]] is missing"),
        ("[consumer]\n[consumer.nginx]", "consumer.nginx: its table needs double brackets"),
        (
            '[consumer]\n[[consumer.nginx]]\n[[consumer.copy_to]]\ncert = "/a/b"\nchain = "/a/./../a/b"',
            "consumer.copy_to: two files would be written to /a/b",
        ),
        (
            '[consumer]\n[[consumer.nginx]]\n[[consumer.copy_to]]\ncert = "/var/lib/certcast/certs/a"',
            "consumer.copy_to: /var/lib/certcast/certs/a lies in state_dir",
        ),
        ('[[zone]]\nname = "例子.test"', 'zone[0].name: must be written as "xn--fsqu00a.test"'),
        ('[[zone]]\nname = "*.example.com"', "zone[0].name: must be a DNS name, without *"),
        (
            '[renewal]\ncertbot_config_dir = "letsencrypt"',
            "renewal.certbot_config_dir: must be an absolute path",
        ),
        ('[[zone]]\nname = "Example.com"', 'zone[0].name: must be written as "example.com"'),
        (
            '[renewal]\nserver = "https://ca.test/dir"',
            "renewal: 'server' is not a key any more: it is called",
        ),
        ('[renewal]\nconfig_dir = "/etc/letsencrypt"', "renewal: 'config_dir' is not a key any more: it is"),
        ('[renewal]\ncertbot = ["certbot"]', "renewal: 'certbot' is not a key any more: certcast places its"),
        (
            '[renewal.external_account]\nkey_id = "1"',
            "renewal.external_account.hmac_key_file: 'hmac_key_file' is missing",
        ),
        (
            '[renewal]\nterms_of_service_agreed = "yes"',
            "renewal.terms_of_service_agreed: must be true or false",
        ),
    ],
)
def test_each_kind_of_wrong_value_is_explained(tmp_path: Path, line: str, expected: str) -> None:
    """A wrong value is reported under its path with what it must be."""
    found = mistakes(tmp_path, textwrap.dedent(SMALLEST) + line)
    assert [True] == [one.startswith(expected) for one in found]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("例子.example.com", 'must be written as "xn--fsqu00a.example.com"'),
        ("*.Example.com", 'must be written as "*.example.com"'),
        ("*.*.example.com", "must be a DNS name, with * as its first label only; not '*.*.example.com'"),
        ("a.*.example.com", "must be a DNS name, with * as its first label only; not 'a.*.example.com'"),
        ("exa mple.com", "must be a DNS name, not 'exa mple.com'"),
    ],
)
def test_a_name_in_another_form_is_answered_with_the_right_one(
    tmp_path: Path, name: str, expected: str
) -> None:
    """Who writes a name as it is spoken, or with capitals, is told what to write instead."""
    (line,) = mistakes(tmp_path, SMALLEST.replace('"*.example.com"', f'"{name}"'))
    assert line.startswith(f"certificate[0].names[1]: {expected}")


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ('url = "oss://bucket/prefix"', "store.region: is needed by oss://"),
        ('url = "file:///a"\nprofile = "p"', "store.profile: is for oss://"),
        ('url = "s3://b/p"\nendpoints = ["http://a", "http://b"]', "store.endpoints: several are for oss://"),
    ],
)
def test_what_a_kind_of_store_lacks_or_ignores_is_a_mistake(
    tmp_path: Path, store: str, expected: str
) -> None:
    """`certcast check` already tells, and no key of [store] silently does nothing."""
    certificate = '[[certificate]]\nname = "example.com"\nnames = ["example.com"]'
    (line,) = mistakes(tmp_path, f"[store]\n{store}\n{certificate}")
    assert line.startswith(expected)


def test_what_is_not_toml_is_shown_with_its_line(tmp_path: Path) -> None:
    """A mode without quotes stops the parser; the report shows the line that it stopped at."""
    found = mistakes(tmp_path, SMALLEST + "\n[consumer]\nmode = 0640\n")
    assert "mode = 0640" == found[1]


@pytest.mark.parametrize("name", ["", ".", "..", "a..b", "A", "a/b", "a\n", "-a", "x" * 122, "a b"])
def test_a_certificate_name_can_never_become_another_path(tmp_path: Path, name: str) -> None:
    """Names that could climb out of a directory or an object key's prefix are refused."""
    text = SMALLEST.replace('name = "example.com"', f"name = {name!r}".replace("'", '"'))
    assert any("certificate[0].name" in line for line in mistakes(tmp_path, text))


@pytest.mark.parametrize("url", ["oss://", "oss://b/../c", "file://relative", "oss://b//c", "oss://u@b/c"])
def test_a_store_url_is_a_plain_place(tmp_path: Path, url: str) -> None:
    """Places that could mean another bucket or folder than they show are refused."""
    assert any(
        "store.url" in line for line in mistakes(tmp_path, SMALLEST.replace("oss://bucket/prefix", url))
    )


def test_addresses_may_be_ipv4_ipv6_or_names(tmp_path: Path) -> None:
    """Listeners are written as nginx and ss print them."""
    written = ["127.0.0.1:443", "[::1]:8443 proxy_protocol", "www:443", "unix:/run/nginx.sock"]
    config = read(tmp_path, f"{SMALLEST}[consumer]\n[[consumer.nginx]]\nlisteners = {written}\n")
    assert config.consumer is not None
    listeners = config.consumer.nginx[0].listeners
    assert (
        Listener(Address("127.0.0.1", 443)),
        Listener(Address("::1", 8443), proxy_protocol=True),
        Listener(Address("www", 443)),
        Listener(Path("/run/nginx.sock")),
    ) == listeners
    assert written == [str(listener) for listener in listeners]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ('source = "files"', "certificate[0].source: must be one of acme, certbot, not 'files'"),
        ('key_type = "rsa"', "certificate[0].key_type: must be one of p256, p384, rsa2048, rsa3072, rsa4096"),
        ("reuse_key = 1", "certificate[0].reuse_key: must be true or false"),
    ],
)
def test_how_a_certificate_is_ordered_has_known_words(tmp_path: Path, key: str, expected: str) -> None:
    """A key type or a source that there is none of is told before anything is ordered."""
    (line,) = mistakes(tmp_path, SMALLEST.replace('name = "example.com"', f'name = "example.com"\n{key}', 1))
    assert line.startswith(expected)


def test_a_certificate_that_no_nginx_serves_is_a_mistake(tmp_path: Path) -> None:
    """
    What no nginx of a host serves, nothing can prove there: said before the first run, and not by each.
    A renewal host that serves something itself lists what others serve, too.
    """
    text = f"""{SMALLEST}
    [[certificate]]
    name = "haproxy.example"
    names = ["haproxy.example"]
    [consumer]
    [[consumer.nginx]]
    certificates = ["example.com"]
    [[consumer.copy_to]]
    certificate = "haproxy.example"
    combined = "/etc/haproxy/certs/haproxy.pem"
    """
    (mistake,) = mistakes(tmp_path, text)
    assert mistake.startswith("certificate[1].name: no [[consumer.nginx]] serves haproxy.example")
    assert read(tmp_path, f'{text}\n[renewal]\nemail = "a@example.com"\n').renewal


def test_each_nginx_serves_a_certificate_by_default(tmp_path: Path) -> None:
    """Two instances share the certificates unless one names its own; copies are chosen alike."""
    config = read(
        tmp_path,
        SMALLEST
        + """
        [[certificate]]
        name = "other.example"
        names = ["other.example"]
        [consumer]
        [[consumer.nginx]]
        listeners = ["127.0.0.1:443"]
        [[consumer.nginx]]
        listeners = ["127.0.0.1:8443"]
        certificates = ["other.example"]
        [[consumer.copy_to]]
        certificate = "other.example"
        fullchain = "/a"
        """,
    )
    assert config.consumer is not None
    first, second = config.consumer.nginx
    assert (first,) == config.consumer.nginx_of("example.com")
    assert (first, second) == config.consumer.nginx_of("other.example")
    assert () == config.consumer.copies_of("example.com")
    assert {"fullchain.pem": Path("/a")} == config.consumer.copies_of("other.example")[0].targets


@pytest.mark.parametrize("content", [b"[store", b"\xff\xfe", b"= 3"])
def test_a_file_that_is_not_toml_is_named_not_a_traceback(tmp_path: Path, content: bytes) -> None:
    """A damaged file ends in one error that names it."""
    path = tmp_path / "certcast.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigInvalid, match="is not TOML"):
        load(path)


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    """Without a file, the message names the path and the two ways to name another."""
    with pytest.raises(ConfigInvalid) as caught:
        load(tmp_path / "none.toml")
    assert "CERTCAST_CONFIG" in (caught.value.next or "")


def test_the_option_outranks_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """--config wins over CERTCAST_CONFIG, which wins over /etc/certcast/certcast.toml."""
    monkeypatch.setenv("CERTCAST_CONFIG", "/env.toml")
    assert "/option.toml" == str(config_path("/option.toml"))
    assert "/env.toml" == str(config_path(None))
    monkeypatch.delenv("CERTCAST_CONFIG")
    assert "/etc/certcast/certcast.toml" == str(config_path(None))


def test_an_unknown_certificate_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    """`certcast pull exmaple.com` lists what there is."""
    with pytest.raises(ConfigInvalid, match=r"exmaple\.com") as caught:
        read(tmp_path, SMALLEST).chosen("exmaple.com")
    assert "one of example.com" == caught.value.expected


def test_many_types_in_the_process_change_nothing(tmp_path: Path) -> None:
    """Where a library flushes typing's caches, a fixed wait is still a fixed wait."""
    text = SMALLEST + '\n[dns]\npropagation = "wait:30s"\n'
    for flush in typing._cleanups:  # type: ignore[attr-defined]  # the caches have no public name
        flush()
    assert 30.0 == read(tmp_path, text).dns.propagation


def test_a_role_is_not_assumed_in_plain_text(tmp_path: Path) -> None:
    """STS answers with a secret key, so an http address for it is a mistake, wherever it stands."""
    wrong = """
    [dns]
    sts_endpoint = "http://sts.aliyuncs.com"
    [[zone]]
    name = "example.com"
    sts_endpoint = "http://sts.aliyuncs.com"
    """
    found = mistakes(tmp_path, SMALLEST + wrong)
    assert ["dns.sts_endpoint", "zone[0].sts_endpoint"] == [line.partition(":")[0] for line in found]
    assert "must be an https address" in found[0]


def test_an_sts_endpoint_needs_a_role(tmp_path: Path) -> None:
    """Where no role is assumed, its place says nothing, and in a [[zone]] it would drop [dns]'s account."""
    place = 'sts_endpoint = "https://sts-vpc.cn-hangzhou.aliyuncs.com"'
    role = 'role_arn = "acs:ram::1:role/dns"'
    lonely = SMALLEST.replace("[store]", f"[store]\n{place}")
    zone = '[[zone]]\nname = "example.com"'

    found = mistakes(tmp_path, f"{lonely}[dns]\n{role}\n{zone}\n{place}\n")
    assert ["store.sts_endpoint: needs role_arn", "zone[0].sts_endpoint: needs role_arn"] == [
        line.partition(" beside")[0] for line in found
    ]
    assert "replaces profile and role_arn of [dns], too" in found[1]
    assert ["dns.sts_endpoint: needs role_arn"] == [
        line.partition(" beside")[0] for line in mistakes(tmp_path, f"{SMALLEST}[dns]\n{place}\n")
    ]
    read(tmp_path, f"{SMALLEST}[dns]\n{place}\n{role}\n{zone}\n{place}\n{role}\n")


def test_a_zone_has_one_account(tmp_path: Path) -> None:
    """A zone that stands twice, with two accounts perhaps, is a mistake and not a choice."""
    twice = """
    [[zone]]
    name = "example.com"
    profile = "one"
    [[zone]]
    name = "example.com"
    profile = "other"
    """
    assert ["zone[1].name: example.com stands here twice"] == mistakes(tmp_path, SMALLEST + twice)
