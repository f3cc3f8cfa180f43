"""Read the pickles of the authors' networks without unpickling them: a hostile file gets nothing executed.

A released file is a pickle: a list of pairs (W, b) in the order of the layers, with W as (height, width, in, out) and
arrays of NaN in place of a pool; its last element is a one-element tuple with the linear layer (1, 1, K, classes). A
pickle can run any program while it is read, so no file is unpickled here: `_unpickle` interprets the operations one by
one, supports the few that lists of float arrays need, replaces the four names of numpy's arrays by stand-ins that store
bytes, and refuses everything else.
"""

import os
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..reading import FileError, printable, read_bytes

# Limits for reading: the largest released network, a WResnet, has 1.9 MB and takes 1,609 operations.
LARGEST_FILE = 4 * 2**20

MOST_OPERATIONS = 10_000


class ReleasedNetworkError(FileError):
    """A file is not a released network, or contains something that has no place in one."""


class _Name(str):
    """A stand-in for one of the four numpy names that a pickled float array uses; calling it runs no numpy code."""

    MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
    KNOWN = ("_reconstruct", "ndarray", "dtype", "scalar")

    def __call__(self, *arguments):
        if self == "dtype":
            return _Dtype(*arguments)
        if self == "_reconstruct":
            return _Array()
        if self == "scalar":  # the NaN in place of a pool's bias
            return None
        raise ValueError(f"a call of {self}")


class _Dtype:
    """Stand in for numpy.dtype: store a float width and a byte order, refuse everything else."""

    def __init__(self, code, *_):
        if code not in ("f4", "f8"):
            name = printable(code, 30) if isinstance(code, str) else type(code).__name__
            raise ValueError(f"an array of dtype {name}; only f4 and f8 are admitted")
        self.code = code

    def build(self, state):
        order = state[1]
        if order not in ("<", ">") or any(part is not None for part in state[2:5]):
            raise ValueError("a dtype with fields, or without a byte order")
        self.code = order + self.code[-2:]


class _Array:
    """Stand in for numpy.ndarray: store shape, dtype and bytes until the whole file is read."""

    data = None

    def build(self, state):
        _, self.shape, self.dtype, self.fortran, self.data = state

    def numpy(self) -> np.ndarray:
        if not isinstance(self.data, bytes) or not isinstance(self.dtype, _Dtype):
            raise ValueError("an array without bytes of floats")
        flat = np.frombuffer(self.data, self.dtype.code)
        sizes = self.shape if isinstance(self.shape, tuple) else (None,)
        if not (len(sizes) <= 4 and all(type(size) is int and 0 < size <= len(flat) for size in sizes)):
            raise ValueError(f"an array of {len(flat)} floats whose shape does not fit")
        with np.errstate(all="ignore"):  # overflow gives inf, which `read_layers` refuses
            return flat.reshape(sizes, order="F" if self.fortran else "C").astype(np.float32)


# Operations that push the number, string or bytes that follow them; operations that push a new value.
_CONSTANTS = frozenset(
    "NONE BININT BININT1 BININT2 LONG1 BINFLOAT BINBYTES SHORT_BINBYTES BINBYTES8 BINUNICODE SHORT_BINUNICODE".split()
)
_NEW: dict[str, Callable[[], object]] = {
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}


def _name(module: object, name: object) -> _Name:
    """Return the stand-in for a name of numpy; refuse every other name."""
    if not (isinstance(module, str) and isinstance(name, str)):  # str() of it might take for ever
        raise ValueError("a name that is not a string")
    if module not in _Name.MODULES or name not in _Name.KNOWN:
        raise ValueError(f"the name {module}.{name}, which has no place in a network of float arrays")
    return _Name(name)


def _unpickle(content: bytes):
    """Return the content of a pickle of lists, tuples, numbers, strings, bytes and float arrays.

    It uses no unpickler, but a small stack machine without any operation that imports, calls or hashes foreign objects.

    Raises:
        ValueError: another operation, another name, or too many operations.
    """
    stack: list = []
    marks: list[int] = []
    memo: dict = {}
    value: Any  # what follows an operation in the file

    def pop(count: int | None = None) -> list:
        """Pop the topmost `count` values, or all values down to the last mark."""
        start = marks.pop() if count is None else len(stack) - count
        if start < (marks[-1] if marks else 0):
            raise ValueError("more values taken than there are")
        values = stack[start:]
        del stack[start:]
        return values

    for step, (operation, value, _) in enumerate(pickletools.genops(content)):
        if step >= MOST_OPERATIONS:
            raise ValueError(f"more than {MOST_OPERATIONS} operations")
        match operation.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return pop(1)[0]
            case "MARK":
                marks.append(len(stack))
            case constant if constant in _CONSTANTS:
                stack.append(value)
            case empty if empty in _NEW:
                stack.append(_NEW[empty]())
            case "TUPLE":
                stack.append(tuple(pop()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(pop(int(operation.name[-1]))))
            case "APPEND" | "APPENDS":
                values = pop(1 if operation.name == "APPEND" else None)
                if not stack or type(stack[-1]) is not list:
                    raise ValueError("an append to something that is not a list")
                stack[-1] += values
            case "GLOBAL" | "STACK_GLOBAL":
                stack.append(_name(*(value.split(" ", 1) if operation.name == "GLOBAL" else pop(2))))
            case "REDUCE":
                function, arguments = pop(2)
                if not isinstance(function, _Name) or not isinstance(arguments, tuple):
                    raise ValueError("a call of something that is not a name")
                stack.append(function(*arguments))
            case "BUILD":
                thing, state = pop(2)
                if not isinstance(thing, (_Array, _Dtype)) or not isinstance(state, tuple):
                    raise ValueError("a state for something that is not an array")
                thing.build(state)
                stack.append(thing)
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                memo[len(memo) if value is None else value] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[value])
            case "BINPERSID" | "PERSID":
                raise ValueError("a reference to an object outside the file")
            case other:
                raise ValueError(f"the operation {other}, which has no place in a network of float arrays")


def read_layers(path: str | os.PathLike) -> list[tuple[np.ndarray, ...]]:
    """Return the arrays of a released file, layer by layer, without the pools.

    Returns:
        Pairs (W, b), W float32 (height, width, in, out) and b (out,); the last element is the one-element tuple
        (W (1, 1, K, classes),).

    Raises:
        FileNotFoundError: there is no such file.
        ReleasedNetworkError: the file is too large, truncated or corrupt, or contains anything but finite float arrays.
    """
    try:
        layers = _unpickle(read_bytes(path, LARGEST_FILE))
        if not isinstance(layers, list) or not all(isinstance(layer, tuple) for layer in layers):
            raise ValueError("no list of layers")
        layers = [[part for part in layer if isinstance(part, _Array)] for layer in layers]
        # A pickle can refer to one array many times, so that a small file could fill the memory.
        if sum(len(array.data or b"") for layer in layers for array in layer) > LARGEST_FILE:
            raise ValueError("the same bytes many times over")
        arrays = [tuple(array.numpy() for array in layer) for layer in layers]
        arrays = [layer for layer in arrays if layer and not np.isnan(layer[0]).all()]  # a pool is an array of NaN
        if not all(np.isfinite(array).all() for layer in arrays for array in layer):
            raise ValueError("weights that are NaN or infinite")
    except OSError:
        raise
    except Exception as error:  # a hostile file can raise anything, and a stack trace would not help
        raise ReleasedNetworkError(
            f"{path} is not a released network: it holds {printable(error, 600)}. Expected a pickled list of float "
            "arrays as published by the authors; fetch the file again. Nothing in it was executed."
        ) from None
    return arrays
