"""From file, environment and command line to `Settings`, remembering where each value came from."""

from __future__ import annotations

import difflib
import operator
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from alphapulse.config.sections import CoinbaseSettings, Section, Settings
from alphapulse.config.values import MASK, expectation, from_text, from_value, kind_of, masked
from alphapulse.errors import ConfigError

T = TypeVar("T", bound=Section)

DEFAULT_FILE = "alphapulse.toml"
FILE_VARIABLE = "ALPHAPULSE_CONFIG"
VARIABLE_PREFIX = "ALPHAPULSE__"

SHORT_VARIABLES = {
    "REDIS_URL": "store.redis_url",
    "API_PORT": "api.port",
    "STREAM_PORT": "stream.port",
    "BUFFER_SIZE": "store.buffer_size",
    "BATCH_TIMEOUT_MS": "store.batch_timeout_ms",
    "LOG_LEVEL": "log.level",
}
"""Environment variables with names of their own; an empty one counts as absent."""


class Described(NamedTuple):
    """A setting as ``alphapulse check-config`` shows it; secrets are masked."""

    key: str
    value: Any
    origin: str
    """``default``, the file's path, ``environment NAME`` or ``command line``."""


class _Leaf(NamedTuple):
    type: Any
    default: Any


class _Found(NamedTuple):
    value: Any
    origin: str


def load(
    path: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from a file, the environment, and the command line, each over the one before.

    Parameters
    ----------
    path : the file; without it that of ``ALPHAPULSE_CONFIG``, else ``./alphapulse.toml`` if it
        exists
    environ : environment variables, the process's own where None
    overrides : values by dotted key, None for "not given"

    Raises
    ------
    ConfigError
        a key is unknown, a value can't be used, the file can't be read
    """
    found = _collect(path, os.environ if environ is None else environ, overrides or {})
    return _settings_of(found)


def describe(
    path: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> list[Described]:
    """Every setting with its value and where that comes from; arguments and errors as `load`."""
    found = _collect(path, os.environ if environ is None else environ, overrides or {})
    settings = _settings_of(found)
    described = []
    for key, leaf in LEAVES.items():
        value = operator.attrgetter(key)(settings)
        origin = found[key].origin if key in found else "default"
        described.append(Described(key, masked(value, leaf.type), origin))
    return described


def setting_keys() -> list[str]:
    """Dotted keys of all settings, in the order of the sections."""
    return list(LEAVES)


def variable_of(key: str) -> str:
    """The environment variable of a dotted key."""
    return VARIABLE_PREFIX + key.upper().replace(".", "__")


def _leaves(section: type[Section], prefix: str) -> Iterator[tuple[str, _Leaf]]:
    for field in msgspec.structs.fields(section):
        if isinstance(field.default, Section):
            yield from _leaves(type(field.default), f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", _Leaf(field.type, field.default)


LEAVES = dict(_leaves(Settings, ""))
"""Type and default of every setting, by dotted key."""

TABLES = {key.rpartition(".")[0] for key in LEAVES} | {"venues"}


def _collect(
    path: str | Path | None, environ: Mapping[str, str], overrides: Mapping[str, Any]
) -> dict[str, _Found]:
    file = _file_of(path, environ)
    found = dict(_from_file(file)) if file is not None else {}
    found.update(_from_environ(environ))
    for key, value in overrides.items():
        if value is not None:
            found[key] = _Found(_checked(key, value, "command line"), "command line")
    return found


def _file_of(path: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    named = path or environ.get(FILE_VARIABLE)
    if named:
        return Path(named)
    default = Path(DEFAULT_FILE)
    return default if default.is_file() else None


def _from_file(file: Path) -> Iterator[tuple[str, _Found]]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(file), f"can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), f"is no TOML: {error}") from error
    for key, value in _flatten(document, "", str(file)):
        yield key, _Found(_checked(key, value, str(file)), str(file))


def _flatten(table: Mapping[str, Any], prefix: str, origin: str) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        key = f"{prefix}{name}"
        if key in TABLES:
            if not isinstance(value, dict):
                raise ConfigError(key, f"is a table, not {value!r}; write [{key}] ({origin})")
            yield from _flatten(value, f"{key}.", origin)
        else:
            yield key, value


def _from_environ(environ: Mapping[str, str]) -> Iterator[tuple[str, _Found]]:
    for name, key in SHORT_VARIABLES.items():
        if environ.get(name):
            yield key, _environment_value(key, environ[name], name)
    for name in sorted(environ):
        if name.startswith(VARIABLE_PREFIX):
            key = name.removeprefix(VARIABLE_PREFIX).lower().replace("__", ".")
            yield key, _environment_value(key, environ[name], name)
        else:
            _refuse_misspelt(name, environ[name])


def _refuse_misspelt(variable: str, value: str) -> None:
    """Refuse a variable that would set something if its separators were right."""
    key = _MISSPELT.get(_run_together(variable))
    # Kubernetes tells pods where services are: of one called alphapulse-api in ALPHAPULSE_API_PORT.
    if key is not None and value and not _SERVICE.match(value):
        raise ConfigError(key, f"{variable} isn't how it is set; write {variable_of(key)}")


def _run_together(variable: str) -> str:
    """A variable's name with a single underscore wherever there are underscores."""
    return re.sub("_+", "_", variable.upper())


_SERVICE = re.compile("(tcp|udp|sctp)://")

_MISSPELT = {f"ALPHAPULSE_{name}": key for name, key in SHORT_VARIABLES.items()} | {
    _run_together(variable_of(key)): key for key in LEAVES
}
"""Settings by their variables' names, run together; and by short names with a prefix to them."""


def _environment_value(key: str, text: str, variable: str) -> _Found:
    origin = f"environment {variable}"
    leaf = _known(key, origin)
    try:
        value = from_text(text, leaf.type)
    except (ValueError, KeyError) as error:
        raise _unusable(key, text, leaf, origin) from error
    return _Found(_checked(key, value, origin), origin)


def _known(key: str, origin: str) -> _Leaf:
    leaf = LEAVES.get(key)
    if leaf is None:
        raise ConfigError(key, f"unknown setting ({origin}); {_suggestion(key, origin)}")
    return leaf


def _suggestion(key: str, origin: str) -> str:
    nearest = _nearest(key)
    if nearest is None:
        return f"the sections are {', '.join(sorted(TABLES - {'venues'}))}"
    if origin.startswith("environment") and nearest in LEAVES:
        return f"did you mean {nearest} ({variable_of(nearest)})?"
    return f"did you mean {nearest}?"


def _nearest(key: str) -> str | None:
    """The known key most like an unknown one: of its section, else of its name, else of all."""
    section, _, name = key.rpartition(".")
    every = [*LEAVES, *sorted(TABLES)]
    siblings = [known for known in every if known.rpartition(".")[0] == section]
    for candidates, cutoff in ((siblings, 0.6), (every, 0.8)):
        names = [known.rpartition(".")[2] for known in candidates]
        close = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
        if close:
            same = [known for known in candidates if known.rpartition(".")[2] == close[0]]
            return difflib.get_close_matches(key, same, n=1, cutoff=0.0)[0]
    found = difflib.get_close_matches(key, every, n=1, cutoff=0.6)
    return found[0] if found else None


def _checked(key: str, value: Any, origin: str) -> Any:
    leaf = _known(key, origin)
    try:
        return from_value(value, leaf.type)
    except (ValueError, OverflowError) as error:
        detail = "" if isinstance(error, msgspec.ValidationError) else str(error)
        raise _unusable(key, value, leaf, origin, detail) from error


def _unusable(key: str, value: Any, leaf: _Leaf, origin: str, detail: str = "") -> ConfigError:
    secret = kind_of(leaf.type) in ("secret", "url")
    shown = MASK if secret else str(value) if isinstance(value, Decimal) else repr(value)
    detail = f" ({detail})" if detail and not secret else ""
    return ConfigError(
        key, f"{shown} can't be used{detail}; expected {expectation(leaf.type)} ({origin})"
    )


def _settings_of(found: Mapping[str, _Found]) -> Settings:
    settings = _build(Settings, "", {key: item.value for key, item in found.items()})
    _check_coinbase_key(settings.venues.coinbase)
    return settings


def _build(section: type[T], prefix: str, values: Mapping[str, Any]) -> T:
    arguments: dict[str, Any] = {}
    for field in msgspec.structs.fields(section):
        key = f"{prefix}{field.name}"
        if isinstance(field.default, Section):
            arguments[field.name] = _build(type(field.default), f"{key}.", values)
        elif key in values:
            arguments[field.name] = values[key]
    return section(**arguments)


def _check_coinbase_key(coinbase: CoinbaseSettings) -> None:
    names = ("api_key", "api_secret", "api_passphrase")
    lacking = [name for name in names if not getattr(coinbase, name)]
    if 0 < len(lacking) < len(names):
        raise ConfigError(
            f"venues.coinbase.{lacking[0]}",
            "is empty; a key works only with all of api_key, api_secret and api_passphrase",
        )
