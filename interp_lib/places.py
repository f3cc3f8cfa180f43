"""Paths: one root for data, records and networks, whichever folder a command is started in."""

import os
import sysconfig
from pathlib import Path

VARIABLES = ("INTERP_DATA", "INTERP_RELEASED")
# The commands that need files which only a clone of the project has: chapters, profiles, the Snakefile.
NEED_A_CLONE = "chapter, pages, book and laboratory"


def project_root(start: str | os.PathLike = ".") -> Path:
    """Find the clone of this project that contains `start`, else the clone that this package is run from.

    Raises:
        FileNotFoundError: neither is in a clone of this project.
    """
    start = Path(start).resolve()
    for folder in (start, *start.parents, Path(__file__).resolve().parent.parent):
        if (folder / "profiles").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    raise FileNotFoundError(
        f"{start} is not in a clone of this project, which {NEED_A_CLONE} need; clone it and run the command there."
    )


def home() -> Path:
    """Return the folder that contains data/, results/ and networks/: the clone, or the current folder without one."""
    try:
        return project_root()
    except FileNotFoundError:
        return Path.cwd()


def shipped(name: str) -> Path:
    """Return a folder of the clone, 'profiles' or 'results', or without a clone the copy that the wheel installed."""
    try:
        return project_root() / name
    except FileNotFoundError:
        copy = Path(sysconfig.get_path("data")) / "share/interp_lib" / name
        if not copy.is_dir():
            raise
        return copy


def cache() -> Path:
    """Return the folder for compiled code: _build/compiled in the clone, else a folder in the user's cache."""
    try:
        return project_root(Path(__file__).parent) / "_build/compiled"
    except FileNotFoundError:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "interp_lib"


def settle() -> None:
    """Make the paths in `VARIABLES` absolute, with `~` expanded: a chapter runs in another folder than its command."""
    for variable in VARIABLES:
        if folder := os.environ.get(variable):
            os.environ[variable] = str(Path(folder).expanduser().absolute())


def writable_home(root: Path) -> None:
    """Set HOME to _build/home if the user's home is not writable: Snakemake and Jupyter write files there."""
    if not os.access(os.path.expanduser("~"), os.W_OK):
        (root / "_build/home").mkdir(parents=True, exist_ok=True)
        os.environ["HOME"] = str(root / "_build/home")


def shown(path: str | os.PathLike) -> str:
    """Return a path for display: relative if it is below the current folder, else absolute."""
    path = Path(path).absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
