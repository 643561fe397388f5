"""A stream's state as bytes: plain values and arrays in one file of numpy's."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# What numpy, zipfile and json raise over bytes that are no snapshot, or a damaged one; and what those lack.
BROKEN: tuple[type[Exception], ...] = (
    *(ValueError, LookupError, TypeError, AttributeError, EOFError, OSError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)


def pack(plain: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
    """JSON data and arrays -> bytes."""
    file, everything = io.BytesIO(), {"plain": np.frombuffer(json.dumps(plain).encode(), np.uint8), **arrays}
    np.savez(file, **everything)  # type: ignore[arg-type]  # a name of ours could be one of its options, but is not
    return file.getvalue()


def unpack(snapshot: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
    """The inverse of pack; raises one of BROKEN over anything else. Runs no code of a stranger's."""
    with np.load(io.BytesIO(snapshot), allow_pickle=False) as file:
        arrays = dict(file)
    return json.loads(arrays.pop("plain").tobytes()), arrays


def like(zero: NDArray[np.float32], saved: Array) -> NDArray[np.float32]:
    """`saved`; ValueError unless its shape and type are those of `zero`."""
    if (saved.shape, saved.dtype) != (zero.shape, zero.dtype):
        raise ValueError(f"state of {saved.shape} {saved.dtype}, expected {zero.shape} {zero.dtype}")
    return saved


def under(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Those whose names begin with prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
