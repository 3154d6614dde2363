"""The typed configuration that the command line, the sweeps and MLflow share.

Every part of a run is a frozen, keyword-only dataclass that checks itself when it is built, so a
wrong value is one `InputError` line before any machine is asked for. A configuration turns into plain data
(`to_dict`), back (`from_dict`), into dotted names for MLflow (`flatten`) and into a key (`config_hash`).
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar


class InputError(ValueError):
    """Something the user gave is wrong; the message is one line that names the field and the remedy."""


class RunFailed(RuntimeError):
    """A run cannot come to its end as it was configured; the message is one line. To repeat it would change nothing."""


class MachineFailed(RuntimeError):
    """The machine failed, not the run: memory, disk, cluster. The message is one line; to repeat it may succeed."""


AGAIN = "--resume tries it again"
"""How the reason ends for which a trial failed that is not over with that."""

T = TypeVar("T")
EXPECTED = {float: "a number", int: "a whole number", bool: "true or false", str: "text", tuple: "a list"}


def choose(field: str, name: str, known: Iterable[str]) -> str:
    """`name` if it is one of `known`, else an `InputError` that lists them and guesses what was meant."""
    options = sorted(known)
    if name in options:
        return name
    close = difflib.get_close_matches(name, options, n=1)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    raise InputError(f"{field}: unknown {name!r}{guess} (choose from {', '.join(options)})")


def require(condition: bool, field: str, message: str) -> None:
    """Raise `InputError("field: message")` unless `condition` holds."""
    if not condition:
        raise InputError(f"{field}: {message}")


def to_dict(config: Any) -> Any:
    """Plain data (dicts, lists, numbers, strings) of a configuration; a union's member carries its `kind`."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        plain = {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
        kind = getattr(config, "kind", None)
        return {"kind": kind, **plain} if kind else plain
    if isinstance(config, Mapping):
        return {str(k): to_dict(v) for k, v in config.items()}
    if isinstance(config, tuple | list):
        return [to_dict(v) for v in config]
    return config


def from_dict(cls: type[T], data: Mapping[str, Any], *, field: str = "") -> T:
    """Build the dataclass `cls` from `to_dict`'s output. Unknown names are refused with the nearest known one."""
    require(isinstance(data, Mapping), field or cls.__name__, f"expected a mapping, got {type(data).__name__}")
    values = dict(data)
    kind = values.pop("kind", None)
    kinds = getattr(cls, "kinds", None)
    if kinds is not None and kind is not None:
        cls = kinds()[choose(f"{field}.kind" if field else "kind", kind, kinds())]
    hints = _hints(typing.cast(Any, cls))
    names = [f.name for f in dataclasses.fields(typing.cast(Any, cls)) if f.init]
    for name in values:
        choose(field or cls.__name__, name, names)
    for f in dataclasses.fields(typing.cast(Any, cls)):
        optional = f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        require(optional or not f.init or f.name in values, field or cls.__name__, f"{f.name} is missing")
    return cls(**{k: _decode(hints[k], v, f"{field}.{k}" if field else k) for k, v in values.items()})


@lru_cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def check_types(config: Any) -> None:
    """Decode every field of a dataclass that is being built: a list becomes a tuple, `1` a float, the rest is refused.

    What a configuration's `__post_init__` calls before it compares values, whoever they come from.
    """
    hints = _hints(typing.cast(Any, type(config)))
    for f in dataclasses.fields(config):
        object.__setattr__(config, f.name, _decode(hints[f.name], getattr(config, f.name), f.name))


def check_seed(field: str, seed: int) -> None:
    """Refuse what is no seed to every library: not from 0 to 2^32 - 1."""
    require(0 <= seed < 1 << 32, field, f"must be from 0 to {(1 << 32) - 1}, got {seed}")


def _decode(hint: Any, value: Any, field: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        *others, last = (a for a in args if a is not type(None))
        for hint in others:
            with suppress(InputError):
                return _decode(hint, value, field)
        return _decode(last, value, field)
    if dataclasses.is_dataclass(hint) and not dataclasses.is_dataclass(value):
        return from_dict(typing.cast(type, hint), value, field=field)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_decode(args[0], v, field) for v in value)
    expected = origin or hint
    if hint is float and type(value) is int and abs(value) < 1 << 63:
        value = float(value)
    if isinstance(expected, type) and expected is not typing.Any:
        fits = isinstance(value, expected) and (expected is bool or not isinstance(value, bool))
        require(fits, field, f"expected {EXPECTED.get(expected, expected.__name__)}, got {shown(value)}")
    require(not isinstance(value, float) or math.isfinite(value), field, f"must be finite, got {value}")
    require(type(value) is not int or abs(value) < 1 << 63, field, f"is out of bounds, got {shown(value)}")
    return value


def shown(value: Any) -> str:
    """What was given, at a length that fits into a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted names for a configuration's leaves: `{"method.mu_s": 0.5, …}`; a sequence is joined by commas."""
    plain = to_dict(config)
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat.update(flatten(value, f"{name}."))
        elif isinstance(value, list):
            flat[name] = ",".join(str(v) for v in value)
        else:
            flat[name] = value
    return flat


def config_hash(config: Any) -> str:
    """16 hexadecimal digits that change exactly when the configuration's content does."""
    text = json.dumps(_canonical(to_dict(config)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical(plain: Any) -> Any:
    """Equal numbers spelt alike: `mu_s=0` and `mu_s=0.0` are the same configuration."""
    if isinstance(plain, dict):
        return {k: _canonical(v) for k, v in plain.items()}
    if isinstance(plain, list):
        return [_canonical(v) for v in plain]
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain


def parse_count(field: str, text: str | int) -> int:
    """A positive whole number, with the field's suffixes: `64k` = 64,000 and `96M` = 96 x 2^20 samples."""
    scale = {"k": 1000, "K": 1000, "M": 1 << 20}
    try:
        raw = str(text).strip().replace("_", "").replace(",", "")
        number = float(raw[:-1]) * scale[raw[-1]] if raw[-1:] in scale else float(raw)
    except ValueError:
        raise InputError(f"{field}: {text!r} is not a count (examples: 38400, 64k, 96M)") from None
    require(number > 0 and number.is_integer(), field, f"must be a positive whole number, got {text!r}")
    return int(number)
