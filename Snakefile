"""What depends on what: network -> record -> executed chapter -> page. The same file on a laptop and on a cluster.

    python -m interp_lib book                            runs it
    python -m snakemake --cores 2                        does the same
    python -m snakemake --cores 2 --config profile=paper
"""

import os
import sys
from pathlib import Path

from interp_lib import chapters, profiles

PROFILE = profiles.load(config.get("profile", "digits"))
RUN = f"{sys.executable} -m interp_lib"
CHAPTERS = chapters.names()
TRAINED = [str(name.path("_build/networks")) for name in PROFILE.trained()]
RECORDS = [str(path) for path in sorted(Path("results").glob("*.json"))]
STATIC = [str(path) for path in sorted(Path("book/static").rglob("*")) if path.is_file()]
ATTACK = ["models", "fold", "data", "data_files", "checks", "attacks/pgd"]
TRAINING = [*ATTACK, "training", "losses"]
MEASURING = [*ATTACK, "measure", "evaluation"]
INTERPRETING = ["activations", "quadrature", "sensitivity", "interpreters", "discrepancy", "scores"]
DRAWING = [*ATTACK, *INTERPRETING, "evaluation", "plots", "widgets", "tables", "compare", "claims"]


def library(modules):
    return [f"interp_lib/{module}.py" for module in modules]


rule all:
    input:
        "_build/pages.done",


rule networks:
    """All networks that the profile trains."""
    input:
        TRAINED,


rule network:
    """One network that the profile trains; killed, it goes on from its checkpoint."""
    input:
        library(TRAINING),
        lambda wildcards: f"interp_lib/schedules/{wildcards.schedule}.yml",
    output:
        "_build/networks/{dataset}-{model}-{method}-s{seed}-{schedule}.safetensors",
    wildcard_constraints:
        dataset="[a-z0-9_]+",
        model="[a-z]+",
        seed="[0-9]+",
        schedule="[a-z0-9_]+",
    params:
        # File names are lower case, methods are not.
        method=lambda wildcards: next(m for m in PROFILE.method_names if m.lower() == wildcards.method),
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        RUN + " train --dataset {wildcards.dataset} --model {wildcards.model} --method {params.method}"
        " --seed {wildcards.seed} --schedule {wildcards.schedule} --out _build/networks"


rule record:
    """What was measured on the networks that the profile trained."""
    input:
        TRAINED,
        library(MEASURING),
    output:
        touch("_build/measured-{profile}.done"),
    params:
        dataset=PROFILE.dataset,
    threads: 2
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        RUN + " measure {params.dataset} --networks ours --networks-dir _build/networks --results-dir _build/results"


rule chapter:
    """One chapter, executed by papermill with the profile's parameters."""
    input:
        "book/{chapter}.ipynb",
        f"profiles/{PROFILE.name}.yml",
        f"_build/measured-{PROFILE.name}.done" if TRAINED else [],
        RECORDS,
        library(DRAWING),
    output:
        "_build/src/book/{chapter}.ipynb",
    params:
        profile=PROFILE.name,
    threads: 2
    resources:
        mem_mb=4000,
        runtime=30,
    shell:
        RUN + " chapter {wildcards.chapter} --profile {params.profile}"


rule pages:
    """The book."""
    input:
        expand("_build/src/book/{chapter}.ipynb", chapter=CHAPTERS),
        "_config.yml",
        "_toc.yml",
        "book/references.bib",
        "book/references.md",
        STATIC,
    output:
        touch("_build/pages.done"),
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        RUN + " pages"
