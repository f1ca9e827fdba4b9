"""What programs that certcast starts are given: no key, and no shell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from certcast.host import children
from certcast.report import redaction

SOURCE = Path(children.__file__).parents[1]
STARTING = {"run", "Popen", "call", "check_call", "check_output"}
SHELLS_AND_THE_LIKE = (
    "os.system", "os.popen", "os.exec", "os.spawn", "os.posix_spawn", "pty.spawn",
    "asyncio.create_subprocess", "subprocess.getoutput", "subprocess.getstatusoutput",
)  # fmt: skip


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield str(path.relative_to(SOURCE)), ast.unparse(node.func), node


def starts() -> Iterator[tuple[str, dict[str | None, str]]]:
    """Each place where a child is started: its file, and the keyword arguments."""
    for file, function, call in calls():
        module, _, name = function.rpartition(".")
        if module == "subprocess" and name in STARTING:
            yield (
                f"{file}:{call.lineno}",
                {word.arg: " ".join(ast.unparse(word.value).split()) for word in call.keywords},
            )


def test_each_child_gets_an_environment_on_purpose() -> None:
    """No child inherits keys because nobody thought of it, and none at all is given them."""
    found = list(starts())
    assert len(found) >= 3
    assert [] == [where for where, words in found if not words.get("env", "").startswith("children.")], (
        "env=children.environment()"
    )


def test_no_shell_is_ever_started() -> None:
    """Names, paths and hook variables reach no shell, since there is none."""
    assert [] == [f"{file}: {name}" for file, name, _ in calls() if name.startswith(SHELLS_AND_THE_LIKE)]
    assert [] == [where for where, words in starts() if {"shell", "preexec_fn"} & words.keys()]
    imports = [path.name for path in SOURCE.rglob("*.py") if "from subprocess import" in path.read_text()]
    assert [] == imports, "`import subprocess`, so that this test sees its calls"


KEYS = {
    "ALIBABA_CLOUD_ACCESS_KEY_ID": "LTAI5tExample",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "a-secret",
    "ALIBABA_CLOUD_SECURITY_TOKEN": "a-token",
    "ALIBABACLOUD_ACCESS_KEY_SECRET": "a-secret of the CLI",
    "ALICLOUD_SECRET_KEY": "a-secret of an older tool",
    "OSS_ACCESS_KEY_SECRET": "a-secret of ossutil",
    "AWS_SECRET_ACCESS_KEY": "a-secret of another bucket",
    "CERTCAST_CONFIG": "/etc/certcast/certcast.toml",
}


def test_keys_stay_here_and_everything_else_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """nginx, docker and ssh-keygen see no key, but what the operator exported for them."""
    for name, value in {**KEYS, "DOCKER_HOST": "unix:///run/other.sock"}.items():
        monkeypatch.setenv(name, value)
    given = children.environment(PATH="/usr/bin")
    assert not KEYS.keys() & given.keys()
    assert "unix:///run/other.sock" == given["DOCKER_HOST"]
    assert "/usr/bin" == given["PATH"]


def test_our_own_clients_get_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of ours that tries handshakes is given its configuration, and where libraries are."""
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    assert {"LD_LIBRARY_PATH": "/opt/lib", "OPENSSL_CONF": "/x"} == children.bare_environment(
        OPENSSL_CONF="/x"
    )
    monkeypatch.delenv("LD_LIBRARY_PATH")
    assert {} == children.bare_environment()


def test_which_values_of_the_environment_are_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets and tokens, to be struck out wherever they turn up; not ids, paths and addresses."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ALIBABA_CLOUD_OIDC_TOKEN_FILE", "/var/run/token")
    assert {value for value in KEYS.values() if value.startswith("a-")} == set(
        redaction.secrets_of_the_environment()
    )
