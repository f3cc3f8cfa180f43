"""What depends on what: network, records -> executed chapter -> page. The same file on a laptop and on a cluster.

    python -m interp_lib book                            runs it
    python -m snakemake --cores 2                        does the same
    python -m snakemake --cores 2 --config profile=paper
    python -m snakemake grid --cores 2 --rerun-triggers mtime --config dataset=mnist model=small schedule=quick seeds=3
                                                         trains the paper's eight methods into networks/; on a
                                                         cluster see book/running.md
    python -m snakemake records --cores 2                measures what the grid trained, each network once
"""

import ast
import re
import shlex
import sys
from pathlib import Path

from interp_lib.pages import chapters, profiles

# The grid of rule `grid`: dataset x model x methods x seeds, and other gammas of Int where asked. Refuses unknown keys.
GRID = profiles.grid(config)
WANTED = profiles.with_defaults(config)
PROFILE = profiles.load(WANTED["profile"])
RUN = f"{shlex.quote(sys.executable)} -m interp_lib"
CHAPTERS = chapters.names()
TRAINED = [str(name.path("_build/networks")) for name in PROFILE.trained()]
RECORDS = [str(path) for path in sorted(Path("results").rglob("*.json"))]
# Of a Small on one core. A run that needs longer, Pool with IG-Norm or a WResnet, goes on from its checkpoint.
MINUTES = {"digits": 30, "quick": 240, "paper": 2880}
PRECISION = WANTED["precision"]  # of a grid's convolutions
GPUS = int(WANTED["gpus"])  # that each network of a grid asks of a cluster
for path in chapters.run_otherwise(PROFILE.name):  # by hand, with other parameters: not this book's, so run anew
    path.unlink()  # an old date would not do: Snakemake sees that no input has changed
    Path("_build/pages.done").unlink(missing_ok=True)
# Chapters that take the longest are begun first, so that no processor waits for the last of them.
LONG = "04_attacks_on_maps|06_training|07_robustness|13_appendix_c|14_appendix_d"
STATIC = [str(path) for path in sorted(Path("book/static").rglob("*")) if path.is_file()]
TEXTS = sorted(map(str, Path("book").glob("*.md")))
REFERENCE = sorted(map(str, Path("book/api").glob("*.md")))


def source(chapter):
    return Path("book", f"{chapter}.ipynb").read_text(encoding="utf-8")


def shows(chapter):
    """Chapters that a gallery executes."""
    return [f"book/{name}.ipynb" for name in re.findall(r"side_by_side\(\W+(\w+)", source(chapter))]


def uses_networks(chapter):
    """Whether a chapter loads networks that the build trains; the others can run beside the training."""
    return "load_network(" in source(chapter) or bool(shows(chapter))


def measurements(wildcards):
    """The tables' measurements, finished, on each dataset and architecture of which the grid's folder has networks."""
    from interp_lib.study.measure import MEASUREMENTS, OF_TRAINED  # loads PyTorch, which the other rules do not need

    trained = {tuple(path.name.split("-")[:2]) for path in Path(WANTED["folder"]).glob("*.safetensors")}
    parts = ((table, *part) for table in OF_TRAINED for part in MEASUREMENTS[table].parts if part in trained)
    return [f"_build/measured/{table}-{dataset}-{model}.done" for table, dataset, model in parts]


def library(*modules):
    """Source files of modules of interp_lib, and of all that these import from it."""
    found, wanted = set(), [Path("interp_lib", f"{module}.py") for module in modules]
    while wanted:
        path = wanted.pop()
        if path.is_file() and path not in found:
            found.add(path)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.level:
                    base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                    wanted += [base.with_suffix(".py"), *(base / f"{name.name}.py" for name in node.names)]
    return sorted(map(str, found))


SOURCES = [str(path) for path in sorted(Path("interp_lib/fast").glob("*.cpp"))]  # compiled when training begins
TRAINING = [*library("training/job"), *SOURCES]
EVERYTHING = [str(path) for path in sorted(Path("interp_lib").rglob("*")) if path.suffix in (".py", ".yml", ".csv", ".cpp")]


rule all:
    input:
        "_build/pages.done",


rule networks:
    """All networks that the profile trains."""
    input:
        TRAINED,


rule grid:
    """Networks of a grid, see GRID above."""
    input:
        [str(name.path(WANTED["folder"])) for name in GRID],


rule network:
    """One network; killed, it goes on from its checkpoint.

    What the build trains follows the library; networks that took hours stay until someone deletes them.
    """
    input:
        lambda wildcards: (
            [*TRAINING, f"interp_lib/schedules/{wildcards.schedule}.yml"]
            if wildcards.folder.startswith("_build") else []
        ),
    output:
        "{folder}/{dataset}-{model}-{method}-s{seed}-{schedule}{gamma}.safetensors",
    wildcard_constraints:
        dataset="[a-z0-9_]+",
        model="[a-z]+",
        method="(?!(chen-)?ig-).*",
        seed="[0-9]+",
        schedule="[a-z0-9_]+",
        gamma="(-g[0-9.e-]+)?",
    params:
        gamma=lambda wildcards: wildcards.gamma.replace("-g", " --gamma ", 1),
    threads: 1  # Snakemake hands it to OMP_NUM_THREADS, here and in a cluster's job
    resources:
        mem_mb=8000 if GPUS else 4000,
        runtime=lambda wildcards: MINUTES.get(wildcards.schedule, 240),
        gpu=GPUS,
    shell:
        # With a GPU asked for, none found is an error and not days on a processor.
        "{RUN} train --dataset {wildcards.dataset} --model {wildcards.model} --method {wildcards.method:q}"
        " --seed {wildcards.seed} --schedule {wildcards.schedule}{params.gamma} --precision {PRECISION}"
        " --out {wildcards.folder:q}"
        " $([ {resources.gpu} = 0 ] || echo --device cuda)"


use rule network as long_network with:
    # Begun first, so that no processor waits for the last of them.
    wildcard_constraints:
        method="(chen-)?ig-.*",
        seed="[0-9]+",
        gamma="(-g[0-9.e-]+)?",
    priority:
        1


rule records:
    """What the tables say of the networks of a grid's folder."""
    input:
        measurements,


rule record:
    """One measurement of the networks of one dataset and architecture; networks that it has measured it skips.

    A network that is trained again is measured again, so that no number of the old one is left.
    """
    input:
        lambda wildcards: sorted(
            map(str, Path(WANTED["folder"]).glob(f"{wildcards.dataset}-{wildcards.model}-*.safetensors"))
        ),
    output:
        touch("_build/measured/{table}-{dataset}-{model}.done"),
    wildcard_constraints:
        dataset="[a-z0-9_]+",
        model="[a-z]+",
    params:
        folder=WANTED["folder"],
    threads: 1
    resources:
        mem_mb=4000,
        runtime=2880,
    shell:
        "{RUN} measure {wildcards.table} --networks ours --networks-dir {params.folder:q}"
        " --dataset {wildcards.dataset} --model {wildcards.model}"


rule sources:
    """What every chapter reads: one file in their place, since three hundred times thirty-two make a slow plan."""
    input:
        f"profiles/{PROFILE.name}.yml",
        RECORDS,
        EVERYTHING,
    output:
        touch("_build/sources.done"),


rule chapter:
    """One chapter, executed by papermill with the profile's parameters."""
    input:
        "book/{chapter}.ipynb",
        "_build/sources.done",
        lambda wildcards: shows(wildcards.chapter),
        lambda wildcards: TRAINED if uses_networks(wildcards.chapter) else [],
    output:
        "_build/src/book/{chapter}.ipynb",
    wildcard_constraints:
        chapter=f"(?!{LONG}).*",
    priority: -2
    params:
        profile=PROFILE.name,
    threads: 1  # two chapters beside each other; two threads wait for each other whenever another program runs
    resources:
        mem_mb=4000,
        runtime=30,
    shell:
        "{RUN} chapter {wildcards.chapter:q} --profile {params.profile:q}"


use rule chapter as long_chapter with:
    wildcard_constraints:
        chapter=LONG,
    priority:
        -1


rule pages:
    """The book."""
    input:
        expand("_build/src/book/{chapter}.ipynb", chapter=CHAPTERS),
        "_config.yml",
        "_toc.yml",
        "book/references.bib",
        TEXTS,
        STATIC,
        REFERENCE,
    output:
        touch("_build/pages.done"),
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        "{RUN} pages"
