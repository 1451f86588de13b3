"""A portable file of nested values: a JSON header and plain arrays in one zip archive, no pickle.

| member | holds |
|---|---|
| `header.json` | format, version, and the nested values with a reference for every array |
| `arrays/<sha256>.npy` | one array in NumPy's own format, named by its contents |

The header spells out dictionaries, lists, tuples, numbers, text, and dataclasses and named tuples
of this package by name and field. Reading builds those classes from their fields and runs nothing
else; whatever the file says, no module is imported and no name outside the package is looked up.
Equal arrays are stored once; an array that does not match its name is refused.

Writing goes to a new file beside the old one, which takes its place when it is complete: whoever is
interrupted or runs out of disk keeps the old file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import sys
import uuid
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

FORMAT = "numpyro_onestep"
VERSION = 1

_PACKAGE = "numpyro_onestep"
_HEADER = "header.json"
# Kinds of arrays whose bytes mean the same everywhere: no Python objects among them.
_KINDS = "biufcUSMm"

# Every value that is not a bare number, text, bool or null is an object with one of these keys.
_ARRAY, _KEY, _FLOAT, _SCALAR = "array", "prng_key", "float", "scalar"
_LIST, _TUPLE, _DICT, _CLASS = "list", "tuple", "dict", "class"


class UnknownValue(ValueError):
    """A value that no portable file can hold."""


def write(path: str | os.PathLike[str], value: Any, about: Mapping[str, str]) -> None:
    """Writes a value, atomically.

    Args:
        path: of the file; one that exists is replaced.
        value: nested dictionaries, lists, tuples, dataclasses and named tuples of this package,
            with arrays, numbers, text and None as leaves.
        about: further entries of the header, such as versions.

    Raises:
        UnknownValue: a `ValueError` that names the place of a value that cannot be stored.
        OSError: where the file cannot be written; the old one is then untouched.
    """
    path = Path(path)
    arrays: dict[str, np.ndarray] = {}
    body = encode(value, arrays)
    header = {"format": FORMAT, "version": VERSION, **about, "content": body}
    text = json.dumps(header, allow_nan=False)
    # Beside the target: only within one file system is a rename one step.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(_HEADER, text)
                for name, array in arrays.items():
                    archive.writestr(_member(name), _npy(array))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(
    path: str | os.PathLike[str],
    check: Callable[[Mapping[str, Any]], None] = lambda header: None,
) -> tuple[dict[str, Any], Any]:
    """The header's own entries and the value of a file that `write` made.

    Args:
        path: of the file.
        check: raises for a header that the caller does not want, before its arrays are read.

    Raises:
        FileNotFoundError: without such a file.
        ValueError: for a file of another origin or version, or one that is damaged, saying which.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if _HEADER not in archive.namelist():
                raise _foreign(path, "an archive without a header")
            header = json.loads(archive.read(_HEADER))
            if not isinstance(header, dict) or header.get("format") != FORMAT:
                raise _foreign(path, "the header of another format")
            version = header.get("version")
            if version != VERSION:
                raise ValueError(
                    f"expected a file of format version {VERSION}; got version {version!r}, written"
                    f" by {_PACKAGE} {header.get('library_version', '(unknown)')}: {path}"
                )
            check(header)
            arrays = {
                name: _load(archive, name)
                for name in {Path(member).stem for member in archive.namelist()} - {"header"}
            }
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"expected a complete file written by {_PACKAGE}; got one that is cut off, damaged or"
            f" of another kind ({error}): {path}"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, EOFError, KeyError) as error:
        raise ValueError(
            f"expected a complete file; got a damaged one ({error}): {path}"
        ) from error
    content = header.pop("content", None)
    try:
        return header, decode(content, arrays)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"expected the contents that {_PACKAGE} writes; got others"
            f" ({type(error).__name__}: {error}): {path}"
        ) from error


def _foreign(path: Path, found: str) -> ValueError:
    return ValueError(f"expected a file written by {_PACKAGE}; got {found}: {path}")


def _member(name: str) -> str:
    return f"arrays/{name}.npy"


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _load(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    data = archive.read(_member(name))
    array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    if _digest(array) != name:
        raise ValueError(f"expected an array with the digest {name}; got a damaged one")
    return array


def _digest(array: np.ndarray) -> str:
    sha = hashlib.sha256(f"{array.dtype.str}|{array.shape}|".encode())
    sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def encode(value: Any, arrays: dict[str, np.ndarray], place: str = "value") -> Any:
    """The JSON form of a value; its arrays are added to `arrays` by digest.

    Raises:
        UnknownValue: naming the place of a value that has no such form.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if type(value) is int:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {_FLOAT: repr(value)}
    if isinstance(value, np.generic):
        return {_SCALAR: _store(np.asarray(value), arrays, place)}
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        data = np.asarray(jax.random.key_data(value))
        return {_KEY: [str(jax.random.key_impl(value)), _store(data, arrays, place)]}
    if isinstance(value, jax.Array | np.ndarray):
        on_device = isinstance(value, jax.Array)
        return {_ARRAY: [_store(np.asarray(value), arrays, place), on_device]}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return _encode_class(value, dict(zip(value._fields, value, strict=True)), arrays, place)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        return _encode_class(value, fields, arrays, place)
    if type(value) in (list, tuple):
        kind = _LIST if type(value) is list else _TUPLE
        return {kind: [encode(v, arrays, f"{place}[{i}]") for i, v in enumerate(value)]}
    if type(value) is dict:
        pairs = [
            [encode(k, arrays, place), encode(v, arrays, f"{place}[{k!r}]")]
            for k, v in value.items()
        ]
        return {_DICT: pairs}
    raise UnknownValue(
        f"expected arrays, numbers, text and containers of them; got {type(value).__name__} as"
        f" {place}, which no portable file can hold"
    )


def _store(array: np.ndarray, arrays: dict[str, np.ndarray], place: str) -> str:
    if array.dtype.kind not in _KINDS or array.dtype.hasobject:
        raise UnknownValue(f"expected a plain array as {place}; got one of dtype {array.dtype}")
    name = _digest(array)
    arrays[name] = array
    return name


def _encode_class(
    value: Any, fields: dict[str, Any], arrays: dict[str, np.ndarray], place: str
) -> Any:
    cls = type(value)
    name = f"{cls.__module__}:{cls.__qualname__}"
    if _class(name) is not cls:
        raise UnknownValue(
            f"expected classes of {_PACKAGE}; got {name} as {place}, which no portable file can"
            " hold: pickle the inference instead, or leave that object out"
        )
    found = {k: encode(v, arrays, f"{place}.{k}") for k, v in fields.items()}
    return {_CLASS: [name, found]}


def _class(name: str) -> type | None:
    """The dataclass or named tuple of the package with this name, if it is already imported."""
    module_name, _, qualname = name.partition(":")
    if module_name.split(".")[0] != _PACKAGE:
        return None
    found = vars(sys.modules.get(module_name, object())) if module_name in sys.modules else {}
    cls = found.get(qualname)
    if not isinstance(cls, type) or cls.__module__ != module_name:
        return None
    is_named_tuple = issubclass(cls, tuple) and hasattr(cls, "_fields")
    return cls if dataclasses.is_dataclass(cls) or is_named_tuple else None


def decode(form: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Inverse of `encode`.

    Raises:
        ValueError: for a form that `encode` does not make, or a class that the package lacks.
    """
    if not isinstance(form, dict):
        if isinstance(form, list):
            raise ValueError("expected the contents of a saved file; got a bare list")
        return form
    ((kind, inner),) = form.items()
    if kind == _FLOAT:
        return float(inner)
    if kind == _SCALAR:
        return arrays[inner][()]
    if kind == _KEY:
        return jax.random.wrap_key_data(jnp.asarray(arrays[inner[1]]), impl=inner[0])
    if kind == _ARRAY:
        name, on_device = inner
        return jnp.asarray(arrays[name]) if on_device else np.array(arrays[name])
    if kind == _LIST:
        return [decode(v, arrays) for v in inner]
    if kind == _TUPLE:
        return tuple(decode(v, arrays) for v in inner)
    if kind == _DICT:
        return {decode(k, arrays): decode(v, arrays) for k, v in inner}
    if kind == _CLASS:
        name, fields = inner
        cls = _class(name)
        if cls is None:
            raise ValueError(f"expected a class of this version of {_PACKAGE}; got {name!r}")
        return cls(**{k: decode(v, arrays) for k, v in fields.items()})
    raise ValueError(f"expected a kind of value of format version {VERSION}; got {kind!r}")
