"""Compile `ascent.cpp`, which includes `trunk.cpp`, at first use; cache the library, or say why there is none.

Compiling is optional: without a compiler PyTorch computes the same functions, with the same result up to rounding, in
1.9 to 2.8 times the time of an inner step. `status` says which of the two is in use.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from ..places import cache

SWITCH = "INTERP_COMPILED"  # 0: compute everything with PyTorch
PATIENCE = 120  # seconds to wait for the compiler, or for another process that compiles the same library
SOURCES = ("ascent.cpp", "trunk.cpp")  # the first includes the second
# PyTorch's CPU capability -> level of the x86-64 instruction set, so that ATEN_CPU_CAPABILITY limits this code as well.
LEVELS = {"AVX512": "x86-64-v4", "AVX2": "x86-64-v3", "DEFAULT": "x86-64-v2"}


class _Network(ctypes.Structure):  # must agree with Network in trunk.cpp
    _fields_ = [
        *(
            (name, ctypes.c_int)
            for name in "height width colours size1 stride1 top1 left1 rows1 columns1 "
            "size2 stride2 top2 left2 rows2 columns2".split()
        ),
        *((name, ctypes.c_void_p) for name in "w1 b1 w2 b2 w1t w2t".split()),
    ]


class _Head(ctypes.Structure):  # must agree with Head in ascent.cpp
    _fields_ = [
        *((name, ctypes.c_int) for name in "classes size top left".split()),
        *((name, ctypes.c_void_p) for name in "matrix offset kernel kernel_t shift bias".split()),
    ]


class _Objective(ctypes.Structure):  # must agree with Objective in ascent.cpp
    _fields_ = [
        ("kind", ctypes.c_int),
        ("points", ctypes.c_int),
        ("cross_entropy", ctypes.c_float),
        ("weight", ctypes.c_float),
        ("y", ctypes.c_void_p),
        ("reference", ctypes.c_void_p),
        ("shares", ctypes.c_void_p),
        ("gamma", ctypes.c_void_p),
        ("tau", ctypes.c_float),
        ("power", ctypes.c_int),
        ("squared", ctypes.c_int),
    ]


class CannotCompile(RuntimeError):
    """There is no compiler, or it failed; the message says which."""


def compiler() -> list[str]:
    """Return the command of the C++ compiler as a list of words: the variable CXX, else c++, g++ or clang++.

    Raises:
        CannotCompile: none of them is installed.
    """
    for words in (shlex.split(os.environ.get("CXX", "")), ["c++"], ["g++"], ["clang++"]):
        if words and shutil.which(words[0]):
            return words
    raise CannotCompile("no C++ compiler: none of CXX, c++, g++ and clang++ is there")


def flags() -> list[str]:
    """Choose the compiler's options for this CPU, or for the smaller instruction set in ATEN_CPU_CAPABILITY."""
    level = LEVELS.get(torch.backends.cpu.get_cpu_capability())
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return ["-O3", "-std=c++17", "-shared", "-fPIC", *([f"-march={level}"] if is_x86 and level else [])]


def _run(command: list[str]) -> str:
    """Run a compiler and return its output; when it fails, raise CannotCompile with its first error message."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotCompile(f"{command[0]} could not be run: {error}") from None
    if done.returncode:
        messages = [line for line in done.stderr.splitlines() if "error" in line.lower()] or done.stderr.splitlines()
        raise CannotCompile(f"{command[0]} failed: {messages[0][:200] if messages else f'exit {done.returncode}'}")
    return done.stdout


def build() -> Path:
    """Compile `ascent.cpp`, unless the cache has the library already, and return the library's path.

    The file name contains a hash of the sources, the options and the compiler. Processes that need the same library at
    the same time wait for the first to compile it. If the cache folder is not writable, every process compiles its own.

    Raises:
        CannotCompile: there is no compiler, it fails, or it takes longer than `PATIENCE` seconds.
    """
    command, options = compiler(), flags()
    folder = resources.files(__package__)
    sources = {name: folder.joinpath(name).read_bytes() for name in SOURCES}
    version = _run([*command, "--version"])
    made_from = [*sources.values(), repr((command, options, version, platform.machine())).encode()]
    name = f"ascent-{hashlib.sha256(b''.join(made_from)).hexdigest()[:16]}.so"
    folder = cache()
    if (folder / name).is_file():
        return folder / name
    try:
        # 0o700, because the library is loaded as code: other users must not be able to replace it.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(folder / ".lock", timeout=PATIENCE):
            if not (folder / name).is_file():
                _compile(command, options, sources, folder / name)
        return folder / name
    except Timeout:
        raise CannotCompile(f"another process has been compiling in {folder} for {PATIENCE} s") from None
    except OSError:  # read-only, full, or no folder at all
        own = Path(tempfile.mkdtemp(prefix="interp-lib-"))
        _compile(command, options, sources, own / name)
        _dispose.append(own)
        return own / name


_dispose: list[Path] = []  # temporary folders to delete once the library is loaded


def _compile(command: list[str], options: list[str], sources: dict[str, bytes], library: Path) -> None:
    if sys.stderr.isatty():
        print("compiling the attacks for this processor, once: some ten seconds", file=sys.stderr, flush=True)
    # A folder beside the library is on the same file system, so that os.replace is atomic.
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".compiling-") as place:
        path, out = Path(place, SOURCES[0]), Path(place, library.name)
        for name, source in sources.items():
            Path(place, name).write_bytes(source)
        try:
            _run([*command, *options, "-fopenmp", str(path), "-o", str(out)])
        except CannotCompile:  # without OpenMP the library runs in one thread
            _run([*command, *options, str(path), "-o", str(out)])
        os.replace(out, library)


@functools.cache
def _load() -> ctypes.CDLL | str:
    """Return the loaded library, or the reason why there is none."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0"
    try:
        library = ctypes.CDLL(str(build()))
    except (CannotCompile, OSError) as error:
        return str(error)
    finally:
        while _dispose:
            shutil.rmtree(_dispose.pop(), ignore_errors=True)
    return library


def library() -> ctypes.CDLL | None:
    """Return the compiled functions, or None where PyTorch computes everything."""
    loaded = _load()
    return None if isinstance(loaded, str) else loaded


def status() -> str:
    """Say how Small is computed on this CPU: compiled, with the register width, or by PyTorch, with the reason."""
    loaded = _load()
    if isinstance(loaded, str):
        return f"PyTorch ({loaded})"
    return f"compiled, {loaded.lanes()} numbers a register"
