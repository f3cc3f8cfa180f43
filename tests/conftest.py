"""What several test files share: small networks, the authors' networks, the original MNIST."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import configuration, settings

from interp_lib import data, models
from interp_lib.models import released
from interp_lib.study.compare import Cell
from interp_lib.study.records import Record

ROOT = Path(__file__).resolve().parent.parent

# Snakemake and matplotlib keep things at home, where tests leave nothing; some users have none.
os.environ["HOME"] = tempfile.mkdtemp(prefix="home-of-tests-")
atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)
for variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "MPLCONFIGDIR"):
    os.environ.pop(variable, None)


# Neither the checkout nor HOME is written to: examples are drawn anew, and what is cached is cached for one run.
settings.register_profile("leaves nothing", database=None)
settings.load_profile("leaves nothing")
configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "interp_lib_hypothesis")


def _folder(variable: str, beside: str) -> Path | None:
    """The folder that a variable names, else one in shared/ beside the checkout, else None."""
    if named := os.environ.get(variable):
        return Path(named).expanduser().resolve()
    found = ROOT.parent / "shared" / beside
    return found if found.is_dir() else None


# Looked up when the tests are collected: a test may change directory and environment.
DATA_FOLDER = _folder("INTERP_DATA", "data")
RELEASED_FOLDER = _folder("INTERP_RELEASED", "released_networks")
RELEASED = released.available(RELEASED_FOLDER) if RELEASED_FOLDER and RELEASED_FOLDER.is_dir() else []


# YAML that a reader of plain values refuses, and a word of the reason; one table for profiles and schedules.
NO_YAML = (
    ("a: [", "expected the node content"),
    ("a: b: c", "mapping values are not allowed"),
    ("a: \x1b[2J", "unacceptable character"),
    ("a: &x 3\nb: *x", "the alias *x"),
    ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "the alias *a"),
    ("a: &x [*x]", "the alias *x"),
    ("a: 1\na: 2", "a key twice"),
    ("a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
    ("? [a]\n: b", "unhashable key"),
    ("a: " + 10**5 * "b", "at most 65,536 bytes are expected"),
    (20_000 * "[", "nested too deep"),
)


def content(folder: Path) -> list[str]:
    """The names in a folder, in order, but for the lock of those who write there."""
    return sorted(path.name for path in Path(folder).iterdir() if path.name != ".lock")


# A cell of the paper's tables, a record and a row of it, made by hand.


def cell(value="0.890", metric="ATA", **measured):
    return Cell("3", "MNIST", "Small", "Adv", metric, "eps", "0.3", value, **measured)


def record(rows, *, source="released", dataset="mnist", model="small", title="MNIST", **settings):
    chosen = {"measurement": "pgd", "dataset": dataset, "model": model, "networks": source, "title": title}
    return Record("made-by-hand", chosen | settings, rows)


def row(correct, *, method="Adv", eps=0.3, steps=200, n=200, **more):
    return {"method": method, "eps": eps, "steps": steps, "correct": correct, "n": n, **more}


@pytest.fixture(scope="session")
def data_folder() -> Path:
    if DATA_FOLDER is None:
        pytest.skip("needs real data: set INTERP_DATA to a folder with mnist.npz or cifar10.npz")
    return DATA_FOLDER


@pytest.fixture(scope="session")
def real_mnist(data_folder) -> data.Dataset:
    try:
        return data.load("mnist", data_folder, download=False)
    except data.DataError as error:
        pytest.skip(f"needs the real MNIST: {error}")


@pytest.fixture(scope="session")
def mnist_subset(real_mnist) -> data.EvaluationSubset:
    """The 200 images that the paper's MNIST tables rest on."""
    return real_mnist.evaluation_subset()


@pytest.fixture(scope="session")
def released_folder() -> Path:
    if not RELEASED:
        pytest.skip("needs the authors' networks: set INTERP_RELEASED to a folder with their .pkl files")
    return RELEASED_FOLDER


@pytest.fixture
def small() -> models.Small:
    """A seeded Small in double precision, in evaluation mode."""
    return models.build("small", seed=0).double().eval()


def images(n: int = 4, shape=(1, 28, 28), *, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    """Uniform noise in [0, 1], black and white pixels among it, as in MNIST."""
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return (1.5 * x - 0.25).clamp(0, 1)


@pytest.fixture(scope="session")
def make_images():
    return images


def bands() -> data.Dataset:
    """40 training, 20 validation and 210 test images, 1x8x8, of three classes that a network can learn."""
    generator = torch.Generator().manual_seed(7)
    y = torch.arange(270) % 3
    x = torch.randint(0, 120, (270, 1, 8, 8), generator=generator)
    for k in range(3):
        x[y == k, :, 2 * k : 2 * k + 3] += 120  # a bright band in the place of the class
    cuts = {"train": slice(0, 40), "validation": slice(40, 60), "test": slice(60, 270)}
    splits = {name: data.Split(x[cut].to(torch.uint8), y[cut]) for name, cut in cuts.items()}
    mark = data.fingerprint(splits["test"])
    return data.Dataset("digits", "Bands", "original", mark, ("0", "1", "2"), **splits)


@pytest.fixture(scope="session")
def tiny_dataset() -> data.Dataset:
    return bands()


@pytest.fixture(scope="session")
def built_book(tmp_path_factory) -> Path:
    """The folder of the chapters' pages, built from the committed chapters as they are, a warning being an error."""
    base = tmp_path_factory.getbasetemp()
    # Workers of pytest-xdist have a folder each, in one that they share.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built_book"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _build(folder)
    return folder / "_build/html/book"


def _build(folder: Path) -> None:
    source = folder / "src"
    source.mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "book", source / "book", ignore=shutil.ignore_patterns(".*"))
    script = Path(sys.executable).with_name("jupyter-book")
    command = [script, "build", "-W", "--keep-going", "-q", "--path-output", folder, source]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(folder)  # the other worker fails with the same words, and tests no half of a book
    assert done.returncode == 0, done.stderr[-4000:]
