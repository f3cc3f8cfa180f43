"""The command line, one command per unit of work: data, train, measure, verify, compare, chapter, book, ...

python -m interp_lib COMMAND --help
"""

import argparse
import os
import sys
from fractions import Fraction
from pathlib import Path

from . import commands, paper, places, storage
from .datasets import DATASETS
from .options import folder, number, several
from .reading import printable

EXAMPLES = (
    """examples:
  python -m interp_lib data mnist                      fetch MNIST and say whether it is the original
  python -m interp_lib train --profile digits          train the networks of the default profile
  python -m interp_lib queue --minutes 60              go on with the networks of the paper's schedule
  python -m interp_lib measure table3                  Table 3 on the released networks
  python -m interp_lib verify --cells 30               thirty cells drawn at random, measured again
  python -m interp_lib compare                         the paper's values beside the measured ones
  python -m interp_lib chapter 07_robustness           execute one chapter
  python -m interp_lib book                            everything: train, execute, build

Data come from --data-dir or INTERP_DATA, else data/ of the clone; the authors' networks from --released-dir or
INTERP_RELEASED. Without a clone, data/, networks/ and results/ stand in the current folder. A clone is what
"""
    + f"{places.NEED_A_CLONE} need: run these inside one."
)


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a mistake in one line, as all commands do."""

    def error(self, message: str):
        self.exit(2, f"error: {message}; see {self.prog} --help.\n")


def add_data_dir(p: argparse.ArgumentParser) -> None:
    p.add_argument("--data-dir", type=folder, help="folder of datasets (default: INTERP_DATA, else data/)")


def add_device(p: argparse.ArgumentParser) -> None:
    p.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")


def add_data(p: argparse.ArgumentParser) -> None:
    p.add_argument("name", help=", ".join(DATASETS))
    p.add_argument("--no-download", action="store_true", help="refuse rather than download")
    add_data_dir(p)


def add_train(p: argparse.ArgumentParser) -> None:
    p.add_argument("--profile", help="train what this profile needs, e.g. digits; --dataset to --schedule are ignored")
    p.add_argument("--dataset", default="digits")
    p.add_argument("--model", default="small", help="small, pool or wresnet")
    p.add_argument(
        "--method",
        default="Normal",
        help="a row of the paper's tables, in capitals or not: Normal, Adv, TRADES, IG-Norm, IG-Norm-Sum, "
        "Int-1-class, Int, Int-Adv; or ALP, Int2, Int2-Adv, Chen-IG-Norm, Chen-IG-Sum-Norm",
    )
    p.add_argument(
        "--gamma",
        type=several(number(float, 0)),
        default=[paper.GAMMA],
        help=f"regularisation parameter of Int and its variants, in the released code's units ({paper.GAMMA})",
    )
    p.add_argument("--seed", type=several(number(int, 0, 2**63 - 1)), default=[0], help="(0)")
    p.add_argument("--schedule", default="digits", help="paper, quick or digits: a file of interp_lib/schedules")
    p.add_argument(
        "--precision",
        default="float32",
        help="of the convolutions: float32, or bfloat16 for processors with AMX (%(default)s)",
    )
    p.add_argument("--out", type=folder, help="folder of the networks (default: _build/networks)")
    p.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on from a checkpoint, and leave a finished network alone (default)",
    )
    p.add_argument(
        "--keep",
        choices=("last", "best"),
        default="last",
        help="store the weights of the last step (default), or of the epoch with the best robust validation accuracy",
    )
    p.add_argument("--tensorboard", type=folder, help="folder for TensorBoard's logs (default: none)")
    add_data_dir(p)
    add_device(p)


def add_queue(p: argparse.ArgumentParser) -> None:
    p.add_argument("--minutes", type=number(float, 0), default=12.0, help="how long to work (%(default)s)")
    p.add_argument("--out", type=folder, help="folder of networks and checkpoints (default: networks/paper)")
    p.add_argument("--dry-run", action="store_true", help="only time each job and print the plan")
    add_data_dir(p)
    add_device(p)


def add_measure(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "table",
        help="table1 to table5, A1 to A5; figure1, figure2; fgsm (one full step), starts (random ones), fine (a random "
        "one and finer steps, WResnet), many (2,000 images), strong (AutoAttack's attacks, 10,000 images), restarts "
        "(other losses), transfer, masking (its signs), seen (training images), clean (R-ImageNet), aai-printed (eq. "
        "(7)), isa-again, isa-maps (Table 1 without IG), isa-beyond (IG on ReLU, GradCAM++ of 2018), aai-2018 (the "
        "latter), agreement (of maps), sanity (of random weights), faithfulness (deletion and insertion), softplus, "
        "tightness (of Proposition 1), rounding, black (its logits), ig-penalty, digits",
    )
    p.add_argument(
        "--networks",
        choices=("released", "sweeps", "ours"),
        default="released",
        help="the released ones of the tables (default), those with other gammas, radii or runs, or ours",
    )
    p.add_argument("--dataset", help="only the part of a table on this dataset: mnist, cifar10, restricted_imagenet")
    p.add_argument("--model", help="only the part on this architecture: small, pool, wresnet")
    p.add_argument("--n", type=number(int, 1), help="number of images (default: the table's); makes another record")
    p.add_argument("--images", type=number(int, 1), help="of table1, only its first images; more may follow later")
    p.add_argument(
        "--eps",
        type=several(number(lambda text: float(Fraction(text)), 0, 1)),
        help="perturbation sizes, separated by commas, such as 0.1,8/255 (default: the table's); makes another record",
    )
    p.add_argument("--released-dir", type=folder, help="folder of the authors' networks (default: INTERP_RELEASED)")
    p.add_argument("--networks-dir", type=folder, help="folder of our networks (default: networks)")
    p.add_argument("--results-dir", type=folder, help="folder of the records (default: results)")
    p.add_argument("--until-stdin-closes", action="store_true", help=argparse.SUPPRESS)
    add_data_dir(p)
    add_device(p)


def add_verify(p: argparse.ArgumentParser) -> None:
    p.add_argument("--cells", type=number(int, 1), default=30, help="how many cells to draw (%(default)s)")
    p.add_argument("--seed", type=number(int, 0), help="of the draw (default: another one each time, printed)")
    p.add_argument("--tables", help="only these tables, separated by commas: 3,4,A1 (default: all)")
    p.add_argument("--model", help="only this architecture: small, pool, wresnet")
    p.add_argument(
        "--longest",
        type=number(float, 0),
        default=30.0,
        metavar="SECONDS",
        help="leave out cells that took longer, by their record's own time on one core (%(default)s)",
    )
    p.add_argument("--released-dir", type=folder, help="folder of the authors' networks (default: INTERP_RELEASED)")
    p.add_argument("--results-dir", type=folder, help="folder of the records (default: results)")
    add_data_dir(p)
    add_device(p)


def add_compare(p: argparse.ArgumentParser) -> None:
    p.add_argument("--networks", choices=("released", "ours"), default="released")
    p.add_argument("--table", help="one table only: 3, 4, A1, ...")
    p.add_argument("--csv", action="store_true", help="all 743 values, with columns released, ours, n, n_ours")
    p.add_argument("--readme", action="store_true", help="write the counts into the clone's README.md instead")
    p.add_argument("--results-dir", type=folder, help="folder of the records (default: results)")


def add_chapter(p: argparse.ArgumentParser) -> None:
    p.add_argument("name", help="file name of the chapter without .ipynb, or 'all'")
    p.add_argument("--profile", default="digits", help="what the live experiments run on (%(default)s)")
    p.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another value for a name of the chapter's parameters cell; repeat as needed",
    )
    p.add_argument(
        "--execution-timeout",
        type=number(int, 1),
        metavar="SECONDS",
        help="seconds a cell may take (default: 600, no limit with recompute=true)",
    )
    p.add_argument("--in-place", action="store_true", help="store the outputs in book/ itself, as committed")


def add_book(p: argparse.ArgumentParser) -> None:
    p.add_argument("--profile", default="digits", help="what the live experiments run on (%(default)s)")
    p.add_argument("--cores", type=number(int, 1), default=2, help="jobs at a time (%(default)s)")
    p.add_argument("--target", default="all", help="a rule of the Snakefile, such as networks (%(default)s)")


# Each command: its name, its help, and the function that adds its options; `commands.run_NAME` runs it.
COMMANDS = (
    ("data", "Fetch or check a dataset and say whether it is the original.", add_data),
    (
        "train",
        "Train networks, or all of a profile; an interrupted run goes on. Methods, gammas and seeds may be lists, "
        "0,1,2: on a GPU all are trained at the same time.",
        add_train,
    ),
    ("queue", "Train the networks that the book still lacks, most wanted first, for some minutes.", add_queue),
    ("measure", "Measure a table of the paper and write its records.", add_measure),
    (
        "verify",
        "Measure cells of the printed tables again on the released networks, drawn at random, and compare them with "
        "their records; ends with 1 where one differs.",
        add_verify,
    ),
    ("compare", "Print the paper's values beside the measured ones, and count agreements.", add_compare),
    ("chapter", "Execute a chapter with papermill into _build/src/book.", add_chapter),
    ("pages", "Build the HTML from the chapters executed so far; a warning is an error.", lambda p: None),
    ("laboratory", "Write the networks and images of the laboratory, a page of the book.", add_data_dir),
    ("book", "Train, execute and build what is out of date; print the page to open.", add_book),
)


def parser() -> argparse.ArgumentParser:
    called = Path(sys.argv[0]).name
    main = Parser(
        prog=called if called == "interp-lib" else "python -m interp_lib",
        description="One command for one unit of work.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = main.add_subparsers(required=True, metavar="COMMAND")
    for name, text, add_options in COMMANDS:
        command = subparsers.add_parser(name, help=text, description=text)
        command.set_defaults(function=getattr(commands, f"run_{name}"))
        add_options(command)
    return main


def silence(stream) -> None:
    """Discard what is left in a stream's buffer, so that the interpreter's last flush raises no error."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError, AttributeError):
        pass


def finish(status: int) -> int:
    """Flush standard output and return the exit status; a closed pipe is no error, a full disk is one."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # `head` in `compare | head` has read enough and closed the pipe
        silence(sys.stdout)
    except OSError as error:
        silence(sys.stdout)
        if not status:
            print(f"error: could not write to standard output: {error.strerror}", file=sys.stderr)
        return status or 1
    return status


def is_full(stream) -> bool:
    """Return whether writing one more line to a stream fails."""
    try:
        stream.write("\n")
        stream.flush()
    except OSError:
        return True
    return False


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed while running, 2 bad request, 130 interrupted."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the process that started this one
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    # argparse exits by itself after --help or a mistake; its output must be flushed too.
    try:
        args = parser().parse_args(arguments)
    except SystemExit as leaving:
        raise SystemExit(finish(int(leaving.code or 0))) from None
    try:
        places.settle()
        if args.function in (commands.run_train, commands.run_queue, commands.run_measure):
            storage.commit()  # cached now: commits made during a long run are not the code that runs
        args.function(args)
        return finish(0)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return finish(130)
    except BrokenPipeError:
        return finish(0)
    except ModuleNotFoundError as error:
        message, status = f"{error}. Install everything: pip install -r requirements.txt.", 1
    except (ValueError, TypeError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        message, status = str(error), 2
    except (OSError, RuntimeError) as error:
        message, status = str(error), 1
        if isinstance(error, OSError) and error.errno and not error.filename and is_full(sys.stdout):
            silence(sys.stdout)
            message = f"could not write to standard output: {os.strerror(error.errno)}"
    print(f"error: {printable(message, 4000)}", file=sys.stderr)
    return finish(status)


if __name__ == "__main__":
    sys.exit(main())
