"""JSON documents, on this host's disk and in the store, by one strict converter.

    documents.read(path, State)     the state of a certificate; None where there is no file
    documents.write(path, state)    whole or not at all
    documents.structure(found, Manifest)

The types are frozen dataclasses, and the converter is strict as the configuration's: a number is no text, a
key that is not known is a mistake, a field without a default must be there. A field with a default may be
missing, so that what an earlier version wrote is still read. Moments are texts like 2026-11-23T18:05:00Z.

A field's type may say more: `Sha256` is Annotated[str, Check(…)].
"""

from __future__ import annotations

import contextlib
import functools
import json
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_type_hints

import cattrs
from cattrs.errors import AttributeValidationNote, IterableValidationError, IterableValidationNote

from certcast.host import files
from certcast.release.lifetime import from_utc_text, utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """What else must be true of a value: `check` returns the value that counts, or raises ValueError."""

    check: Callable[[Any], Any]


def hex_digits(count: int) -> Check:
    """Return the check for a text of `count` lower-case hex digits."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or len(value) != count or set(value) - set("0123456789abcdef"):
            raise ValueError(f"is not {count} hex digits")
        return value

    return Check(check)


def plain_text(value: Any) -> str:
    """Return a text of one line without control characters, which would reach terminals and mails."""
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= LONGEST_TEXT:
        raise ValueError("is not a plain text")
    return value


def whole_number(value: Any) -> int:
    """Return a whole number from 1 on; `True` is none."""
    if type(value) is not int or not 0 < value <= LARGEST_NUMBER:
        raise ValueError(f"must be a positive whole number, not {value!r:.40}")
    return value


LONGEST_TEXT = 1024
_LONGEST_REPORT = 2000  # a document from elsewhere may have a mistake in each of many elements
LARGEST_NUMBER = 2**53  # that every JSON reader keeps (RFC 8259, 6)

Sha256 = Annotated[str, hex_digits(64)]
Md5 = Annotated[str, hex_digits(32)]
Text = Annotated[str, Check(plain_text)]


def read(path: Path, kind: type[T], *, advice: str | None = None) -> T | None:
    """Return the document in `path`, or None if there is no such file.

    LocalFault if it is unreadable or damaged: state is not guessed. `advice` is the next step where losing
    the file costs more than its content.
    """
    document = files.read_json(path, advice=advice)
    if document is None:
        return None
    with files.understood(path, advice=advice):
        return structure(document, kind)


def write(path: Path, document: Any) -> None:
    """Replace `path` by the document, durably. OSError."""
    files.write_json(path, unstructure(document))


def structure(document: Any, kind: type[T]) -> T:
    """Return a parsed JSON document as `kind`. ValueError with every mistake and where it is."""
    if not isinstance(document, dict):
        raise ValueError("it is not an object")
    try:
        found: T = converter().structure(document, kind)
    except cattrs.BaseValidationError as error:
        raise ValueError("; ".join(mistakes_of(error, _explain))[:_LONGEST_REPORT]) from None
    return found


def mistakes_of(error: BaseException, explain: Callable[[BaseException, type | None], str]) -> list[str]:
    """Return each mistake that the converter has met, as "path: what is wrong"."""
    # cattrs writes "what @ .path".
    lines = (line.rpartition(" @ ") for line in cattrs.transform_error(error, "", format_exception=explain))
    return [f"{where.lstrip('.')}: {what}" if where else what for what, _, where in lines]


def unstructure(document: Any) -> dict[str, Any]:
    """Return a dataclass as what JSON can hold."""
    found: dict[str, Any] = converter().unstructure(document)
    return found


def text(document: Any) -> str:
    """Return a dataclass as JSON text with a line feed at its end."""
    return json.dumps(unstructure(document), indent=2) + "\n"


@functools.cache
def converter() -> cattrs.Converter:
    """Return the converter of documents, which does everything by type."""
    made = strict_converter()
    made.register_structure_hook(datetime, lambda value, _type: _moment(value))
    made.register_unstructure_hook(datetime, utc_text)
    return made


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return from_utc_text(value)
    raise ValueError(f"must be a time like 2026-11-23T18:05:00Z, not {value!r:.40}")


def _explain(error: BaseException, _type: type | None) -> str:
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        return f"unknown: {', '.join(sorted(error.extra_fields))}"
    if isinstance(error, KeyError):
        return "is missing"
    if isinstance(error, (TypeError, AttributeError)):
        return "is not what belongs there"
    return str(error)


def strict_converter() -> cattrs.Converter:
    """Return a converter that takes no key that is not known, and makes no text of a number."""
    made = cattrs.Converter(forbid_extra_keys=True)
    for scalar in (str, int, bool):
        made.register_structure_hook(scalar, strict(scalar))
    made.register_structure_hook_func(
        lambda t: getattr(t, "__origin__", None) is tuple,
        lambda value, t: _array(value, get_args(t)[0], made),
    )
    made.register_structure_hook_func(
        lambda t: getattr(t, "__origin__", None) is Literal, lambda value, t: _one_of(value, get_args(t))
    )
    made.register_structure_hook(Path, lambda value, _type: Path(value))
    made.register_structure_hook_func(
        lambda t: _check_of(t) is not None, lambda value, t: _check_of(t).check(value)
    )
    made.register_structure_hook_factory(is_dataclass, lambda kind: dataclass_hook(kind, made))
    return made


def dataclass_hook(
    kind: type, made: cattrs.Converter, keys: Mapping[str, str] | None = None
) -> Callable[[Any, Any], Any]:
    """Return a structure hook for a dataclass; `keys` has the documents' words for fields of another name.

    It does what cattrs' own does, and is interpreted: to compile a function for each class costs a run with
    nothing to do a tenth of its time. And it keeps what Annotated says, which cattrs loses where types are
    written as texts (26.1, `adapted_fields`).
    """
    keys = keys or {}
    types = get_type_hints(kind, include_extras=True)
    words = {keys.get(name, name): (name, its_type) for name, its_type in types.items()}
    required = {field.name for field in fields(kind) if field.default is field.default_factory is MISSING}

    def structure_fields(value: Any, _type: Any) -> Any:
        taken: dict[str, Any] = {}
        failures: list[Exception] = []
        for word, (name, its_type) in words.items():
            try:
                if word in value or name in required:
                    taken[name] = made.structure(value[word], its_type)
            except Exception as error:  # noqa: BLE001, RUF100  collected, so that all are reported
                _add_note(error, AttributeValidationNote(f"field {name}", name, its_type))
                failures.append(error)
        if unknown := value.keys() - words.keys():
            failures.append(cattrs.ForbiddenExtraKeysError(None, kind, unknown))
        if failures:
            raise cattrs.ClassValidationError(kind.__name__, failures, kind)
        return kind(**taken)

    return structure_fields


def _check_of(type_: Any) -> Any:
    return next((found for found in getattr(type_, "__metadata__", ()) if isinstance(found, Check)), None)


def strict(scalar: type) -> Callable[[Any, Any], Any]:
    """Return a structure hook that takes this type alone; `bool` is no `int`."""
    words = {str: "a text in quotes", int: "a whole number", bool: "true or false"}

    def check(value: Any, _type: Any) -> Any:
        if type(value) is not scalar:
            raise ValueError(f"must be {words[scalar]}, not {value!r}")
        return value

    return check


def _array(value: Any, element: Any, converter: Any) -> tuple[Any, ...]:
    if isinstance(value, dict):
        raise ValueError("its table needs double brackets, [[…]], since there may be several")
    if not isinstance(value, list):
        raise ValueError(f"must be a list in [brackets], not {value!r}")
    taken, failures = [], []
    for index, item in enumerate(value):
        try:
            taken.append(converter.structure(item, element))
        except Exception as error:  # noqa: BLE001, RUF100  collected, so that all are reported
            _add_note(error, IterableValidationNote(f"element {index}", index, element))
            failures.append(error)
    if failures:
        raise IterableValidationError("list", failures, tuple)
    return tuple(taken)


def _add_note(error: Exception, note: Any) -> None:
    error.__notes__ = [*getattr(error, "__notes__", []), note]  # type: ignore[attr-defined]  # 3.10 has no add_note


def _one_of(value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"must be one of {', '.join(choices)}, not {value!r}")
    return str(value)
