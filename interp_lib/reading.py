"""Read files that others wrote: up to a size limit, without trusting their content, with safe error messages.

Every reader of the package uses these functions, and adds its own sentence on what to do.
"""

import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import yaml

LARGEST_YAML = 2**16  # bytes; the project's own files have less than 2,000
_SHOWN = 1000  # most characters of a message


def printable(text: object, most: int = _SHOWN) -> str:
    """Return text that is safe to print: control characters are escaped, and the middle of a long text is left out."""
    text = str(text)
    if len(text) > most:
        text = f"{text[: 2 * most // 3]} ... {text[-most // 3 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class FileError(ValueError):
    """A file is not what it should be. The message is made `printable`, whatever the file's content or name."""

    def __init__(self, message: object = ""):
        super().__init__(printable(message))


@contextmanager
def opened(path: str | os.PathLike, largest: int) -> Iterator[BinaryIO]:
    """Open a regular file of at most `largest` bytes for reading.

    Raises:
        OSError: see `open`.
        FileError: a folder, pipe, socket or device, on which a reader might wait for ever; or a larger file.
    """
    # O_NONBLOCK: opening a pipe that nobody writes to would wait. O_BINARY exists on Windows only.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"it is {'a folder' if stat.S_ISDIR(status.st_mode) else 'a pipe or a device'}, not a file")
        if status.st_size > largest:
            raise FileError(f"it has {_size(status.st_size)} where at most {_size(largest)} are expected")
        with open(handle, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(handle)


def read_bytes(path: str | os.PathLike, largest: int) -> bytes:
    """Read a regular file of at most `largest` bytes; see `opened`."""
    with opened(path, largest) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(size + 1)
    if len(content) > size:  # it is growing, or reports a size of 0, as files in /proc do
        raise FileError("it has more bytes than its size says")
    return content


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count:,} bytes"


def read_json(path: str | os.PathLike, largest: int):
    """Read a JSON file in UTF-8 whose numbers are finite; see `read_bytes`.

    Raises:
        OSError: see `open`.
        ValueError: not JSON, a NaN or an infinity, or nested too deep.
    """

    # Python's json accepts NaN and Infinity, which are not JSON, and turns 1e999 into infinity.
    def finite(text: str) -> float:
        if not math.isfinite(number := float(text)):
            raise FileError(f"it holds {printable(text, 30)}, which is not a finite number")
        return number

    try:
        return json.loads(read_bytes(path, largest).decode("utf-8"), parse_float=finite, parse_constant=finite)
    except RecursionError:
        raise FileError("it is nested too deep") from None


class _PlainLoader(yaml.SafeLoader):
    """A SafeLoader that refuses repeated keys, and aliases, a few lines of which can stand for billions of entries."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise FileError(f"it holds the alias *{printable(self.peek_event().anchor, 30)}; write the value again")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        mapping = super().construct_mapping(node, deep)  # of a repeated key PyYAML silently keeps the last value
        if len(mapping) < len(node.value):
            raise FileError("it holds a key twice")
        return mapping


def read_yaml(path: str | os.PathLike):
    """Read a YAML file of scalars, lists and dictionaries in UTF-8, without aliases; see `read_bytes`.

    Raises:
        OSError: see `open`.
        FileError: not such a file; the message names it.
    """
    try:
        return yaml.load(read_bytes(path, LARGEST_YAML).decode("utf-8"), _PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise FileError(f"{Path(path).parent.name}/{Path(path).name} is not YAML of plain values: {reason}.") from None
