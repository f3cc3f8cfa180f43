"""Records: whole or not at all, named by what decides them, refused by name of file."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from conftest import ROOT, content
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interp_lib import paper, storage
from interp_lib.study import compare, records
from interp_lib.study.records import Record, RecordError

SETTINGS = {
    "measurement": "pgd",
    "dataset": "mnist",
    "model": "small",
    "networks": "released",
    "title": "MNIST",
    "attack": {"alpha": 0.01, "eps": [0, 8 / 255]},
    "n": 200,
}
ROWS = [
    {"method": "Int", "eps": 0.1, "steps": 10, "correct": 198, "n": 200, "accuracy": 0.99, "ε": "é"},
    {"method": "Adv", "eps": 1 / 3, "steps": 10, "correct": 2, "n": 6, "right": "30"},
]


@pytest.fixture
def record():
    return Record("pgd-mnist", dict(SETTINGS), [dict(row) for row in ROWS], {"seconds": 1.5})


def test_round_trip(tmp_path, record):
    path = records.write(record, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / f"{record.name}.json"
    assert records.read(path) == record
    assert os.stat(path).st_mode & 0o777 == 0o644
    assert content(path.parent) == [path.name]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
DICTIONARY = st.dictionaries(st.text().map("_{}".format), JSON, max_size=4)  # no name that says what it holds


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=DICTIONARY, rows=st.lists(DICTIONARY, max_size=4, unique_by=repr), provenance=DICTIONARY)
def test_any_json_comes_back_as_it_was(tmp_path, chosen, rows, provenance):
    written = Record("a-family-of-files", chosen | {"measurement": "new"}, rows, provenance)
    assert records.read(records.write(written, tmp_path)) == written


@given(right=st.lists(st.booleans(), max_size=50))
def test_outcomes_come_back_as_they_were(right):
    digits = records.outcome_digits(right)
    assert len(digits) == -(-len(right) // 4) and records.outcomes_of(digits, len(right)) == right


def test_outcomes_are_four_images_a_digit_the_first_in_the_highest_bit():
    assert records.outcome_digits([False, False, False, True, True]) == "18"


def test_a_row_is_a_line_of_the_file(tmp_path, record):
    lines = records.write(record, tmp_path).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line.strip().rstrip(",")) for line in lines if line.startswith('  {"method"')] == ROWS


def test_the_name_depends_on_settings_and_on_nothing_else(record):
    same = Record(record.family, json.loads(json.dumps(SETTINGS)), [], {"seconds": 9})
    shuffled = Record(record.family, dict(reversed(SETTINGS.items())))
    assert record.name == same.name == shuffled.name
    assert record.name.startswith("pgd-mnist-") and len(record.name) == len("pgd-mnist-") + 8
    for change in ({"n": 199}, {"dataset": "cifar10"}, {"attack": {"alpha": 0.02}}, {"more": None}):
        assert Record(record.family, SETTINGS | change).name != record.name


# Refusals


def refused(path, word=""):
    with pytest.raises(RecordError) as caught:
        records.read(path)
    message = str(caught.value)
    assert str(path) in message and word in message and "measure again" in message
    return message


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_half_written_files_are_refused(tmp_path, record, share):
    path = records.write(record, tmp_path)
    content = path.read_bytes().rstrip()
    path.write_bytes(content[: int(share * len(content))])
    refused(path)


@pytest.mark.parametrize("text", [b"null", b"[]", b"{}", b"3", b'"text"', b'{"schema": 2}', b"\xff\xfe\x00", b"<html>"])
def test_foreign_files_are_refused(tmp_path, text):
    path = tmp_path / "pgd-mnist-12345678.json"
    path.write_bytes(text)
    refused(path)


@pytest.mark.parametrize("key", ["schema", "name", "settings", "provenance", "rows"])
def test_files_without_a_part_are_refused(tmp_path, record, key):
    path = records.write(record, tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    del content[key]
    path.write_text(json.dumps(content), encoding="utf-8")
    refused(path, "schema 1" if key == "schema" else key)


@pytest.mark.parametrize("rows", [None, [1], "abc", {"a": 1}, [[]]])
def test_rows_that_are_no_rows_are_refused(tmp_path, record, rows):
    path = records.write(record, tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"rows": rows}), encoding="utf-8")
    refused(path)


def test_renamed_and_edited_files_are_refused(tmp_path, record):
    path = records.write(record, tmp_path)
    renamed = path.with_name("pgd-cifar10" + path.name[-14:])
    shutil.copy(path, renamed)
    refused(renamed, "disagree")
    renamed = path.with_name("pgd-mnist-00000000.json")
    shutil.copy(path, renamed)
    refused(renamed, "disagree")
    path.write_text(path.read_text(encoding="utf-8").replace('"n": 200', '"n": 1000'), encoding="utf-8")
    refused(path, "disagree")


def test_edited_inner_name_is_refused(tmp_path, record):
    path = records.write(record, tmp_path)
    path.write_text(
        path.read_text(encoding="utf-8").replace(f'"name": "{record.name}"', '"name": "pgd-mnist-00000000"'),
        encoding="utf-8",
    )
    refused(path, "pgd-mnist-00000000")


AAI = {"measurement": "aai"}, {"method": "Int", "interpreter": "CAM", "eps": 0.1, "tau": 0.5, "n": 20}
ISA = (
    {"measurement": "isa"},
    {
        "method": "Normal",
        "interpreter": "CAM",
        "measure": "l2:1-class",
        "nds": 1.0,
        "nsl": 0.1,
        "squared_score": False,
        "n": 20,
    },
)
PGD = {}, ROWS[0]
IMPOSSIBLE = [
    (PGD, {"correct": 999}, "correct 999 of n 200 images"),
    (PGD, {"correct": -1}, "correct must be a whole number from 0; got -1"),
    (PGD, {"correct": 19.5}, "correct must be a whole number"),
    (PGD, {"correct": True}, "correct must be a whole number"),
    (PGD, {"correct": None}, "correct must be a whole number"),
    (PGD, {"n": 0}, "correct 198 of n 0 images"),
    (PGD, {"n": "200"}, "n must be a whole number"),
    (PGD, {"n": 10**400}, "n must be a whole number"),
    (PGD, {"n": ...}, "lacks 'n'"),
    (PGD, {"accuracy": 0.5}, "accuracy 0.5 where 198 of 200 are correct"),
    (PGD, {"accuracy": None}, "accuracy must be a finite number in 0 .. 1; got None"),
    (PGD, {"eps": 5}, "eps must be a finite number in 0 .. 1; got 5"),
    (PGD, {"eps": "0.1"}, "eps must be a finite number"),
    (PGD, {"eps": [0.1]}, "eps must be a finite number"),
    (PGD, {"eps": ...}, "lacks 'eps'"),
    (PGD, {"steps": -1}, "steps must be a whole number"),
    (PGD, {"seed": -1}, "seed must be a whole number"),
    (PGD, {"gamma": -0.1}, "gamma must be a finite number from 0"),
    (PGD, {"method": ["Int"]}, "method must be a word"),
    (PGD, {"method": ...}, "lacks 'method'"),
    (PGD, {"right": "f"}, "right must be 50 hexadecimal digits"),
    (PGD, {"right": 50 * "x"}, "right must be 50 hexadecimal digits"),
    (PGD, {"right": 50 * "f"}, "right marks 200 images where 198 are correct"),
    (AAI, {"tau": 7}, "tau must be a finite number in -1 .. 1; got 7"),
    (AAI, {"tau": float("nan")}, "nan"),
    (AAI, {"tau": None}, "tau is None over n 20 images"),
    (AAI, {"n": 0}, "tau is 0.5 over n 0 images"),
    (AAI, {"tau": [0.5, 0.5]}, "tau must be a finite number"),
    (AAI, {"interpreter": ...}, "lacks 'interpreter'"),
    (ISA, {"nds": float("inf")}, "inf"),
    (ISA, {"nds": 10**400}, "nds must be a finite number"),
    (ISA, {"nsl": None}, "nsl is None over n 20"),
    (ISA, {"measure": 2}, "measure must be a word"),
]


@pytest.mark.parametrize(
    "kind, change, words", IMPOSSIBLE, ids=lambda value: str(value)[:40] if isinstance(value, str) else ""
)
def test_numbers_that_cannot_be_are_refused_in_read_and_in_compare(tmp_path, kind, change, words):
    settings, row = kind
    row = {key: value for key, value in (row | change).items() if value is not ...}
    record = Record("a", SETTINGS | settings, [kind[1] | {"method": "Adv"}, row], {"seconds": 1})
    path = records.write(Record("a", record.settings), tmp_path)
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"rows": record.rows}), encoding="utf-8"
    )  # NaN as Python writes it
    refused(path, "not a finite number" if words in ("nan", "inf") else words)
    with pytest.raises(RecordError, match=f"{record.name}: row 2 .*{words}.*Measure it again"):
        compare.compare([record])


@pytest.mark.parametrize("key", ["measurement", "dataset", "model", "networks", "title"])
def test_settings_without_what_the_tables_need_are_refused(tmp_path, key):
    record = Record("a", {k: v for k, v in SETTINGS.items() if k != key}, [ROWS[0]])
    refused(records.write(record, tmp_path), f"lack '{key}'")
    with pytest.raises(RecordError, match=f"lack '{key}'"):
        compare.compare([record])


def test_a_row_twice_is_refused_whatever_it_says(tmp_path):
    record = Record("a", SETTINGS, [ROWS[0], ROWS[1], ROWS[0] | {"correct": 100, "accuracy": 0.5}])
    refused(records.write(record, tmp_path), "row 3 (method Int, eps 0.1, steps 10): it is there twice")
    with pytest.raises(RecordError, match="twice"):
        compare.compare([record])


@pytest.mark.parametrize("text", [100_000 * b"[", b'{"a": 1e999}', b'{"a": NaN}', b"9" * 5000, b"\0" * 2**25])
def test_json_that_python_would_take_or_choke_on_is_refused(tmp_path, text):
    path = tmp_path / "pgd-mnist-12345678.json"
    path.write_bytes(text)
    refused(path)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    path = tmp_path / "pgd-mnist-12345678.json"
    os.mkfifo(path)
    refused(path, "a pipe or a device, not a file")
    path.unlink()
    path.mkdir()
    refused(path, "a folder, not a file")


def test_messages_carry_no_escapes_and_no_megabytes(tmp_path):
    record = Record("a", SETTINGS | {"title": "\x1b[2J" + 10**6 * "t"}, [ROWS[0] | {"method": 10**6 * "\x1b", "n": 0}])
    for call in (lambda: records.read(records.write(record, tmp_path)), lambda: compare.compare([record])):
        with pytest.raises(RecordError) as caught:
            call()
        assert str(caught.value).isprintable() and len(str(caught.value)) < 1100


def test_missing_files_are_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        records.read(tmp_path / "none.json")


def test_records_of_a_measurement_by_dataset():
    made = [
        Record("a", {"measurement": "strong", "networks": "released", "dataset": "mnist"}),
        Record("b", {"measurement": "strong", "networks": "ours", "dataset": "mnist"}),
        Record("c", {"measurement": "strong", "networks": "released", "dataset": "cifar10"}),
        Record("d", {"measurement": "transfer", "networks": "released", "dataset": "mnist"}),
    ]
    assert records.by_dataset(made, "strong") == {"mnist": made[0], "cifar10": made[2]}
    assert records.by_dataset(made, "strong", "ours") == {"mnist": made[1]}


def test_read_all_is_in_order_and_stops_at_the_first_bad_file(tmp_path):
    written = [Record(family, {"measurement": "new"}) for family in ("b", "a", "c")]
    for one in written:
        records.write(one, tmp_path)
    (tmp_path / "notes.txt").write_text("no record", encoding="utf-8")
    assert [one.family for one in records.read_all(tmp_path)] == ["a", "b", "c"]
    assert records.read_all(tmp_path / "nowhere") == []
    (tmp_path / "b2.json").write_text("{", encoding="utf-8")
    with pytest.raises(RecordError, match="b2.json"):
        records.read_all(tmp_path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["settings", "rows", "provenance"])
def test_what_is_no_number_is_not_written(tmp_path, record, bad, where):
    path = records.write(record, tmp_path)
    earlier = path.read_bytes()
    {"settings": record.settings, "rows": record.rows[0], "provenance": record.provenance}[where]["bad"] = bad
    with pytest.raises(ValueError):
        records.write(record, tmp_path)
    assert content(tmp_path) == [path.name] and path.read_bytes() == earlier


# Atomic writing


def fail(error):
    def function(*_, **__):
        raise error

    return function


class FullDisk:
    """A file of which only the first bytes fit."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        self.file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")


def break_write(monkeypatch):
    real = os.fdopen
    monkeypatch.setattr(os, "fdopen", lambda *args: FullDisk(real(*args)))


FAILURES = {
    "full disk": (break_write, "No space left on device"),
    "flush": (lambda m: m.setattr(os, "fsync", fail(OSError(errno.EIO, "I/O error"))), "I/O error"),
    "rename": (
        lambda m: m.setattr(os, "replace", fail(OSError(errno.EROFS, "Read-only file system"))),
        "Read-only file system",
    ),
    "no temporary file": (
        lambda m: m.setattr("tempfile.mkstemp", fail(OSError(errno.EACCES, "Permission denied"))),
        "Permission denied",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failure):
    path = tmp_path / "record.json"
    storage.write_atomically(path, b"the earlier file")
    breaks, reason = FAILURES[failure]
    breaks(monkeypatch)
    with pytest.raises(OSError) as caught:
        storage.write_atomically(path, 100 * b"the new file")
    monkeypatch.undo()
    assert str(path) in str(caught.value) and reason in str(caught.value)
    assert path.read_bytes() == b"the earlier file"
    assert content(tmp_path) == ["record.json"]
    storage.write_atomically(path, b"the new file")
    assert path.read_bytes() == b"the new file"


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    storage.write_atomically(path, b"the earlier file")
    monkeypatch.setattr(os, "fsync", fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        storage.write_atomically(path, b"the new file")
    assert path.read_bytes() == b"the earlier file"
    assert content(tmp_path) == ["record.json"]


KILLED = """
import os, signal, sys
from interp_lib import storage
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
storage.write_atomically(sys.argv[1] + "/record.json", b"half a file")
"""


def test_what_a_killed_write_leaves_the_next_one_removes(tmp_path):
    """Of its own file or of another one in the folder; and the lock is free."""
    (tmp_path / ".hidden.json").write_bytes(b"somebody else's")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert len(content(tmp_path)) == 2 and not (tmp_path / "record.json").exists()
    storage.write_atomically(tmp_path / "other.json", b"")
    assert content(tmp_path) == [".hidden.json", "other.json"]


def test_a_lock_that_is_never_given_back_is_an_error_that_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_PATIENCE", 0.1)
    free = threading.Event()

    def hold():
        with storage.locked(tmp_path):
            held.set()
            free.wait(60)

    held = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    with pytest.raises(OSError, match=f"could not write {tmp_path}/a: another process has held {tmp_path}"):
        storage.write_atomically(tmp_path / "a", b"")
    free.set()
    thread.join(60)
    with storage.locked(tmp_path):
        assert storage.write_atomically(tmp_path / "a", b"") is None


def test_the_file_is_on_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    order = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: order.append("sync") or real_sync(handle))
    monkeypatch.setattr(os, "replace", lambda *paths: order.append("replace") or real_replace(*paths))
    storage.write_atomically(tmp_path / "a", b"")
    assert order == ["sync", "replace"]


def test_a_folder_in_the_place_of_a_folder_is_an_error_that_names_it(tmp_path):
    (tmp_path / "results").write_text("a file", encoding="utf-8")
    with pytest.raises(OSError, match="results"):
        records.write(Record("a", {}), tmp_path / "results")


# Provenance, and what is committed


def test_provenance_says_where_a_number_comes_from(monkeypatch, tmp_path):
    found = storage.provenance(12.345)
    assert set(found) == {"commit", "versions", "device", "seconds", "date"}
    assert found["seconds"] == 12.3 and set(found["versions"]) == {"python", "torch", "numpy"}
    json.dumps(found, allow_nan=False)
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    assert storage.provenance(1)["commit"] == found["commit"]  # as at first, whatever is committed meanwhile
    storage.commit.cache_clear()
    assert storage.provenance(1)["commit"] is None
    storage.commit.cache_clear()


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.json")), ids=lambda p: p.stem)
def test_committed_records_read(path):
    record = records.read(path)
    assert record.rows and record.provenance["versions"]
    for row in record.rows:
        if {"correct", "n", "accuracy"} <= set(row):
            assert row["accuracy"] == row["correct"] / row["n"]


def test_the_papers_tables_are_complete():
    rows = paper.paper_tables()
    assert len(rows) == 743
    tables = {row["table"] for row in rows}
    assert tables == {"1", "2", "3", "4", "5", "A1", "A2", "A3", "A4", "A5"}
    keys = [tuple(row[k] for k in row if k != "value") for row in rows]
    assert len(set(keys)) == 743
    assert all(-1 <= float(row["value"]) <= 1 for row in rows if row["table"] != "1")
