"""Measure the records of a chapter again, in another process that ends with this one."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ..places import project_root, shipped
from ..study.records import Record, read_all
from ..study.schedules import read_schedules

TOLD_EVERY = 60  # longest time in seconds between two progress messages of a measurement


class ChapterError(RuntimeError):
    """A chapter did not run to its end; the message names the chapter and the cell."""


def records_for(recompute: bool, *measurements: str, all_schedules: bool = False) -> list[Record]:
    """Return the records that a chapter shows: the committed records, or the result of measuring them again.

    To measure again, this runs `python -m interp_lib measure NAME` and writes to _build/recomputed/. A table's
    measurement skips what is already in that folder: after an interruption it continues, and to repeat it delete the
    folder. Progress is printed to standard error. The measurement stops when this process ends.

    Args:
        recompute: the chapter's parameter of that name.
        measurements: names of the measurements that the chapter shows, as in `measure`: 'table1', 'figure2', ...
        all_schedules: add the records in its subfolders, of networks by other schedules than the others' records.

    Returns:
        All records of results/; with `recompute`, new records replace the committed records of the same measurement.

    Raises:
        ChapterError: a measurement failed; the message quotes its error, such as missing data or released networks.
    """
    committed = (read_schedules if all_schedules else read_all)(shipped("results"))
    if not recompute:
        return committed
    root = project_root()
    folder = root / "_build/recomputed"
    for name in measurements:
        command = [sys.executable, "-m", "interp_lib", "measure", name, "--results-dir", str(folder)]
        status, errors = run_watched(command, root, name, folder)
        if status:
            reason = (errors.strip().splitlines() or ["no reason given"])[-1].removeprefix("error: ")
            raise ChapterError(f"recompute=true needs data and networks, and `measure {name}` said: {reason}")
    again = read_all(folder)
    replaced = {_measures(record) for record in again}
    copies = {record.settings.get("dataset"): record.settings.get("data") for record in again}

    def stays(record: Record) -> bool:
        # Do not mix two copies of a dataset: drop the committed record when the new ones used another copy.
        data = record.settings.get("data")
        other_copy = data is not None and copies.get(record.settings.get("dataset"), data) != data
        return _measures(record) not in replaced and not other_copy

    return [record for record in committed if stays(record)] + again


def run_watched(command: list[str], root: Path, name: str, folder: Path) -> tuple[int, str]:
    """Run a measurement to its end and print its progress to standard error.

    The measurement reads from a pipe to this process. When this process ends, for whatever reason, the pipe closes and
    the measurement stops.

    Args:
        command: `measure` with --results-dir folder.
        root: working directory of the measurement.
        name: name of the measurement, for the messages.
        folder: folder of its records.

    Returns:
        The exit status of the measurement, and the text that it wrote to standard error.
    """
    began, told, rows = time.monotonic(), 0.0, 0
    print(f"measuring {name} again; what is done stays in {folder}", file=sys.stderr, flush=True)
    # A file and not a second pipe: nobody reads a pipe during the run, and the measurement would block once it is full.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [*command, "--until-stdin-closes"],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        assert process.stdin is not None  # a pipe, by the argument
        try:
            while process.poll() is None:
                try:
                    process.wait(min(TOLD_EVERY, 10))
                except subprocess.TimeoutExpired:
                    before, rows = rows, sum(len(record.rows) for record in read_all(folder))
                    now = time.monotonic()
                    if rows != before or now - told >= TOLD_EVERY:
                        told = now
                        line = f"measuring {name}: {(now - began) / 60:.1f} minutes, {rows} rows"
                        print(line, file=sys.stderr, flush=True)
        finally:
            process.stdin.close()
            if process.poll() is None:
                process.terminate()
                process.wait()
        errors.seek(0)
        return process.returncode, errors.read()


def _measures(record: Record) -> str:
    """Return a key for what a record measures; records of two copies of the same data have the same key."""
    settings = {key: value for key, value in record.settings.items() if key not in ("title", "data")}
    return json.dumps([record.family, settings], sort_keys=True)
