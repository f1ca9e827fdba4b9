"""What `nginx -T` says, as certcast reads it: the dumps come from a real nginx, and it has accepted each."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from certcast.config.model import Address, Listener
from certcast.consumer.nginx import configuration
from certcast.consumer.nginx.configuration import Certificate, Configuration, Line
from certcast_lab.serving.authority import Authority

MAIN = """\
pid run/nginx.pid;
error_log stderr;
events {{ }}
{rest}
"""

# An ordinary user may not open the distribution's log and folders, as the test does.
OURS = "access_log off; " + " ".join(
    f"{of}_temp_path tmp;" for of in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)

Dump = Callable[..., str]


@pytest.fixture
def dump(tmp_path: Path, nginx_program: str) -> Dump:
    """Write files below tmp_path/etc, the first of them as nginx.conf's contents; return `nginx -T`."""
    return _dump(tmp_path, nginx_program)


@pytest.fixture
def current_dump(tmp_path: Path, current_nginx: str) -> Dump:
    """The same with the current nginx, for what Debian keeps in a module of its own."""
    return _dump(tmp_path, current_nginx)


def _dump(tmp_path: Path, program: str) -> Dump:
    (tmp_path / "run").mkdir()
    for name in ("a", "b"):
        pair = Authority(name).issue("example.test")
        pair.write(tmp_path / "etc" / name)

    def run(text: str, files: dict[str, bytes | str] | None = None) -> str:
        main = tmp_path / "etc/nginx.conf"
        main.write_text(MAIN.format(rest=text.replace("http {", f"http {{ {OURS}", 1)))
        for name, content in (files or {}).items():
            path = tmp_path / "etc" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        done = subprocess.run(
            [program, "-p", str(tmp_path), "-c", "etc/nginx.conf", "-T"],
            capture_output=True,
            check=False,
        )
        assert 0 == done.returncode, done.stderr.decode()
        return done.stdout.decode(errors="replace")  # as control.py does

    return run


def only(configuration: Configuration) -> configuration.Server:
    (server,) = configuration.servers
    return server


def pair(name: str) -> str:
    return f"ssl_certificate {name}/fullchain.pem; ssl_certificate_key {name}/privkey.pem;"


def test_a_site_is_read_with_its_places(dump: Dump, tmp_path: Path):
    """A server block's names, listeners and certificates are known, each with its file and line."""
    found = configuration.parse(
        dump(
            "http {\n    include sites/*.conf;\n}",
            {
                "sites/shop.conf": "# the shop\nserver {\n"
                "    server_name shop.example.test www.example.test;\n"
                f"    listen 127.0.0.1:8443 ssl;\n    {pair('a')}\n}}\n"
            },
        )
    )
    main, shop = f"{tmp_path}/etc/nginx.conf", f"{tmp_path}/etc/sites/shop.conf"
    assert (main, shop) == found.files
    assert "run/nginx.pid" == found.pid
    server = only(found)
    assert ("shop.example.test", "www.example.test") == server.names
    assert f"{shop}:2" == str(server.at)
    (listen,) = server.listens
    assert Listener(Address("127.0.0.1", 8443)) == listen.listener
    assert (True, False, True, Line(shop, 4)) == (listen.ssl, listen.quic, listen.default, listen.at)
    assert (Certificate("a/fullchain.pem", Line(shop, 5)),) == server.certificates


def test_certificates_are_those_in_effect(dump: Dump, tmp_path: Path):
    """
    A server block without a certificate has those of the level above, one with its own has
    only these; two of them keep their order, since the last of a key type wins.
    """
    found = configuration.parse(
        dump(
            f"""http {{
    server {{ listen 127.0.0.1:8443 ssl; server_name inherits; }}
    server {{ listen 127.0.0.1:8443 ssl; server_name own; include a.conf; {pair("b")} }}
    include b.conf;
}}
""",
            {"a.conf": pair("a"), "b.conf": pair("b")},
        )
    )
    inherits, own = found.servers
    assert [("b/fullchain.pem", f"{tmp_path}/etc/b.conf:1")] == [
        (c.path, str(c.at)) for c in inherits.certificates
    ]
    assert [
        ("a/fullchain.pem", f"{tmp_path}/etc/a.conf:1"),
        ("b/fullchain.pem", f"{tmp_path}/etc/nginx.conf:6"),
    ] == [(c.path, str(c.at)) for c in own.certificates]


def test_includes_are_found_as_nginx_finds_them(dump: Dump, tmp_path: Path):
    """
    Includes inside includes, relative to the main file's folder and not to their own; patterns
    that match neither a slash nor a leading dot, in the order of glob(3); quoted names with blanks.
    """
    listen = "server {{ listen 127.0.0.1:8443; server_name {}; }}"
    found = configuration.parse(
        dump(
            'http { include "conf d/.hidden.conf"; include "conf d/deep/z.conf"; include "conf d/b.conf";'
            ' include "conf d/*.conf"; }',
            {
                "conf d/b.conf": listen.format("b"),
                "conf d/a.conf": "include deep/[xy]?.conf;\ninclude 'deep/with blank';",
                "conf d/.hidden.conf": listen.format("hidden"),
                "conf d/deep/z.conf": listen.format("z"),
                "deep/x1.conf": listen.format("x1"),
                "deep/y2.conf": listen.format("y2"),
                "deep/with blank": "server { include deep/inner; include deep/inner2; }",
                "deep/inner": "listen 127.0.0.1:8444; server_name inner;",
                "deep/inner2": "include deep/inner3;",
                "deep/inner3": "# nothing",
            },
        )
    )
    assert ["hidden", "z", "b", "x1", "y2", "inner", "b"] == [
        name for server in found.servers for name in server.names
    ]
    inner = found.servers[5]
    assert f"{tmp_path}/etc/deep/inner:1" == str(inner.listens[0].at)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("8443", ["127.0.0.1:8443"]),
        ("*:8443", ["127.0.0.1:8443"]),
        ("0.0.0.0:8443", ["127.0.0.1:8443"]),
        ("[::]:8443", ["[::1]:8443"]),
        ("[0:0::0]:8443", ["[::1]:8443"]),
        ("[::]:8443 ipv6only=off", ["[::1]:8443", "127.0.0.1:8443"]),
        ("[::1]:8443", ["[::1]:8443"]),
        ("localhost:8443", ["localhost:8443"]),
        ("127.0.0.1:8443-8445", ["127.0.0.1:8443", "127.0.0.1:8444", "127.0.0.1:8445"]),
        ("127.0.0.1:8443 proxy_protocol reuseport", ["127.0.0.1:8443 proxy_protocol"]),
        ("unix:/tmp/certcast-never-bound.sock", ["unix:/tmp/certcast-never-bound.sock"]),
    ],
)
def test_listen_says_where_to_connect(written: str, expected: list[str]):
    """Each way to write a `listen` becomes the addresses at which this host reaches it."""
    # Without nginx: it would bind these, and not every machine has IPv6.
    server = only(
        configuration.parse(f"# configuration file /n.conf:\nhttp {{ server {{ listen {written} ssl; }} }}\n")
    )
    assert expected == [str(listen.listener) for listen in server.listens]
    assert all(listen.ssl for listen in server.listens)


def test_what_one_server_says_of_an_address_holds_for_all(dump: Dump):
    """TLS, PROXY and the default server belong to the address, though only one block names them."""
    found = configuration.parse(
        dump(
            f"""http {{
    {pair("a")}
    server {{ listen 127.0.0.1:8443; listen 127.0.0.1:8444; server_name first; }}
    server {{ listen 127.0.0.1:8443 ssl default_server proxy_protocol; server_name second; }}
}}
"""
        )
    )
    (tls, plain), (second,) = (server.listens for server in found.servers)
    assert (True, False, True) == (tls.ssl, tls.default, tls.listener.proxy_protocol)
    assert (True, True, True) == (second.ssl, second.default, second.listener.proxy_protocol)
    assert (False, True, False) == (plain.ssl, plain.default, plain.listener.proxy_protocol)


SHADOWED = """\
# configuration file /n.conf:
http {{
    server {{ listen {wildcard} ssl proxy_protocol; server_name all; }}
    server {{ listen {nearer} ssl; server_name near; }}
    server {{ listen 127.0.0.3:443 ssl; server_name other; }}
}}
"""


@pytest.mark.parametrize(
    ("wildcard", "nearer", "expected"),
    [
        ("443", "127.0.0.1:443", ["127.0.0.2:443 proxy_protocol", "127.0.0.1:443"]),
        ("443", "localhost:443", ["127.0.0.2:443 proxy_protocol", "localhost:443"]),
        ("443", "127.0.0.1:8443", ["127.0.0.1:443 proxy_protocol", "127.0.0.1:8443"]),
        ("[::]:443", "[0::1]:443", ["[2001:db8::7]:443 proxy_protocol", "[::1]:443"]),
        ("[::]:443", "[::1]:8443", ["[::1]:443 proxy_protocol", "[::1]:8443"]),
    ],
)
def test_wildcard_is_asked_where_no_listen_is_nearer(wildcard: str, nearer: str, expected: list[str]):
    """
    nginx gives a connection to an address with a `listen` of its own to that one, and never to a
    wildcard on the same port: they are two listeners, and each is asked at an address of its own.
    """
    text = SHADOWED.format(wildcard=wildcard, nearer=nearer)
    every, near, _ = (
        server.listens[0] for server in configuration.parse(text, ["::1", "2001:db8::7"]).servers
    )
    assert expected == [str(every.listener), str(near.listener)]
    assert every.default
    assert near.default


def test_wildcard_behind_every_address_stays_a_wildcard():
    """Where each IPv6 address of this host has a `listen` of its own, there is none to ask a wildcard at."""
    found = configuration.parse(SHADOWED.format(wildcard="[::]:443", nearer="[::1]:443"), ["::1"])
    assert "[::]:443 proxy_protocol" == str(found.servers[0].listens[0].listener)


def test_ssl_on_of_old_nginx_counts():
    """`ssl on` of nginx before 1.25.1 makes TLS listeners of all in the block, at http level too."""
    found = configuration.parse(
        """# configuration file /n.conf:
http {
    ssl on;
    server { listen 127.0.0.1:8443; server_name inherits; }
    server { listen 127.0.0.1:8444; ssl off; server_name plain; }
}
"""
    )
    assert [True, False] == [listen.ssl for server in found.servers for listen in server.listens]


def test_quic_is_a_listener_of_its_own():
    """A QUIC listener is told from the TLS one on the same port (nginx >= 1.25)."""
    server = only(
        configuration.parse(
            "# configuration file /n.conf:\nhttp { server { listen 443 quic reuseport; listen 443 ssl; } }\n"
        )
    )
    assert [(False, True), (True, False)] == [(listen.ssl, listen.quic) for listen in server.listens]


def test_stream_is_told_from_http(current_dump: Dump):
    """TLS servers of stream are found too, with what they inherit from their own level only."""
    found = configuration.parse(
        current_dump(
            f"""http {{ {pair("a")} server {{ listen 127.0.0.1:8443 ssl; }} }}
stream {{ {pair("b")} server {{ listen 127.0.0.1:8444 ssl proxy_protocol; return x; }} }}
"""
        )
    )
    assert [("http", ["a/fullchain.pem"]), ("stream", ["b/fullchain.pem"])] == [
        (server.kind, [c.path for c in server.certificates]) for server in found.servers
    ]
    assert "127.0.0.1:8444 proxy_protocol" == str(found.servers[1].listens[0].listener)


def test_mail_is_told_from_http():
    """TLS servers of mail are found, and inherit nothing from http."""
    found = configuration.parse(
        "# configuration file /n.conf:\n"
        "http { ssl_certificate h; ssl_certificate_key h; server { listen 443 ssl; } }\n"
        "mail { server { listen 993 ssl; protocol imap; } }\n"
    )
    assert [("http", 1), ("mail", 0)] == [(one.kind, len(one.certificates)) for one in found.servers]


def test_file_that_was_made_of_a_dump(dump: Dump, nginx_program: str, tmp_path: Path):
    """A main file that begins with the line of a dump, as flattened ones do, is read whole."""
    text = dump("http { server { listen 127.0.0.1:8443; } }")
    (tmp_path / "etc/nginx.conf").write_text(text.rstrip("\n") + "\n")
    argv = [nginx_program, "-p", str(tmp_path), "-c", "etc/nginx.conf", "-T"]
    again = subprocess.run(argv, capture_output=True, check=True, text=True).stdout
    assert f"{tmp_path}/etc/nginx.conf:5" == str(only(configuration.parse(again)).at)
    assert f"{tmp_path}/etc/nginx.conf:4" == str(only(configuration.parse(text)).at)


def test_blocks_with_other_contents_do_not_mislead(dump: Dump):
    """`map`, `if`, `geo`, regular expressions, braces and `server` inside quotes are what they are."""
    found = configuration.parse(
        dump(
            r"""http {
    map $http_host $which { hostnames; default "}"; ~^server\{ 2; }
    geo $near { default 0; 127.0.0.0/8 1; }
    upstream server { server 127.0.0.1:1; server unix:/run/x; }
    log_format short '$remote_addr {"a": "$status"} # no comment';
    server {  # server { listen 1; }
        listen 127.0.0.1:8443;
        server_name "~^(?<site>www\d{1,3})\.example\.test$" "quoted.example.test" .example.test;
        location ~ "^/a{2,3};" { if ($http_cookie ~* "id=([^;]+)") { return 403 "{ server }"; } }
        set $x "${host}-${which}"; # ;
    }
}
"""
        )
    )
    assert (
        r"~^(?<site>www\d{1,3})\.example\.test$",
        "quoted.example.test",
        ".example.test",
    ) == only(found).names
    assert ["127.0.0.1:8443"] == [str(listen.listener) for listen in only(found).listens]


LUA = r"""http {
    init_by_lua_block {
        -- don't } stop
        local t = { "}", '\'}', [[ } ]], [==[ }]] ]==] } --[[ } ]]
        if #t > 0 then ngx.log(ngx.ERR, "{") end
    }
    server {
        listen 443 ssl;
        ssl_certificate_by_lua_block { local x = [=[ } ]=] }
        ssl_client_hello_by_lua_block
        {
            -- it's no brace: {
        }
        set_by_lua_block $y { return "}" }
        js_content main.hello;
        some_vendor_block "a" { anything goes; nested { here; } }
    }
    # content_by_lua_block {
    server { listen 444 ssl; }
}
"""


def test_lua_and_unknown_directives_break_nothing():
    """
    OpenResty's Lua blocks, with braces in strings and comments, and directives of modules that
    nobody has heard of hide no server, and lines keep their numbers.
    """
    found = configuration.parse(f"# configuration file /etc/nginx/nginx.conf:\n{LUA}\n")
    assert ["/etc/nginx/nginx.conf:7", "/etc/nginx/nginx.conf:19"] == [str(s.at) for s in found.servers]


def test_line_ends_of_other_systems_keep_their_lines(dump: Dump, tmp_path: Path):
    """
    A file that was written on Windows is read as nginx reads it, and lines are counted the same:
    a lone carriage return does not even end a comment.
    """
    windows = b"# one\r\nserver {\r\n  # two\rlisten 1;\r\n  listen 127.0.0.1:8443;\r\n  server_name a;\r\n}"
    found = configuration.parse(dump("http { include windows.conf; }", {"windows.conf": windows}))
    (listen,) = only(found).listens
    assert ("127.0.0.1:8443", f"{tmp_path}/etc/windows.conf:4") == (str(listen.listener), str(listen.at))
    assert ("a",) == only(found).names


def test_texts_in_other_encodings_hide_nothing(dump: Dump):
    """Comments and answers in GBK, whose second byte may be a backslash or a brace, hide nothing."""
    gbk = "# \u4e00\u6708 \u8a8c\u9ad4 \u76e7\u7e7c\n".encode("gbk") + b"# \xd6\x5c\n# \x81\x7d\n"
    site = gbk + b"server { listen 127.0.0.1:8443; return 200 '\xd6\xd0\xce\xc4\x81\x7b'; }\n"
    assert 1 == len(configuration.parse(dump("http { include gbk.conf; }", {"gbk.conf": site})).servers)


def test_a_byte_order_mark_is_no_directive():
    """A byte order mark (which nginx itself refuses) hides nothing."""
    found = configuration.parse("# configuration file /n.conf:\n\ufeffhttp { server { listen 443 ssl; } }\n")
    assert 1 == len(found.servers)


def test_variables_in_paths_stay_as_written():
    """A certificate chosen at each handshake has no file to compare: its path is left alone."""
    server = only(
        configuration.parse(
            "# configuration file /n.conf:\n"
            "http { server { listen 443 ssl;"
            " ssl_certificate $ssl_server_name.pem; ssl_certificate_key data:$key; } }\n"
        )
    )
    assert ["$ssl_server_name.pem"] == [c.path for c in server.certificates]


def test_what_cannot_be_read_is_named_with_its_place():
    """A text that is no nginx configuration is a ValueError that names file and line."""
    with pytest.raises(ValueError, match=r"^/etc/n\.conf:2: unexpected end"):
        configuration.parse("# configuration file /etc/n.conf:\nhttp {\n server {\n")
    with pytest.raises(ValueError, match=r"^/etc/n\.conf:2: cannot read listen '\[::'"):
        configuration.parse("# configuration file /etc/n.conf:\nhttp { server {\nlisten [::; } }\n")
    with pytest.raises(ValueError, match="includes itself"):
        configuration.parse("# configuration file /etc/n.conf:\ninclude n.conf;\n")
    with pytest.raises(ValueError, match="not the output"):
        configuration.parse("nginx: command not found\n")


def test_a_thousand_servers_are_read_quickly(dump: Dump):
    """1,000 virtual hosts with one included snippet take well under the time that nginx itself needs."""
    servers = "\n".join(
        f"server {{\n    listen 127.0.0.1:8443 ssl;\n    server_name h{n}.example.test;\n"
        f"    include ours.conf;\n"
        f"    access_log off;\n    location / {{ return 200 'h{n}'; }}\n}}"
        for n in range(1000)
    )
    text = dump(f"http {{\n{servers}\n}}\n", {"ours.conf": pair("a")})
    start = time.process_time()
    found = configuration.parse(text)
    assert 2 > time.process_time() - start  # measured: 0.2 s
    assert 1000 == len({server.names for server in found.servers})
    assert all(1 == len(server.certificates) for server in found.servers)
    assert 1 == sum(listen.default for server in found.servers for listen in server.listens)
