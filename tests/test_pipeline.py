"""The Snakefile's grid: which networks it trains, and with what. tests/cluster/slurm.sh runs one through Slurm."""

import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

from interp_lib.models.released import METHODS

JOB = re.compile(r"^rule (?:long_)?network:\n.*? output: (\S+)\n.*? resources: (.*?)$", re.DOTALL | re.MULTILINE)


def dry_run(*arguments: str | Path) -> str:
    """What Snakemake would do, with the project's Snakefile, as it prints it."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--dry-run", "--cores", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, env=environment, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_grid_is_methods_times_seeds_and_other_gammas_less_what_is_finished(tmp_path):
    finished = tmp_path / "nets/mnist-small-adv-s0-paper.safetensors"
    finished.parent.mkdir()
    finished.touch()
    output = dry_run(
        "--directory",
        tmp_path,
        "grid",
        "--config",
        "dataset=mnist",
        "schedule=paper",
        "seeds=2",
        "gammas=0.003,0.03",
        "folder=nets",
        "gpus=1",
        "precision=bfloat16",
        "--printshellcmds",
    )
    jobs = dict(JOB.findall(output))
    names = [f"{method.lower()}-s{seed}-paper" for method in METHODS for seed in (0, 1)]
    names += [f"int-s{seed}-paper-g{gamma}" for gamma in ("0.003", "0.03") for seed in (0, 1)]
    assert {*jobs, "nets/" + finished.name} == {f"nets/mnist-small-{name}.safetensors" for name in names}
    assert len(jobs) == len(names) - 1
    assert output.count(" --precision bfloat16 --out nets ") == len(jobs)
    for resources in jobs.values():
        assert {"runtime=2880", "mem_mb=8000", "gpu=1"} <= set(resources.split(", "))


def test_each_table_is_measured_on_the_networks_that_it_is_about_and_again_after_training(tmp_path):
    for name in ("mnist-small-adv-s0-paper", "mnist-small-int-s0-paper", "cifar10-wresnet-adv-s0-quick"):
        (tmp_path / f"nets/{name}.safetensors").parent.mkdir(exist_ok=True)
        (tmp_path / f"nets/{name}.safetensors").touch()
    # Finished after the networks, and before one of them was trained again.
    for name, seconds in (("table3-cifar10-wresnet", 60), ("table3-mnist-small", -60)):
        path = tmp_path / f"_build/measured/{name}.done"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (path.stat().st_mtime + seconds,) * 2)
    output = dry_run(
        "--directory", tmp_path, "records", "--rerun-triggers", "mtime", "--config", "folder=nets", "--printshellcmds"
    )
    small = {f"{table} mnist small" for table in ("isa-maps", "table2", "table3", "starts", "many")}
    measured = re.findall(r"measure (\S+) --networks ours --networks-dir nets --dataset (\S+) --model (\S+)", output)
    assert set(map(" ".join, measured)) == small | {"table2 cifar10 wresnet", "seen cifar10 wresnet"}


def test_what_the_build_trains_follows_all_that_training_imports():
    target = "_build/networks/digits-small-int-s7-digits.safetensors"
    output = dry_run(target)
    (inputs,) = re.findall(r"^rule network:\n    input: (.*)$", output, re.MULTILINE)
    names = {
        "training/methods",
        "training/run",
        "discrepancies",
        "attacks/balls",
        "attacks/ascent",
        "fast/objective",
        "interpreters/integration",
        "models/pooling",
        "schedule",
        "storage",
        "data_files",
    }
    files = {f"interp_lib/{name}.py" for name in names} | {"interp_lib/fast/ascent.cpp", "interp_lib/fast/trunk.cpp"}
    assert files <= set(inputs.split(", "))
    assert not [name for name in inputs.split(", ") if name.startswith(("interp_lib/pages", "interp_lib/study"))]


def test_the_cluster_script_is_a_shell_script():
    subprocess.run(["bash", "-n", ROOT / "tests/cluster/slurm.sh"], check=True)
