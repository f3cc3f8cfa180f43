"""Where commands work: any folder, any name of a folder, a wheel without a clone, a full disk, a closed output."""

import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from conftest import ROOT

from interp_lib import __main__ as cli
from interp_lib import commands, places
from interp_lib.models import names
from interp_lib.pages import chapters, profiles

FULL = Path("/dev/full")


def environment(**changes):
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONUNBUFFERED", *places.VARIABLES)}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


def shell(line, cwd, **changes):
    return subprocess.run(
        ["bash", "-c", line],
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


PYTHON = f"'{sys.executable}' -m interp_lib"


# Standard output


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    "line, status, said",
    [
        ("compare --csv --results-dir . > /dev/full", 1, "error: could not write to standard output: No space left on"),
        ("measure table9 > /dev/full", 2, "error: unknown table 'table9'"),
        ("compare --csv --results-dir . >&-", 0, ""),
        ("measure table9 >&- 2>&-", 2, ""),
        ("compare --csv --results-dir . | true", 0, ""),
    ],
)
def test_a_full_or_closed_output_ends_quietly(line, status, said, unbuffered, tmp_path):
    done = shell(f"set -o pipefail; {PYTHON} {line}", tmp_path, **unbuffered)
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith(said) and done.stderr.count("\n") == bool(said)


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_an_error_without_a_number_is_not_taken_for_that_of_a_full_output(monkeypatch, capsys):
    def fails(args):
        raise OSError("the cable is unplugged")

    monkeypatch.setattr(commands, "run_compare", fails)
    with FULL.open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.main(["compare"]) == 1
    assert capsys.readouterr().err == "error: the cable is unplugged\n"


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_full_disk_names_the_file_of_a_chapter(tmp_path, monkeypatch):
    for folder in ("book", "profiles", "_build/failed"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    shutil.copy(ROOT / "book/12_appendix_b.ipynb", tmp_path / "book")
    (tmp_path / "_build/failed/12_appendix_b.ipynb").symlink_to(FULL)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="could not write .*_build/failed/12_appendix_b.ipynb: No space left on device"):
        chapters.execute("12_appendix_b", {})


# One root


def test_a_clone_is_found_from_every_folder_in_it_and_variables_become_absolute(tmp_path, monkeypatch):
    for folder in ("clone/profiles", "clone/book", "home/x"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "clone/pyproject.toml").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("INTERP_DATA", "../data")
    monkeypatch.setenv("INTERP_RELEASED", "~/x")
    monkeypatch.chdir(tmp_path / "clone/book")
    assert places.home() == tmp_path / "clone"
    places.settle()
    assert Path(os.environ["INTERP_DATA"]).resolve() == tmp_path / "clone/data"
    assert os.environ["INTERP_RELEASED"] == str(tmp_path / "home/x")
    assert places.shown("a") == "a" and places.shown(tmp_path / "b") == str(tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(places, "__file__", str(tmp_path / "site-packages/interp_lib/places.py"))
    assert places.home() == tmp_path
    with pytest.raises(FileNotFoundError, match="not in a clone of this project, which chapter, pages, book"):
        places.project_root()


@pytest.mark.parametrize(
    "arguments", [["--method", "../../evil/x"], ["--schedule", "../evil"], ["--model", "evil"], ["--precision", "f16"]]
)
def test_what_cannot_be_trained_leaves_no_folder(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--out", "made/nets", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and arguments[1] in said
    assert list(tmp_path.iterdir()) == [] and not list(tmp_path.parent.rglob("evil*"))


@pytest.mark.parametrize("method, seed, gamma", [("../x", 0, 0.1), ("a/b", 0, 0.1), ("Int", -1, 0.1), ("Int", 0, -1.0)])
def test_a_network_has_a_name_that_is_a_file_name(method, seed, gamma):
    with pytest.raises(ValueError, match="must be"):
        names.NetworkName("digits", "small", method, seed, "digits", gamma)


# Grids


@pytest.mark.parametrize(
    "config, slugs",
    [
        ({"method": "Int", "seed": 3}, ["mnist-small-int-s3-quick"]),
        ({"method": "int,adv", "seeds": 1}, ["mnist-small-int-s0-quick", "mnist-small-adv-s0-quick"]),
        ({"method": "Adv", "seed": "1,4"}, ["mnist-small-adv-s1-quick", "mnist-small-adv-s4-quick"]),
        (
            {"method": "Int,Adv", "gamma": 0.03},
            ["mnist-small-int-s0-quick-g0.03", "mnist-small-adv-s0-quick"],
        ),
        (
            {"methods": "Int", "gammas": "0.03", "dataset": "digits", "schedule": "digits"},
            ["digits-small-int-s0-digits", "digits-small-int-s0-digits-g0.03"],
        ),
        # Snakemake reads `seeds=` and `gammas=` as None.
        ({"methods": "Int", "seeds": None, "gammas": None}, ["mnist-small-int-s0-quick"]),
    ],
)
def test_a_grid_understands_its_own_names_and_the_command_lines(config, slugs):
    assert [name.slug for name in profiles.grid(config)] == slugs


@pytest.mark.parametrize(
    "config, words",
    [
        ({"metod": "Int"}, "no key metod; a grid takes dataset"),
        ({"seed": 3, "seeds": 3}, "seed .a list. or seeds, not both"),
        ({"method": "Intt"}, "unknown method 'Intt'"),
        ({"seed": "x"}, "seed must be whole numbers"),
        ({"dataset": "mnisst"}, "dataset must be one of"),
        ({"schedule": "slow"}, "unknown schedule 'slow'"),
        ({"seed": -1}, "seed must be a whole number in"),
    ],
)
def test_a_grid_refuses_what_it_does_not_know(config, words):
    with pytest.raises(ValueError, match=words):
        profiles.grid(config)


# Measuring again


def measuring(tmp_path, seconds):
    """A process that waits for a measurement which takes some seconds; it prints the measurement's process id."""
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import os, sys, threading, time\nfrom interp_lib.commands import end_with_stdin\n"
        f"open(r'{tmp_path / 'pid'}', 'w').write(str(os.getpid()))\n"
        "threading.Thread(target=end_with_stdin, daemon=True).start()\n"
        f"time.sleep({seconds})\n"
    )
    parent = (
        "import sys; from pathlib import Path; from interp_lib.pages import recompute\n"
        f"recompute.TOLD_EVERY = 0.2\nhere = Path(r'{tmp_path}')\n"
        "print(recompute.run_watched([sys.executable, str(here / 'worker.py')], here, 'table3', here / 'none'))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", parent], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_measurement_says_how_far_it_is(tmp_path):
    out, err = measuring(tmp_path, 1).communicate(timeout=240)
    assert out == "(0, '')\n"
    assert err.startswith("measuring table3 again") and re.search(r"^measuring table3: 0.0 minutes, 0 rows$", err, re.M)


def test_a_measurement_ends_with_the_page_that_asked_for_it(tmp_path):
    process = measuring(tmp_path, 600)
    deadline = time.monotonic() + 240
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pid = int((tmp_path / "pid").read_text())
    process.kill()
    process.communicate()
    while Path(f"/proc/{pid}").exists() and "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline, "the measurement outlives its page"
        time.sleep(0.05)


@pytest.mark.parametrize("given, limit", [({}, 600), ({"recompute": "no"}, 600), ({"recompute": "yes"}, None)])
def test_a_page_that_measures_again_has_no_time_out(given, limit, monkeypatch):
    import papermill

    class Asked(Exception):
        pass

    def execute(*_, execution_timeout, stderr_file, **__):
        raise Asked(execution_timeout, stderr_file is not None)

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    with pytest.raises(Asked) as caught:
        chapters.execute("03_discrepancy", given)
    assert caught.value.args == (limit, limit is None)
    with pytest.raises(Asked) as caught:
        chapters.execute("03_discrepancy", given, timeout=7)
    assert caught.value.args[0] == 7


# Without a clone


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The package as a wheel holds it, unpacked; and nothing of the clone."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "interp_lib", folder / "source/interp_lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, folder / "source")
    for name in ("profiles", "results"):
        shutil.copytree(ROOT / name, folder / "source" / name)
    build = "import setuptools.build_meta as b; print(b.build_wheel('..'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=folder / "source", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("*.whl")
    zipfile.ZipFile(file).extractall(folder / "unpacked")
    return folder / "unpacked"


def test_a_wheel_carries_what_a_downloaded_notebook_reads(wheel, tmp_path):
    (data,) = wheel.glob("*.data/data")
    for name in ("profiles", "results", "results/paper", "results/quick"):
        files = filter(Path.is_file, (data / "share/interp_lib" / name).iterdir())
        copies = {path.name: path.read_bytes() for path in files}
        assert copies == {p.name: p.read_bytes() for p in (ROOT / name).glob("*.*") if p.suffix in (".yml", ".json")}
    code = (
        f"import sysconfig; sysconfig.get_path = lambda name: {str(data)!r} if name == 'data' else 1 / 0\n"
        "from interp_lib.pages import profiles, recompute\n"
        "print(profiles.load('digits').schedule, len(recompute.records_for(False)))"
    )
    done = shell(f'{sys.executable} -c "{code}"', tmp_path, PYTHONPATH=str(wheel))
    assert done.stdout.split() == ["digits", str(len(list((ROOT / "results").glob("*.json"))))], done.stderr


def test_a_wheel_does_all_that_needs_no_clone(wheel, tmp_path):
    assert "interp-lib = interp_lib.__main__:main" in next(wheel.glob("*.dist-info/entry_points.txt")).read_text()
    run = lambda line: shell(f"{PYTHON} {line}", tmp_path, PYTHONPATH=str(wheel))
    done = run("compare --results-dir . --csv")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 744, done.stderr
    assert "known are digits, lesson, paper, quick" in run("train --schedule slow").stderr
    for line in ("chapter all", "train --profile digits"):
        done = run(line)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert f"not in a clone of this project, which {places.NEED_A_CLONE} need" in done.stderr


def test_a_wheel_says_what_it_is_and_what_its_extras_need(wheel):
    about = metadata.Distribution.at(next(wheel.glob("*.dist-info"))).metadata
    assert about["Description-Content-Type"] == "text/markdown"
    assert about.get_payload().strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    assert about["Project-URL"] == "Paper, https://arxiv.org/abs/2006.14748"
    needs = {
        re.sub("[<>=;].*", "", line).strip(): line.partition("extra == ")[2] for line in about.get_all("Requires-Dist")
    }
    assert needs["torch"] == ""
    assert needs["torchvision"] == '"train"' and needs["papermill"] == '"book"' and needs["pytest"] == '"test"'
    (everything,) = re.findall(r"^-e \.\[(.*)\]$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert set(everything.split(",")) == set(about.get_all("Provides-Extra"))


# Any name of a folder


@pytest.fixture(scope="module")
def odd_clone(tmp_path_factory):
    """A clone in a folder of an awkward name, with one network, one chapter and one page to build."""
    clone = tmp_path_factory.mktemp("odd") / "my papers & it's {x}"
    for name in ("interp_lib", "book/api", "book/static"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "Makefile", "pyproject.toml", "_config.yml", "book/references.bib", "book/references.md"):
        shutil.copy(ROOT / name, clone / name)
    (clone / ".venv").symlink_to(sys.prefix)
    (clone / "profiles").mkdir()
    profile = (ROOT / "profiles/digits.yml").read_text()
    (clone / "profiles/one.yml").write_text(re.sub("methods: .*", "methods: Normal", profile))
    schedule = clone / "interp_lib/schedules/digits.yml"
    schedule.write_text(re.sub(r"epochs: .*", "epochs: 1", schedule.read_text()))
    (clone / "_toc.yml").write_text("format: jb-book\nroot: book/01\nchapters:\n- file: book/references\n")
    write_chapter(clone / "book/01.ipynb")
    return clone


def write_chapter(path):
    import nbformat
    import nbformat.v4 as nb

    code = [nb.new_code_cell('profile = "digits"\nn = 5', metadata={"tags": ["parameters"]})]
    code.append(nb.new_code_cell('from interp_lib.pages import chapters\nchapters.check(globals(), "profile", "n")'))
    code.append(
        nb.new_code_cell("from interp_lib.pages import profiles\nprofiles.load(profile).load_network('Normal'); n")
    )
    page = nb.new_notebook(cells=[nb.new_markdown_cell("# One {cite:p}`boopathy2020proper`"), *code])
    page.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(page, path)


def test_a_clone_in_a_folder_of_any_name_builds_and_shows_what_it_ran_with(odd_clone):
    book = "make -o .venv/.installed book PROFILE=one"
    done = shell(book, odd_clone, PYTHONPATH=str(odd_clone))
    assert done.returncode == 0, done.stdout + done.stderr
    html = odd_clone / "_build/html/book/01.html"
    assert "This page was run with profile = one." in html.read_text(encoding="utf-8")
    own = odd_clone / "_build/src/book/01.ipynb"
    dry = f"'{sys.executable}' -m snakemake --dry-run --cores 1 --config profile=one"
    done = shell(dry, odd_clone, PYTHONPATH=str(odd_clone))
    assert "Nothing to be done" in done.stdout, done.stdout + done.stderr
    # Run by hand with other parameters, a chapter is out of date for the book.
    done = shell(f"{PYTHON} chapter 01 -p n=3e1 --profile one", odd_clone, PYTHONPATH=str(odd_clone))
    assert done.returncode == 0 and "n = 30" in own.read_text(encoding="utf-8"), done.stdout + done.stderr
    done = shell(dry, odd_clone, PYTHONPATH=str(odd_clone))
    assert "rule chapter:" in done.stdout and "rule pages:" in done.stdout


def test_who_has_no_home_gets_one_in_the_build(tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("HOME", str(own))
    places.writable_home(tmp_path)
    assert os.environ["HOME"] == str(own)
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    places.writable_home(tmp_path)
    assert os.environ["HOME"] == str(tmp_path / "_build/home") and (tmp_path / "_build/home").is_dir()
