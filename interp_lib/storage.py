"""Atomic writing of files, and the provenance of measurements."""

import errno
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

from filelock import FileLock, Timeout

_TEMPORARY = ".part"

_PATIENCE = 60  # seconds to wait for another process to write, which takes a fraction of a second


@cache
def commit(*also: str) -> str | None:
    """Return the checkout's commit at the first call, with `-dirty` if this package's tracked files differ from it.

    Return None without git, or if the package is not in a checkout. The result is cached, and a long run calls this
    before it begins: a commit made meanwhile is not the code that runs.

    Args:
        also: more of the checkout that must not differ, as git's pathspecs, such as ':(top)book'.
    """

    def git(*command: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *command], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)

    try:
        if git("ls-files", "--error-unmatch", Path(__file__).name).returncode:
            return None  # an installed copy inside somebody else's checkout
        head = git("rev-parse", "--short=12", "HEAD").stdout.strip()
        return head and head + ("-dirty" if git("diff", "--quiet", "HEAD", "--", ".", *also).returncode else "")
    except OSError:  # no git
        return None


def provenance(seconds: float, device: str = "cpu", *, before: dict | None = None) -> dict:
    """Return commit, versions, device, seconds and date of a measurement; see `commit`.

    Args:
        seconds: duration of the measurement.
        device: device that it ran on, 'cpu' or 'cuda...'.
        before: the provenance of the record that this measurement extends. It is kept in the list `earlier`, unless
            it differs in `seconds` only.
    """
    torch = sys.modules.get("torch")  # whoever has computed nothing does not wait for it
    processor = torch.cuda.get_device_name(device) if torch and device.startswith("cuda") else platform.machine()
    now = {
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__ if torch else metadata.version("torch"),
            "numpy": metadata.version("numpy"),
        },
        "device": f"{processor}, {torch.get_num_threads()} threads" if torch and device == "cpu" else processor,
        "seconds": round(seconds, 1),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    before = dict(before or {})
    earlier = before.pop("earlier", [])
    if before and {**before, "seconds": now["seconds"]} != now:
        earlier = [*earlier, before]
    return {**now, "earlier": earlier} if earlier else now


def ready_folder(folder: str | os.PathLike) -> Path:
    """Make a folder if it is missing and check that it is writable; called before a long run, not after it.

    Raises:
        OSError: the folder cannot be made or written to; names the folder.
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
    """Lock a folder against other processes, so that what was read in it stays true until it is written again.

    The lock is the file `.lock` in the folder, which is not deleted; a process that is killed releases its lock.

    Raises:
        OSError: the folder cannot be written to, or another process has held the lock for a minute; names the folder.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.resolve() / ".lock", timeout=_PATIENCE, is_singleton=True)  # may be nested
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
    """Write a file completely or not at all: to a temporary file beside it, flushed to disk and then renamed.

    Temporary files that killed processes have left in the folder are removed.

    Raises:
        OSError: the disk is full or the folder read-only; names the file. An earlier file stays as it was.
    """
    path, temporary = Path(path), None
    try:
        with locked(path.parent):
            for left in path.parent.glob(f".*{_TEMPORARY}"):  # left by killed processes: the lock excludes live ones
                with suppress(OSError):
                    left.unlink()
            handle, temporary = tempfile.mkstemp(_TEMPORARY, f".{path.name}.", path.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
            os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(
                error.errno, f"could not write {path}: {error.strerror}; the earlier file is untouched"
            ) from None
        raise
