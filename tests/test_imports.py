"""Which module may import which: read from the source, and from what a fresh interpreter has loaded."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

import interp_lib

PACKAGE = ROOT / "interp_lib"
# Each floor imports from the floors above it only. A new module is put on a floor here.
FLOORS = (
    ("datasets", "faces", "options", "paper", "places", "reading", "values"),
    ("checks", "schedule", "storage"),
    ("data_files",),
    ("photographs",),
    ("data", "discrepancies", "models"),
    ("fast",),
    ("interpreters",),
    ("attacks",),
    ("study", "training"),  # neither imports the other
    ("pages",),
    ("queue",),
    ("commands",),
    ("__main__",),
)
FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}
MODULES = sorted(p.relative_to(PACKAGE).with_suffix("") for p in PACKAGE.rglob("*.py"))


# Where a module's tests are, if not in the file that is named for it.
TESTED_IN = {
    "__main__": "cli",
    "attacks/ascent": "projected_gradient_descent",
    "attacks/balls": "attack_contract",
    "attacks/logits_and_maps": "fold",
    "attacks/sneaking_settings": "interpretability_sneaking",
    **{
        f"attacks/unforeseen/{name}": "unforeseen_attacks"
        for name in ("corruption", "elastic_flow", "fog_map", "gabor_noise", "jpeg_coefficients", "snow_flakes")
    },
    "commands": "cli",
    "data_files": "data",
    "datasets": "data",
    "faces": "imports",
    "fast/compiled": "fast",
    "fast/convolution": "fold",
    "fast/parts": "fold",
    "fast/training_step": "fold",
    "fast/trunk": "fast",
    "fast/trunk_layers": "fast",
    "interpreters/activations": "interpreters",
    "interpreters/class_activation_maps": "interpreters",
    "interpreters/common": "interpreters",
    "interpreters/integration": "interpreters",
    "interpreters/masking": "interpreters",
    "interpreters/registry": "interpreters",
    "interpreters/sensitivity": "interpreters",
    "models/architectures": "models",
    "models/contract": "adapted",
    "models/names": "trained",
    "models/pickles": "released",
    "models/predict": "accuracy",
    "models/proof": "fold",
    "pages/bibliography": "book",
    "pages/certificate_figures": "plots",
    "pages/chapters": "book",
    "pages/comparison_figures": "plots",
    "pages/curve_figures": "plots",
    "pages/gamma_figures": "plots",
    "pages/head": "access",
    "pages/landing": "tables",
    "pages/map_figures": "plots",
    "pages/masking_figures": "plots",
    "pages/numbering": "book",
    "pages/reference": "book",
    "pages/sneaking_figures": "plots",
    "pages/style": "plots",
    "pages/sweep_figures": "plots",
    "pages/training_figures": "plots",
    "pages/unforeseen_figures": "plots",
    "options": "cli",
    "paper": "compare",
    "photographs": "data",
    "reading": "profiles",
    "schedule": "training",
    "storage": "records",
    **{f"study/{name}": "verdicts" for name in ("evidence", "verdicts_on_accuracy", "verdicts_on_maps")},
    "study/comparisons": "claims_robustness",
    "study/evaluation": "measure",
    "study/exchanged_rows": "compare",
    "study/isa_scores": "interpretability_sneaking",
    "study/maps_compared": "agreement",
    "study/rank_correlation": "against_interpretability",
    "study/report": "compare",
    "study/runs": "compare",
    "study/sneaking_over_eps": "figures",
    "study/softplus": "measure",
    "study/stored_maps": "figures",
    "study/sweep": "measure",
    "training/group": "together",
    "training/job": "cli",
    "training/loop": "training",
    "training/run": "training",
    "values": "checks",
}


def unit(module: Path) -> str:
    """What a floor is named after: a module, or the folder of a sub-package."""
    return module.parts[0]


def imports(module: Path) -> tuple[set[str], set[str]]:
    """(modules of this package, top-level names of others) that a file imports, inside functions as well."""
    own, others = set(), set()
    for node in ast.walk(ast.parse((PACKAGE / module).with_suffix(".py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            others |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = [*module.parts[: len(module.parts) - node.level], *(node.module or "").split(".")]
            base = [part for part in base if part]
            own |= {base[0]} if base else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            others.add(node.module)
    own |= {name.split(".")[1] for name in others if name.startswith("interp_lib.")}
    return own, {name.split(".")[0] for name in others} - {"interp_lib"}


def test_the_reader_of_imports_sees_them():
    assert {"checks", "fast"} <= imports(Path("attacks/ascent"))[0]
    assert {"data", "models", "training"} <= imports(Path("commands"))[0]  # inside functions
    assert "papermill" in imports(Path("pages/chapters"))[1]


@pytest.mark.parametrize("name", interp_lib.__all__)
def test_the_package_shows_what_people_come_for(name):
    assert name in dir(interp_lib) and getattr(interp_lib, name).__doc__
    assert name not in {unit(module) for module in MODULES}  # importing that module would take its place


def test_what_the_package_does_not_have_is_said():
    with pytest.raises(AttributeError, match="no attribute 'pdg'; it has .*pgd"):
        interp_lib.pdg()


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_one_way(module):
    if module.name == "__init__":
        assert imports(module) in ((set(), set()), ({"faces"}, set()))  # what it shows is loaded when asked for
        return
    assert unit(module) in FLOOR, f"put {module} on a floor"
    own = imports(module)[0] - {unit(module) if module.parts[1:] else ""}
    assert all(FLOOR[name] < FLOOR[unit(module)] for name in own), (str(module), own)


@pytest.mark.parametrize("module", [m for m in MODULES if m.name != "__init__"], ids=Path.as_posix)
def test_every_module_has_its_tests_in_a_file_named_for_it_or_in_the_table(module):
    folder = ROOT / "tests" / module.parent  # the tests mirror the wings
    tests = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    named, listed = (folder / f"test_{module.name}.py").is_file(), TESTED_IN.get(module.as_posix())
    assert named != (listed is not None), f"write {folder}/test_{module.name}.py, or a line in TESTED_IN, and not both"
    assert named or f"test_{listed}" in tests


def test_the_table_of_tests_lists_modules_that_are_there():
    assert set(TESTED_IN) <= {module.as_posix() for module in MODULES}


@pytest.mark.parametrize("module", [m for m in MODULES if m.parts[0] == "attacks"], ids=str)
def test_attacks_know_no_datasets(module):
    assert not imports(module)[0] & {"data", "data_files", "study"}


TRAINING = {"torch", "numpy", "tqdm", "safetensors", "yaml", "filelock", *sys.stdlib_module_names}


@pytest.mark.parametrize("module", [m for m in MODULES if m.parts[0] != "pages"], ids=str)
def test_a_training_run_needs_what_the_package_requires(module):
    scipy = {"scipy"} if str(module) in ("discrepancies", "study/exchanged_rows", "study/intervals") else set()
    assert imports(module)[1] <= TRAINING | scipy


def test_papermill_executes_chapters_and_nothing_else():
    assert {str(m) for m in MODULES if "papermill" in imports(m)[1]} == {"pages/chapters"}


FIGURES = [m for m in MODULES if re.fullmatch("pages/(.*_figures|style|tables|widgets)", m.as_posix())]


@pytest.mark.parametrize("module", FIGURES, ids=str)
def test_figures_import_nothing_that_trains(module):
    assert not imports(module)[0] & {"training", "attacks"}


FACES = [m.parent for m in MODULES if m.name == "__init__" and "faces" in imports(m)[0] and m.parts[1:]]


@pytest.mark.parametrize("package", FACES, ids=str)
def test_a_wing_shows_its_functions_and_no_module_takes_their_place(package):
    face = importlib.import_module(".".join(["interp_lib", *package.parts]))
    modules = {m.name for m in MODULES if m.parent == package}
    for name in face.__all__:
        shown = getattr(face, name)
        assert shown is getattr(face, name) and name in dir(face)
        assert isinstance(shown, ModuleType) or name not in modules
    with pytest.raises(AttributeError, match="it has "):
        face.no_such_name  # noqa: B018


@pytest.mark.parametrize("name", sorted(FLOOR))
def test_every_floor_is_inhabited(name):
    assert name in {unit(module) for module in MODULES}


HEAVY = (
    *(
        "IPython",
        "ipykernel",
        "ipywidgets",
        "jupyter_client",
        "jupyter_core",
        "nbformat",
        "papermill",
        "traitlets",
    ),
    *("matplotlib", "pandas", "PIL", "scipy", "seaborn", "sklearn", "torchvision"),
)
PATHS = {
    "interp_lib": "import interp_lib",
    "training": "import interp_lib.training.loop, interp_lib.models.trained",
    "measuring": "import interp_lib.study.measure, interp_lib.study.compare",
    "command": "import interp_lib.__main__",
    "pages": "from interp_lib.pages.profiles import load; load('digits').trained(); import interp_lib.pages.chapters",
}


@pytest.mark.parametrize("path", PATHS)
def test_a_training_run_loads_no_jupyter_and_no_figures(path):
    code = f"{PATHS[path]}, sys; print([m for m in {HEAVY} if m in sys.modules], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    torch_too = path in ("training", "measuring")
    assert done.stdout.split("\n")[0] == f"[] {torch_too}"
