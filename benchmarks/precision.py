"""What training in bfloat16 does to a network: the same training runs in both precisions, then the attack of Table 3.

    INTERP_DATA=... python benchmarks/precision.py --dataset cifar10 --seeds 1
    INTERP_DATA=... python benchmarks/precision.py --dataset mnist --methods IG-Norm,Chen-IG-Norm

Trains methods of Small by `quick` in bfloat16 into networks/bfloat16, which takes minutes a network, and measures all
that are there on 2,000 images, as `measure many` does those of networks/, which were trained in float32 from the same
seeds. The record many-DATASET-small-bfloat16 stands beside that of the others in the chapter on training.
"""

import argparse
import sys

from interp_lib import __main__ as cli
from interp_lib import data
from interp_lib.study import measure, sweep

FOLDER = "networks/bfloat16"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=("mnist", "cifar10"), default="mnist", help="(%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ... (%(default)s)")
    parser.add_argument("--methods", default="Adv,Int", help="rows of the paper's tables (%(default)s)")
    args = parser.parse_args()
    for seed in range(args.seeds):
        for method in args.methods.split(","):
            run = ["--method", method, "--seed", str(seed), "--schedule", "quick", "--precision", "bfloat16"]
            if code := cli.main(["train", "--dataset", args.dataset, *run, "--device", "cpu", "--out", FOLDER]):
                sys.exit(code)
    found = [network for network in sweep.find_networks("ours", FOLDER) if network.dataset == args.dataset]
    part = sweep.Part(data.load(args.dataset), "small", found, "bfloat16")
    print(*measure.measure_part(measure.find("many"), part))


if __name__ == "__main__":
    main()
