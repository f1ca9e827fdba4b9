"""A person at a terminal: commands that ask for a passphrase ask /dev/tty, not stdin.

status, shown = answering(["age", "-d", "kit.age"], ["correct-horse-battery"])
"""

from __future__ import annotations

import os
import pty
import select
from collections.abc import Mapping, Sequence


def answering(
    argv: Sequence[str], answers: Sequence[str], environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run a command that has a terminal of its own; give the next answer at each prompt.

    A prompt is what ends in ": " or "? ". An answer may be a control character: "\x03" is Ctrl-C; it is
    given again for each second of silence, as a person does.
    Return the exit status, negative for a signal, and what the terminal showed. Without an answer left,
    a question gets Ctrl-D.
    """
    child, controller = pty.fork()
    if child == 0:
        os.execvpe(argv[0], list(argv), dict(environment or os.environ))
    left, shown, asked, pressed = list(answers), b"", 0, b""
    try:
        while True:
            if pressed and not select.select([controller], [], [], 1)[0]:
                # A signal that comes after the prompt was written but before the read began ends no read:
                # Python only notes it (seen once in 4,000 runs on a busy machine).
                os.write(controller, pressed)
                continue
            if not (chunk := os.read(controller, 4096)):
                break
            shown += chunk
            # age hides its question when it is answered; what came since the last answer counts.
            if shown[asked:].rstrip(b"\x1b[K").endswith((b": ", b"? ")):
                asked = len(shown)
                answer = left.pop(0) if left else "\x04"
                pressed = answer.encode() if answer in {"\x03", "\x04"} else b""
                os.write(controller, pressed or f"{answer}\n".encode())
    except OSError:
        pass  # Linux says EIO when the last process has closed its side
    finally:
        os.close(controller)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode().replace("\r\n", "\n")
