"""Compiles `ascent.cpp`, and with it `trunk.cpp`, at first use; keeps the result, and says why where it cannot.

Nothing needs it: without a compiler the same functions are computed by PyTorch, with the same result to rounding and
in 1.2 to 1.8 times the time. `status` says which of the two it is.
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
PATIENCE = 120  # seconds for the compiler, and for another process that compiles the same
# Levels of the x86-64 instruction set, by what PyTorch itself uses: a switch of PyTorch's is one of ours as well.
SOURCES = ("ascent.cpp", "trunk.cpp")  # the first includes the second
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
    ]


class CannotCompile(RuntimeError):
    """There is no compiler, or it failed; the text says which."""


def compiler() -> list[str]:
    """Find the C++ compiler as words of a command line: CXX, else c++, g++ or clang++.

    Raises:
        CannotCompile: none of them is there.
    """
    for words in (shlex.split(os.environ.get("CXX", "")), ["c++"], ["g++"], ["clang++"]):
        if words and shutil.which(words[0]):
            return words
    raise CannotCompile("no C++ compiler: none of CXX, c++, g++ and clang++ is there")


def flags() -> list[str]:
    """Choose the compiler's options for this processor, or for the lesser one that ATEN_CPU_CAPABILITY asks for."""
    level = LEVELS.get(torch.backends.cpu.get_cpu_capability())
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return ["-O3", "-std=c++17", "-shared", "-fPIC", *([f"-march={level}"] if is_x86 and level else [])]


def _run(command: list[str]) -> str:
    """Run a compiler and return what it prints; its first error becomes the reason of a failure."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotCompile(f"{command[0]} could not be run: {error}") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "error" in line.lower()] or done.stderr.splitlines()
        raise CannotCompile(f"{command[0]} failed: {said[0][:200] if said else f'exit {done.returncode}'}")
    return done.stdout


def build() -> Path:
    """Compile `ascent.cpp`, unless that has been done before, and return the library.

    The name of the file says what it was made from: source, options, compiler. Processes that want the same one at
    once wait for the first. In a folder that cannot be written to, it is made anew by every process.

    Raises:
        CannotCompile: no compiler, one that fails, or one that takes longer than `PATIENCE` seconds.
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


_dispose: list[Path] = []  # folders that can go once the library is loaded


def _compile(command: list[str], options: list[str], sources: dict[str, bytes], library: Path) -> None:
    if sys.stderr.isatty():
        print("compiling the attacks for this processor, once: some ten seconds", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".compiling-") as place:
        path, out = Path(place, SOURCES[0]), Path(place, library.name)
        for name, source in sources.items():
            Path(place, name).write_bytes(source)
        try:
            _run([*command, *options, "-fopenmp", str(path), "-o", str(out)])
        except CannotCompile:  # a compiler without OpenMP: one thread then
            _run([*command, *options, str(path), "-o", str(out)])
        os.replace(out, library)


@functools.cache
def _load() -> ctypes.CDLL | str:
    """The library, or why there is none."""
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
    """The compiled functions, or None where PyTorch has to do."""
    loaded = _load()
    return None if isinstance(loaded, str) else loaded


def status() -> str:
    """Say how Small is computed on this processor: compiled, with how wide registers, or by PyTorch and why."""
    loaded = _load()
    if isinstance(loaded, str):
        return f"PyTorch ({loaded})"
    return f"compiled, {loaded.lanes()} numbers a register"
