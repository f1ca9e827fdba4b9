"""From the TOML file to Config, with every mistake in one report.

Each type has its own check (types.py, model.py), so one wrong value never hides another.
A key that is not known is a mistake too: a misspelt option would silently do nothing.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError

from certcast.config.consistency import contradictions
from certcast.config.model import DEFAULT_PATH, Address, Config, Listener, RenewalConfig, Resolver
from certcast.release.documents import dataclass_hook, mistakes_of, strict_converter
from certcast.report.errors import ConfigInvalid

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def config_path(option: str | None) -> Path:
    """Return the file to read: `--config`, else CERTCAST_CONFIG, else /etc/certcast/certcast.toml."""
    return Path(option or os.environ.get("CERTCAST_CONFIG") or DEFAULT_PATH)


def load(path: Path) -> Config:
    """Read and check the configuration file.

    Raises ConfigInvalid, with all mistakes in `found`, one a line.
    """
    next_step = f"edit {path}, then `certcast check`"
    try:
        with path.open(encoding="utf-8") as file:
            _require_not_everybodys(path, os.fstat(file.fileno()))
            document = tomllib.loads(file.read())
    except FileNotFoundError:
        raise ConfigInvalid(
            f"there is no configuration file {path}",
            next=f"write {path} (the README has one), or name another with --config or CERTCAST_CONFIG",
        ) from None
    except OSError as error:
        raise ConfigInvalid(
            f"{path} cannot be read",
            found=error.strerror or str(error),
            next=f"run as the file's owner, or `ls -l {path}`",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigInvalid(f"{path} is not TOML", found=_where(error, path), next=next_step) from None
    config, mistakes = structure(document, path)
    if config is None:
        plural = "mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise ConfigInvalid(
            f"{path} has {'a ' if len(mistakes) == 1 else ''}{plural}",
            found="\n".join(mistakes),
            next=next_step,
        )
    return config


def _require_not_everybodys(path: Path, status: os.stat_result) -> None:
    """Refuse a file that anybody may change: it names commands that root runs, and keys that count."""
    if status.st_mode & 0o002:
        raise ConfigInvalid(
            f"{path} can be changed by anybody on this host",
            expected="mode 0644 or less",
            found=f"mode {status.st_mode & 0o7777:04o}",
            next=f"read it, then `chmod o-w {path}`",
        )


def _where(error: Exception, path: Path) -> str:
    """Return the parser's words, with the line that it speaks of."""
    line = re.search(r"at line (\d+)", str(error))
    if not line:
        return str(error)
    lines = path.read_text(encoding="utf-8").split("\n")
    return f"{error}\n{lines[int(line[1]) - 1].strip()[:200]}"


def structure(document: dict[str, Any], path: Path) -> tuple[Config | None, list[str]]:
    """Turn a parsed TOML document into a Config, or None and the list of its mistakes."""
    try:
        config: Config = _converter().structure({**document, "path": str(path)}, Config)
    except ClassValidationError as error:
        return None, [_in_singular(line) for line in mistakes_of(error, _explain)]
    mistakes = contradictions(config)
    return (None, mistakes) if mistakes else (config, [])


def _in_singular(mistake: str) -> str:
    """Return a mistake with the path as TOML has it: [[certificate]], [[zone]]."""
    return re.sub(r"^(certificate|zone)s(?=[\[:])", r"\1", mistake)


def _explain(error: BaseException, type_: type | None) -> str:
    if isinstance(error, ForbiddenExtraKeysError):
        return "; ".join(_unknown_key(key, error.cl) for key in sorted(error.extra_fields))
    if isinstance(error, KeyError):
        return f"{_TABLES.get(error.args[0], repr(error.args[0]))} is missing"
    if isinstance(error, (ValueError, TypeError)):
        return str(error)
    return f"not understood ({error})"


def _unknown_key(key: str, owner: type) -> str:
    from difflib import get_close_matches

    if (key, owner) in _FORMER:
        return f"{key!r} is not a key any more: {_FORMER[key, owner]}"
    known = [_TOML_NAMES.get(f.name, f.name) for f in fields(owner) if f.name != "path"]
    close = get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(known))}"
    return f"{key!r} is not a known key; {hint}"


# Arrays of tables read better in the singular in TOML: one [[certificate]] is one certificate.
_TOML_NAMES = {"certificates": "certificate", "zones": "zone"}
_TABLES = {"certificates": "[[certificate]]", "nginx": "[[consumer.nginx]]"}


# What [renewal] had while certcast drove a certbot of its own (docs/adr/0018).
_FORMER: dict[tuple[str, type], str] = {
    ("server", RenewalConfig): "it is called 'directory'",
    ("config_dir", RenewalConfig): "it is called 'certbot_config_dir'",
    **{
        (key, RenewalConfig): "certcast places its orders itself; a certbot that is to go on is "
        'source = "certbot" in its [[certificate]]'
        for key in ("certbot", "work_dir", "logs_dir")
    },
}


def _converter() -> Any:
    """Build the converter: strict, with the words of addresses, and [[certificate]] for `certificates`."""
    converter = strict_converter()
    for kind in (Address, Listener, Resolver):
        converter.register_structure_hook(kind, lambda value, t: t.parse(value))
    converter.register_structure_hook(Config, dataclass_hook(Config, converter, _TOML_NAMES))
    return converter
