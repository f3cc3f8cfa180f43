"""Files that are written whole or not at all, and where a number comes from."""

import errno
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

_TEMPORARY = ".part"

_PATIENCE = 60  # seconds that a process waits for another one's writing, which takes a fraction of one


@cache
def commit() -> str | None:
    """The checkout's commit when first asked, with `-dirty` where this package's files differ from it.

    None without git, and where the package is in no checkout. Long runs ask before they begin: what is committed
    meanwhile is not what they run.
    """

    def git(*command: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *command], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)

    try:
        if git("ls-files", "--error-unmatch", Path(__file__).name).returncode:
            return None  # an installed copy inside somebody else's checkout
        head = git("rev-parse", "--short=12", "HEAD").stdout.strip()
        return head and head + ("-dirty" if git("diff", "--quiet", "HEAD", "--", ".").returncode else "")
    except OSError:  # no git
        return None


def provenance(seconds: float, device: str = "cpu", *, before: dict | None = None) -> dict:
    """Commit, versions, processor, seconds and date of a measurement; see `commit`.

    Args:
        before: the provenance of a record that is gone on with; it is kept in the list `earlier`.
    """
    import numpy
    import torch

    processor = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    now = {
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
        },
        "device": f"{processor}, {torch.get_num_threads()} threads" if device == "cpu" else processor,
        "seconds": round(seconds, 1),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    before = dict(before or {})
    earlier = before.pop("earlier", [])
    if before and {**before, "seconds": now["seconds"]} != now:
        earlier = [*earlier, before]
    return {**now, "earlier": earlier} if earlier else now


def ready_folder(folder: str | os.PathLike) -> Path:
    """A folder that can be written to, made where it is missing; asked before a long run and not after it.

    Raises:
        OSError: naming the folder, when it cannot be made or written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise OSError(error.errno, f"{folder} must be a folder that can be written to: {error.strerror}") from None
    return folder


@contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Keeps every other process from writing to a folder; what was read of it stays true until it is written again.

    The lock is the file `.lock` in it, which stays; a process that is killed gives it back.

    Raises:
        OSError: naming the folder, when it cannot be written to, or when another process has held it for a minute.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.resolve() / ".lock", timeout=_PATIENCE, is_singleton=True)  # one that may be nested
        lock.acquire(poll_interval=0.01)
    except Timeout:
        raise OSError(
            errno.EAGAIN, f"another process has held {folder} for {_PATIENCE} seconds; end it and start again"
        ) from None
    try:
        yield
    finally:
        lock.release()


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Writes a whole file or none: to a temporary file beside it, flushed to disk, then renamed over it.

    Temporary files that killed processes have left in the folder are removed.

    Raises:
        OSError: naming the file, when the disk is full or the folder read-only; what was there before stays.
    """
    path, temporary = Path(path), None
    try:
        with locked(path.parent):
            for left in path.parent.glob(f".*{_TEMPORARY}"):  # of processes that were killed: nobody else writes now
                with suppress(OSError):
                    left.unlink()
            handle, temporary = tempfile.mkstemp(_TEMPORARY, f".{path.name}.", path.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(
                error.errno, f"could not write {path}: {error.strerror}; the earlier file is untouched"
            ) from None
        raise
