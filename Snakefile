"""What depends on what: network -> record -> executed chapter -> page. The same file on a laptop and on a cluster.

    python -m interp_lib book                 runs it
    python -m snakemake --cores 2             does the same
    python -m snakemake --config profile=paper --cores 2
"""

import sys

from interp_lib import chapters, profiles

PROFILE = profiles.load(config.get("profile", "digits"))
RUN = f"{sys.executable} -m interp_lib"
CHAPTERS = chapters.names()
TRAINING = ["training.py", "losses.py", "models.py", "fold.py", "data.py", "attacks/pgd.py"]


def library(*modules):
    return [f"interp_lib/{module}" for module in modules]


rule all:
    input:
        f"_build/pages-{PROFILE.name}.done",


rule network:
    """One network that the profile trains; killed, it goes on from its checkpoint."""
    output:
        "_build/networks/{dataset}-{model}-{method}-s{seed}-{schedule}.safetensors",
    input:
        library(*TRAINING),
        lambda w: f"interp_lib/schedules/{w.schedule}.yml",
    params:
        # File names are lower case, methods are not.
        method=lambda w: next(m for m in PROFILE.method_names if m.lower() == w.method),
        again=lambda w, output: "--no-resume" if os.path.exists(output[0]) else "--resume",
    wildcard_constraints:
        dataset="[a-z0-9_]+",
        model="[a-z]+",
        seed="[0-9]+",
        schedule="[a-z0-9_]+",
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        RUN
        + " train --dataset {wildcards.dataset} --model {wildcards.model} --method {params.method}"
        " --seed {wildcards.seed} --schedule {wildcards.schedule} --out _build/networks {params.again}"


TRAINED = [str(name.path("_build/networks")) for name in PROFILE.trained()]


rule record:
    """What was measured on the networks of the profile."""
    output:
        touch(f"_build/measured-{PROFILE.name}.done"),
    input:
        TRAINED,
        library("measure.py", "evaluation.py", "records.py"),
    threads: 2
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        RUN + " measure {PROFILE.dataset} --networks ours --networks-dir _build/networks --results-dir _build/results"


rule chapter:
    """One chapter, executed."""
    output:
        f"_build/executed-{PROFILE.name}/{{chapter}}.ipynb",
    input:
        "book/{chapter}.ipynb",
        f"profiles/{PROFILE.name}.yml",
        rules.record.output if TRAINED else [],
        library("plots.py", "widgets.py", "tables.py", "compare.py", "evaluation.py", *TRAINING),
        glob_wildcards("results/{name}.json") and expand(
            "results/{name}.json", name=glob_wildcards("results/{name}.json").name
        ),
    threads: 2
    resources:
        mem_mb=4000,
        runtime=30,
    shell:
        RUN + " chapter {wildcards.chapter} --profile {PROFILE.name} && cp _build/src/book/{wildcards.chapter}.ipynb {output}"


rule pages:
    """The book; a warning is an error."""
    output:
        touch(f"_build/pages-{PROFILE.name}.done"),
    input:
        expand(rules.chapter.output, chapter=CHAPTERS),
        "_config.yml",
        "_toc.yml",
        "book/references.bib",
        [path for path in glob_wildcards("book/static/{path}").path if False],
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        RUN + " pages --profile {PROFILE.name}"
