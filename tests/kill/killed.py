"""certcast in a process that is killed right before, or after, one of its state-changing calls.

    python killed.py LOG AT ARGUMENT…

AT says where to die: at the call with this number (0: nowhere), or at the first call that holds a text. With
">" between several texts, these are to be met one after the other, and the last one is the end.

State-changing calls, as Python's audit events tell of them: a file opened for writing, renamed or removed, a
folder made or removed, an HTTP request sent. Beyond these: an answer about to be read. There, the request is
with the server, and the client will never know what became of it.

Each call is written to LOG as a line before it happens, so the parent knows what was interrupted. The process
dies by SIGKILL: no `finally`, no clean-up, no buffer is flushed.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import Any

log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
number, texts = (int(sys.argv[2]), []) if sys.argv[2].isdigit() else (-1, sys.argv[2].split(">"))
lock = threading.Lock()
count = 0
WRITING = os.O_WRONLY | os.O_RDWR
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
# Not steps of certcast: Python's own caches and temporary files, and devices.
ELSEWHERE = re.compile(r"/__pycache__/|^/dev/|^/proc/|\.lock$")


def step(what: str) -> None:
    """Count a call; die if it is the one."""
    global count  # noqa: PLW0603  one number for one process
    with lock:
        count += 1
        os.write(log, f"{count} {what}\n".encode())
        if texts and texts[0] in what:
            texts.pop(0)
            if not texts:
                os.kill(os.getpid(), signal.SIGKILL)
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    """See an audit event (https://docs.python.org/3/library/audit_events.html)."""
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, str) and flags & WRITING and not ELSEWHERE.search(path):
            step(f"write {path}")
    elif event in CHANGES:
        path = str(arguments[0])
        is_there = event == "os.mkdir" and Path(path).is_dir()  # then nothing changes
        if not is_there and not ELSEWHERE.search(path):
            step(
                f"{event.partition('.')[2]} {path}" + (f" -> {arguments[1]}" if event == "os.rename" else "")
            )
    elif event == "http.client.send":
        head = bytes(arguments[1][:300]) if isinstance(arguments[1], bytes) else b""
        line = head.partition(b"\r\n")[0].decode("latin-1")
        if line.endswith("HTTP/1.1") and not line.startswith("GET"):
            step(f"send {line.rpartition(' ')[0]}")


answered = http.client.HTTPConnection.getresponse


def getresponse(connection: http.client.HTTPConnection, *arguments: Any, **more: Any) -> Any:
    """Count an answer that is about to be read."""
    step("answer")
    return answered(connection, *arguments, **more)


http.client.HTTPConnection.getresponse = getresponse  # type: ignore[method-assign]
sys.addaudithook(hook)
sys.argv[:] = ["certcast", *sys.argv[3:]]

from certcast.cli import main  # noqa: E402  the hook sees its imports, too

main()
