"""Which handshakes are tried, and whose line is to blame, from the text of an nginx configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from certcast.config.model import AbsolutePath, Address, CertificateName, CopyConfig, Listener, NginxConfig
from certcast.consumer.disk.versions import Folder
from certcast.consumer.nginx import configuration
from certcast.consumer.proof import explanation
from certcast.consumer.proof.handshake import BROWSER, MATRIX, Handshake, Target
from certcast.consumer.proof.plan import Plan, Site, is_here, plan_handshakes, site_of

NAMES = ("example.test", "*.example.test")
FOLDER = Folder(Path("/var/lib/certcast"), "example.test")
SNIPPET = "/var/lib/certcast/certs/example.test/nginx.conf"
VERSION = "2-" + "b" * 16
OURS = f"include {SNIPPET};"
HTTPS, IPV6 = Listener(Address("127.0.0.1", 443)), Listener(Address("::1", 443))


def dump(servers: str, more: str = "") -> str:
    """Return what `nginx -T` prints for these server blocks, and our snippet."""
    folder = FOLDER.versions / VERSION
    return (
        f"# configuration file /etc/nginx/nginx.conf:\nhttp {{\n{servers}\n}}\n{more}\n"
        f"# configuration file {SNIPPET}:\n"
        f"ssl_certificate {folder}/fullchain.pem;\nssl_certificate_key {folder}/privkey.pem;\n\n"
    )


def site(servers: str, nginx: NginxConfig | None = None, *copies: CopyConfig, more: str = "") -> Site:
    return site_of(nginx or NginxConfig(), configuration.parse(dump(servers, more)), FOLDER, VERSION, copies)


def plan(*some: Site) -> Plan:
    return plan_handshakes(some, NAMES, MATRIX)


def names(found: Plan, listener: Listener = HTTPS) -> list[str | None]:
    return [target.name for target in found.targets if target.listener == listener]


def test_wildcard_is_asked_for_by_a_made_up_label() -> None:
    """
    A client cannot ask for `*.example.test`; a name that nobody configured shows what it serves.
    The default server is asked, too, as clients without SNI do.
    """
    found = plan(site(f"server {{ listen 443 ssl; {OURS} }}"))
    assert ["example.test", "certcast-proof.example.test", None] == names(found)
    assert 12 == len(found.handshakes)
    assert frozenset({HTTPS}) == found.expected


def test_server_names_that_the_certificate_covers_are_asked() -> None:
    """Names of virtual hosts are asked on their listener; foreign, deeper and odd ones are not."""
    found = plan(
        site(
            f"server {{ listen 443 ssl; server_name WWW.example.test a.b.example.test o.test _; {OURS} }}\n"
            f"server {{ listen [::]:443 ssl; server_name ~^x .example.test mail.other.*; {OURS} }}"
        )
    )
    own = ["example.test", "certcast-proof.example.test", None]
    assert [*own, "www.example.test"] == names(found)
    assert own == names(found, IPV6)


def test_name_with_any_ending_is_tried_by_the_certificates() -> None:
    """`app.example.*` leads to its server block by a name of the certificate, and so it is asked for that."""
    found = plan(
        site(
            "server { listen 443 ssl default_server; ssl_reject_handshake on; }\n"
            f"server {{ listen 443 ssl; server_name app.example.* app.other.*; {OURS} }}"
        )
    )
    assert "app.example.test" in names(found)
    assert "app.other.test" not in names(found)
    assert frozenset({HTTPS}) == found.expected


@pytest.mark.parametrize("name", ["~^(app|api)\\.example\\.test$", "_", "$hostname"])
@pytest.mark.parametrize(
    "default", ["ssl_reject_handshake on;", "ssl_certificate /o; ssl_certificate_key /o;"]
)
def test_nothing_is_expected_where_no_name_leads_to_our_files(name: str, default: str) -> None:
    """
    A site that only a regular expression leads to, behind a default server of another kind, cannot be
    asked for: its listener need not show our certificate, and the place of the server block is known.
    """
    found = plan(
        site(
            f"server {{ listen 443 ssl default_server; {default} }}\n"
            f"server {{ listen 443 ssl; listen 8443 ssl; server_name {name}; {OURS} }}"
        )
    )
    # At 8443 it is the default server.
    assert frozenset({Listener(Address("127.0.0.1", 8443))}) == found.expected
    assert {HTTPS: "/etc/nginx/nginx.conf:3"} == {one: str(line) for one, line in found.unasked.items()}


def test_server_block_that_nginx_ignores_is_expected() -> None:
    """Of two blocks with one name nginx takes the first; if ours is the second, that is no excuse."""
    others = "ssl_certificate /o.pem; ssl_certificate_key /o.key;"
    found = plan(
        site(
            f"server {{ listen 443 ssl; server_name example.test *.example.test; {others} }}\n"
            f"server {{ listen 443 ssl; server_name example.test; {OURS} }}"
        )
    )
    assert frozenset({HTTPS}) == found.expected


def test_plain_listeners_are_not_asked() -> None:
    """Port 80 without TLS, and QUIC, which is UDP, are no targets; QUIC is said to be unproved."""
    found = plan(site(f"server {{ listen 80; listen 443 ssl; listen 443 quic; {OURS} }}"))
    assert {HTTPS} == {target.listener for target in found.targets}
    assert ("QUIC on 127.0.0.1:443",) == found.not_provable


def test_starttls_of_mail_is_said_to_be_unproved() -> None:
    """A mail server that includes the snippet is asked where TLS begins at once; of STARTTLS it is said."""
    mail = f"mail {{ server {{ listen 143; starttls on; {OURS} }} server {{ listen 993 ssl; {OURS} }} }}"
    found = plan(site(f"server {{ listen 80; listen 443 ssl; {OURS} }}", more=mail))
    imaps = Listener(Address("127.0.0.1", 993))
    assert {HTTPS, imaps} == {target.listener for target in found.targets} == found.expected
    assert ("STARTTLS on 127.0.0.1:143",) == found.not_provable


def test_configured_listeners_win_and_get_every_server_name() -> None:
    """With `listeners` in the configuration these are asked, under every name that nginx knows."""
    elsewhere = Listener(Address("192.0.2.7", 8443), proxy_protocol=True)
    found = plan(
        site(f"server {{ listen 443 ssl; server_name www.example.test; {OURS} }}", NginxConfig((elsewhere,)))
    )
    assert {elsewhere} == {target.listener for target in found.targets} == found.required
    assert "www.example.test" in names(found, elsewhere)


def test_silent_nginx_is_tried_where_it_is_configured() -> None:
    """Without `nginx -T`, the configured listeners and the certificate's names are what there is."""
    quiet = Site(NginxConfig((HTTPS,)), None, frozenset(), SNIPPET)
    assert ["example.test", "certcast-proof.example.test", None] == names(plan(quiet))
    assert quiet.is_included() is None


def test_listener_of_other_sites_is_tried_without_expectation() -> None:
    """A site with a certificate of its own must not break, and need not show ours."""
    found = plan(site("server { listen 8443 ssl; ssl_certificate /o.pem; ssl_certificate_key /o.key; }"))
    assert frozenset() == found.expected
    assert 3 == len(found.targets)


@pytest.mark.parametrize("address", ["192.0.2.7:443", "[2001:db8::7]:443"])
def test_address_of_another_host_is_not_asked(address: str) -> None:
    """Where nginx waits for an address that another host has now, that host's nginx would answer."""
    found = plan(site(f"server {{ listen 443 ssl; listen {address} ssl; {OURS} }}"))
    assert frozenset({HTTPS}) == found.expected == {target.listener for target in found.targets}
    assert (f"{address}: no address of this host",) == found.not_provable


def test_wildcard_that_no_address_leads_to_is_not_provable() -> None:
    """A wildcard is said to be unproved where each IPv6 address of this host has a `listen` of its own."""
    found = plan(site(f"server {{ listen [::]:443 ssl; {OURS} }}\nserver {{ listen [::1]:443 ssl; {OURS} }}"))
    assert frozenset({IPV6}) == found.expected == {target.listener for target in found.targets}
    assert ("[::]:443: each address of this host has a `listen` of its own there",) == found.not_provable


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "::1", "localhost"])
def test_loopback_is_this_host(host: str) -> None:
    """Every loopback address, and a name for one, is asked."""
    assert is_here(Address(host, 443))


def test_thousand_names_are_each_tried_and_the_bound_is_said() -> None:
    """Beyond 500 targets a name is tried once, as a browser, and the outcome says so."""
    hosts = "\n".join(
        f"server {{ listen 443 ssl; server_name www{n}.example.test; {OURS} }}" for n in range(1000)
    )
    found = plan(site(hosts))
    assert 1003 == len(found.targets)
    assert 500 * 4 + 503 == len(found.handshakes)
    assert Handshake(Target(HTTPS, "www999.example.test"), BROWSER) in found.handshakes
    assert ("old clients at 503 of 1,003 names (tried once each, as a browser)",) == found.not_provable


def blamed(found: Site, name: str | None = "www.example.test") -> list[str]:
    return explanation.culprits([found], [Handshake(Target(HTTPS, name), MATRIX[0])], advise=True)


def test_certificate_after_the_include_is_blamed() -> None:
    """A second ssl_certificate below the include is named with its file and line."""
    found = site(
        f"server {{ listen 443 ssl; server_name www.example.test;\n{OURS}\n"
        "ssl_certificate /old.pem; ssl_certificate_key /old.key; }"
    )
    assert [
        "/etc/nginx/nginx.conf:4 names another ssl_certificate after ours "
        "(the last of a key type wins): remove it"
    ] == blamed(found)


def test_certificate_before_the_include_is_blamed() -> None:
    """An old pair of the other key type, above the include, is named with who gets it."""
    found = site(
        "server { listen 443 ssl; server_name www.example.test;\n"
        f"ssl_certificate /old.pem; ssl_certificate_key /old.key;\n{OURS} }}"
    )
    assert ["/etc/nginx/nginx.conf:3 names another ssl_certificate, which RSA clients get: remove it"] == (
        blamed(found)
    )


def test_virtual_host_without_the_include_is_blamed() -> None:
    """Of many virtual hosts the one that still names other files is found, also when it is a wildcard's."""
    found = site(
        f"server {{ listen 443 ssl; server_name .example.test; {OURS} }}\n"
        "server { listen 443 ssl; server_name www.example.*;\n"
        "ssl_certificate /old.pem; ssl_certificate_key /old.key; }\n"
        "server { listen 443 ssl default_server; server_name _;\n"
        "ssl_certificate /older.pem; ssl_certificate_key /older.key; }\n"
    )
    assert [] == blamed(found)
    instead = f"names another ssl_certificate: put `include {SNIPPET};` in its place"
    assert [f"/etc/nginx/nginx.conf:4 {instead}"] == blamed(found, "www.example.org")
    assert [f"/etc/nginx/nginx.conf:6 {instead}"] == blamed(found, None)


def test_regular_expressions_are_not_guessed_at() -> None:
    """Where a regular expression may decide which server answers, nobody is blamed."""
    found = site(
        "server { listen 443 ssl; ssl_certificate /o.pem; ssl_certificate_key /o.key; }\n"
        f"server {{ listen 443 ssl; server_name ~^www; {OURS} }}"
    )
    assert [] == blamed(found)
    assert 1 == len(blamed(found, None))


def test_server_that_rejects_handshakes_is_not_blamed() -> None:
    """A default server without a certificate is there to reject handshakes: nobody is told to open it."""
    found = site(
        "server { listen 443 ssl default_server; ssl_reject_handshake on; }\n"
        f"server {{ listen 443 ssl; server_name www.example.test; {OURS} }}"
    )
    assert [] == blamed(found, None)


def test_exact_name_outranks_a_wildcard() -> None:
    """As nginx: the exact name, then the longest wildcard in front, then the one behind."""
    others = "ssl_certificate /o.pem; ssl_certificate_key /o.key;"
    found = site(
        f"server {{ listen 443 ssl; server_name *.example.test; {OURS} }}\n"
        f"server {{ listen 443 ssl; server_name www.example.test; {others} }}\n"
        f"server {{ listen 443 ssl; server_name *.sub.example.test; {others} }}\n"
        f"server {{ listen 443 ssl; server_name mail.*; {others} }}\n"
    )
    assert blamed(found)[0].startswith("/etc/nginx/nginx.conf:3 ")
    assert [] == blamed(found, "ftp.example.test")
    assert blamed(found, "a.sub.example.test")[0].startswith("/etc/nginx/nginx.conf:4 ")
    assert [] == blamed(found, "mail.example.test")
    assert blamed(found, "mail.example.org")[0].startswith("/etc/nginx/nginx.conf:5 ")


@pytest.mark.parametrize(
    "certificate",
    [
        f"{FOLDER.current}/fullchain.pem",
        f"{FOLDER.versions}/{VERSION}/fullchain.pem",
        "../ssl/copy.pem",
        "/etc/ssl/copy.pem",
    ],
)
def test_files_of_ours_are_known_under_each_of_their_paths(certificate: str) -> None:
    """A site may name the version, `current` or a copy, also relative to nginx.conf's folder."""
    copies = CopyConfig(CertificateName("example.test"), fullchain=AbsolutePath(Path("/etc/ssl/copy.pem")))
    found = site(
        f"server {{ listen 443 ssl; ssl_certificate {certificate}; ssl_certificate_key /k; }}", None, copies
    )
    assert found.is_included()
    assert frozenset({HTTPS}) == plan(found).expected


def test_an_earlier_version_is_not_ours() -> None:
    """A site that names an earlier version's directory by hand is to blame for showing it."""
    earlier = f"{FOLDER.versions}/1-{'a' * 16}/fullchain.pem"
    found = site(f"server {{ listen 443 ssl; ssl_certificate {earlier}; ssl_certificate_key /k; }}")
    assert 1 == len(blamed(found, None))


def test_paths_of_a_container_are_mapped() -> None:
    """In a container our files have other paths; the site that names these takes them."""
    nginx = NginxConfig(paths={AbsolutePath(Path("/var/lib/certcast")): AbsolutePath(Path("/certs"))})
    found = site(
        "server { listen 443 ssl; ssl_certificate /certs/certs/example.test/current/fullchain.pem;"
        " ssl_certificate_key /k; }",
        nginx,
    )
    assert found.is_included()
    assert "/certs/certs/example.test/nginx.certs-certs.conf" == found.snippet
