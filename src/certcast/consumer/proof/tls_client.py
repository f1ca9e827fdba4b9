"""A TLS client that accepts one type of key: a process of its own, for handshake.py.

    OPENSSL_CONF=rsa.cnf python -I -S tls_client.py rsa        also: ecdsa, any

    first line out   {"limited": true}             whether OpenSSL has read that file
    a line in        [[listener, name, proxy_protocol, version], …]
    a line out       [[leaf, reached, failure], …]  in the same order; `reached`: there was a connection

Why a process: in TLS 1.3 a client says by its signature algorithms which keys it takes (RFC 8446, 4.2.3).
Python's ssl has no call for them before 3.15; OpenSSL takes them from its configuration file, once in a
process (docs/adr/0008). For TLS 1.2 the cipher suites say it, and these are set here.

Nothing is verified: the gate has verified the pair, and a client that refuses a certificate cannot tell what
came. What an old client is served counts, so security level 0 and everything that OpenSSL still has are on.

The standard library only: this file is run by its path, and is not certcast to Python.
"""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import sys
import threading
from typing import TypeAlias

# What JSON makes of a listener: [host, port], or a path.
_Listener: TypeAlias = "list[str | int] | str"
_Answer: TypeAlias = "list[str | bool | None]"

SECONDS = 5.0
# Handshakes at once. Those that hang must not hold up the others; they are waiting, not working.
_AT_ONCE = 16
_VERSIONS = {
    "TLS 1.2": (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2),
    "TLS 1.3": (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3),
    "TLS": (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3),
}


def main(keys: str) -> None:
    """Answer questions until there are no more; `keys` is "rsa", "ecdsa" or "any"."""
    # The configuration names the highest version, which nothing else in this process does.
    limited = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).maximum_version == ssl.TLSVersion.TLSv1_3
    _say({"limited": limited})
    contexts = {version: _context(version, keys) for version in _VERSIONS}
    for line in sys.stdin:
        _say(_all_at_once([(*question[:3], contexts[question[3]]) for question in json.loads(line)]))


def _context(version: str, keys: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version, context.maximum_version = _VERSIONS[version]
    # Suites whose certificate has that type of key (openssl-ciphers(1)); EdDSA goes with ECDSA (RFC 8422).
    context.set_ciphers({"rsa": "aRSA", "ecdsa": "aECDSA", "any": "DEFAULT"}[keys] + ":@SECLEVEL=0")
    return context


def _all_at_once(questions: list[tuple[_Listener, str | None, bool, ssl.SSLContext]]) -> list[_Answer]:
    answers: list[_Answer] = [[]] * len(questions)
    left = iter(enumerate(questions))  # next() on it is one step of the interpreter: no lock

    def work() -> None:
        for number, question in left:
            answers[number] = _ask(*question)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(_AT_ONCE, len(questions)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _ask(listener: _Listener, name: str | None, proxy_protocol: bool, context: ssl.SSLContext) -> _Answer:
    """Return [leaf (SHA-256), reached, failure] of one full handshake; `name` is the SNI, or None."""
    for _ in range(2):
        # A worker that retires resets what waits in a queue of its own (`reuseport`). A broken listener
        # resets the second connection, too.
        try:
            return _handshake(listener, name, proxy_protocol, context)
        except ConnectionResetError as error:
            reset = "no handshake (" + _words(error) + ")"
    return [None, True, reset]


def _handshake(
    listener: _Listener, name: str | None, proxy_protocol: bool, context: ssl.SSLContext
) -> _Answer:
    try:
        connection = _connect(listener)
    except ConnectionResetError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a host name that cannot be written in DNS
        return [None, False, "no connection (" + _words(error) + ")"]
    try:
        with connection:
            if proxy_protocol:
                connection.sendall(_proxy_header(connection))
            # No session is ever given, so that each handshake is a full one: a resumed
            # session shows the certificate of the first.
            with context.wrap_socket(connection, server_hostname=name) as tls:
                der = tls.getpeercert(binary_form=True)
    except ConnectionResetError:
        raise
    except ssl.SSLError as error:
        return [None, True, "no handshake (" + (error.reason or str(error)) + ")"]
    except (OSError, ValueError) as error:  # ValueError: a name that cannot be sent as SNI
        return [None, True, "no handshake (" + _words(error) + ")"]
    return [hashlib.sha256(der).hexdigest(), True, ""] if der else [None, True, "no certificate"]


def _connect(listener: _Listener) -> socket.socket:
    if not isinstance(listener, str):
        host, port = listener
        return socket.create_connection((str(host), int(port)), timeout=SECONDS)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(SECONDS)
        connection.connect(listener)
    except BaseException:
        connection.close()
        raise
    return connection


def _proxy_header(connection: socket.socket) -> bytes:
    """Return the line of the PROXY protocol, version 1 (haproxy's proxy-protocol.txt, section 2.1)."""
    family = {socket.AF_INET: "TCP4", socket.AF_INET6: "TCP6"}.get(connection.family)
    if family is None:
        return b"PROXY UNKNOWN\r\n"
    (source, source_port), (target, port) = connection.getsockname()[:2], connection.getpeername()[:2]
    return f"PROXY {family} {source} {target} {source_port} {port}\r\n".encode()


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _say(document: object) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
