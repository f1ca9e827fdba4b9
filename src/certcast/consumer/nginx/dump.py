"""The output of `nginx -T`, taken apart: files by name, and the statements of each.

    # configuration file /etc/nginx/nginx.conf:     →  files(dump)       name → text
    …                                               →  statements_of(…)  directive, arguments, block
                                                    →  included(…)       which files an `include` means

crossplane takes a file's text apart. It reads files by name and follows includes on the disk;
here neither is possible, since the files may be a container's. So each text becomes a file in
memory, and includes are looked up among the dumped names, as nginx does: relative to the
folder of the main file, patterns as glob(3).

Not here: what the statements mean (configuration.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Any

_HEADER = re.compile(r"# configuration file (.+):")
# The brackets of Lua are not nginx's: its strings and comments are skipped as Lua does (manual, section 3.1).
_LUA_BLOCK = re.compile(r"^[^#\n]*?\b\w+_by_lua_block\b[^{;#]*\{", re.MULTILINE)
_LUA_TOKEN = re.compile(
    r"""--\[(=*)\[.*?\]\1\] | --[^\n]* | \[(=*)\[.*?\]\2\] | "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | [{}]""",
    re.DOTALL | re.VERBOSE,
)


def files(dump: str) -> dict[str, str]:
    """Return each file's text by name, the main one first. ValueError if this is no dump."""
    texts: dict[str, list[str]] = {}
    name, current = "", []
    for line in dump.split("\n"):
        header = _HEADER.fullmatch(line.rstrip("\r"))
        # Its own name again is a comment: that of a file which was made of a dump.
        if header is None or header[1] == name:
            current.append(line)
            continue
        name, current = header[1], []
        # Of a file that is included twice, an old nginx may print the text twice.
        texts.setdefault(name, current)
    if not texts:
        raise ValueError("no `# configuration file` line: this is not the output of `nginx -T`")
    # A carriage return is a blank to nginx, and ends no line; Python would count one.
    return {name: "\n".join(lines).replace("\r", " ").removeprefix("\ufeff") for name, lines in texts.items()}


def statements_of(name: str, text: str) -> list[dict[str, Any]]:
    """Return the statements of one file as crossplane's dicts. ValueError names file and line."""
    import crossplane

    # crossplane reads files by name only. A file in memory has one, and no disk sees the text.
    memory = os.memfd_create("nginx.conf")
    try:
        with os.fdopen(memory, "wb", closefd=False) as file:
            file.write(_without_lua(text).encode())
        path = f"/proc/self/fd/{memory}"
        payload = crossplane.parse(path, single=True, check_ctx=False, check_args=False)
    finally:
        os.close(memory)
    (found,) = payload["config"]
    for error in found["errors"]:
        reason = re.sub(r" in /proc/self/fd/\d+(:\d+)?$", "", str(error["error"]))
        raise ValueError(f"{name}:{error['line'] or 1}: {reason}")
    statements: list[dict[str, Any]] = found["parsed"]
    return statements


def included(pattern: str, names: Collection[str], main: str) -> list[str]:
    """Return the dumped files that an `include` means, in the order of glob(3)."""
    path = pattern if pattern.startswith("/") else os.path.dirname(main) + "/" + pattern  # noqa: PTH120  text
    if not re.search(r"[*?\[]", path):
        return [path] if path in names else []
    parts = path.split("/")
    return sorted(name for name in names if _fits(name.split("/"), parts))


def _fits(name: list[str], pattern: list[str]) -> bool:
    # As glob(3): no wildcard stands for a slash, nor for a dot at the beginning.
    return len(name) == len(pattern) and all(
        fnmatchcase(part, wanted) and (not part.startswith(".") or wanted.startswith("."))
        for part, wanted in zip(name, pattern, strict=True)
    )


def _without_lua(text: str) -> str:
    """Return the text with Lua blocks emptied, line feeds kept."""
    if "_by_lua_block" not in text:
        return text
    parts, end = [], 0
    while block := _LUA_BLOCK.search(text, end):
        depth, close = 1, len(text)
        for token in _LUA_TOKEN.finditer(text, block.end()):
            depth += {"{": 1, "}": -1}.get(token[0], 0)
            if depth == 0:
                close = token.start()
                break
        parts += [text[end : block.end()], "\n" * text.count("\n", block.end(), close)]
        end = close
    return "".join([*parts, text[end:]])
