"""Execute chapters with papermill, and build the book from them."""

import ast
import base64
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from ..places import writable_home
from ..storage import commit, write_atomically
from . import origin
from . import parameters as page
from .parameters import check as check  # pages call chapters.check(...)
from .profiles import load as load_profile
from .profiles import project_root
from .recompute import ChapterError
from .recompute import records_for as records_for  # pages call chapters.records_for(...)

IN_README = ("agreement",)  # figures, by the names in their cells' metadata without fig-

CELL_SECONDS = 600  # time limit of a cell in seconds, unless the chapter measures records again


def names() -> list[str]:
    """Return the names of the chapters, in order of file name."""
    return sorted(path.stem for path in (project_root() / "book").glob("*.ipynb"))


def parse_parameter(text: str) -> tuple[str, object]:
    """Split `NAME=VALUE` into a name and a Python scalar; true and false are booleans, non-literals are strings.

    Later `parameters.read` converts the value to the parameter's type: 8/255 and 1e2 become numbers, and no becomes
    false.

    Raises:
        ValueError: the text has no equals sign, or the name is not a Python identifier.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"a parameter is written NAME=VALUE; got {text!r}.")
    try:
        return name, ast.literal_eval({"true": "True", "false": "False"}.get(value, value))
    except (ValueError, SyntaxError):
        return name, value


def literally(path: Path) -> str:
    """Escape the braces of a path for papermill, which would replace {name} by a parameter's value."""
    return str(path).replace("{", "{{").replace("}", "}}")


def parameters_of(path: Path) -> list[str]:
    """Return the names in a chapter's parameters cell."""
    import papermill

    return list(papermill.inspect_notebook(literally(path)))


def execute(name: str, parameters: Mapping[str, object], *, timeout: int | None = None, in_place: bool = False) -> str:
    """Execute one chapter, or 'all', and return the path of the result.

    The source in book/ changes only with `in_place`; without it the values of the chapter's tables stand in a CSV file
    beside the result. A chapter that fails is left in _build/failed/, with the outputs of the cells that ran.

    Args:
        name: file name without .ipynb, or 'all'.
        parameters: new values for names in the cell tagged `parameters`.
        timeout: time limit of one cell in seconds. Default: 600, or no limit when records are measured again.
        in_place: write the outputs into book/ itself, ready to be committed, without the metadata of this run.

    Returns:
        The path of the executed notebook; for 'all', one path per line.

    Raises:
        ValueError: an unknown chapter, a parameter that the chapter does not have, or an invalid value.
        OSError: a file cannot be written; the message names it.
        ChapterError: a cell failed or exceeded the time limit.
    """
    if name == "all":
        return "\n".join(execute(n, parameters, timeout=timeout, in_place=in_place) for n in names())
    if name not in names():
        near = ", ".join(get_close_matches(str(name), names(), 3, 0.3) or names()[:3])
        raise ValueError(f"unknown chapter {name!r}; known are the files of book/, without .ipynb, such as {near}.")
    import nbformat

    from .tables_as_csv import as_csv

    root = project_root()
    writable_home(root)
    source = root / "book" / f"{name}.ipynb"
    page.refuse_unknown(parameters, parameters_of(source), f"chapter {name}")
    parameters = {key: page.read(key, value) for key, value in parameters.items()}
    # The default profile is not injected: a page with any injected parameter says that it ran with other values.
    parameters = {key: value for key, value in parameters.items() if (key, value) != ("profile", "digits")}
    if timeout is None and not parameters.get("recompute"):
        timeout = CELL_SECONDS
    running = root / "_build/failed" / f"{name}.ipynb"
    running.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    commit(*origin.BOOK)  # before the run, see `storage.commit`
    run_notebook(name, source, running, parameters, timeout)
    notebook = nbformat.read(running, 4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    notebook.metadata[origin.KEY] = origin.of_run(time.monotonic() - began, code, parameters)
    target = source if in_place else root / "_build/src/book" / f"{name}.ipynb"
    if in_place:
        _forget_the_run(notebook)
    write_atomically(target, (nbformat.writes(notebook) + "\n").encode())
    running.unlink()
    if in_place:
        _store_figures(notebook, root / "book/static")
    elif text := as_csv(notebook):
        write_atomically(target.with_suffix(".csv"), text.encode())
    return str(target)


def run_notebook(
    name: str, source: Path, running: Path, parameters: dict, timeout: int | None, *, progress: bool = True
) -> None:
    """Execute the chapter `source` into `running`; raise what `execute` raises."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    as_far = f"The chapter as far as it got is in {running}."
    try:
        papermill.execute_notebook(
            literally(source),
            literally(running),
            parameters=parameters,
            cwd=str(source.parent),
            kernel_name="python3",
            execution_timeout=timeout,
            progress_bar={"desc": name, "disable": None} if progress else False,
            stderr_file=sys.stderr if parameters.get("recompute") else None,
        )
    except PapermillExecutionError as error:
        place = f"chapter {name}, cell {error.cell_index + 1} (In [{error.exec_count}])"
        raise ChapterError(f"{place}: {error.ename}: {error.evalue}\n{as_far}") from None
    except OSError as error:
        why = error.strerror or error
        raise OSError(error.errno, f"could not write {error.filename or running}: {why}") from None
    except Exception as error:
        # Two exceptions of nbclient, which executes the cells for papermill, recognised by name without importing it.
        reasons = {
            "CellTimeoutError": f"a cell took more than {timeout} s; --execution-timeout gives it more.",
            "DeadKernelError": str(error),
        }
        if reason := reasons.get(type(error).__name__):
            raise ChapterError(f"chapter {name}: {reason}\n{as_far}") from None
        raise


def _forget_the_run(notebook) -> None:
    """Delete the injected parameters, the timings and the warnings, which the page does not show, of a run.

    They would fill the diff of a commit with every run.
    """
    notebook.cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    for metadata in (notebook.metadata, *(cell.metadata for cell in notebook.cells)):
        for key in ("papermill", "execution", origin.KEY):
            metadata.pop(key, None)
    notebook.metadata["language_info"] = {"name": "python"}


def _store_figures(notebook, folder: Path) -> None:
    """Store the figures that the README shows as files."""
    for cell in notebook.cells:
        name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name", "").removeprefix("fig-")
        if name in IN_README:
            (picture,) = (out.data["image/png"] for out in cell.outputs if "image/png" in out.get("data", {}))
            write_atomically(folder / f"{name}.png", base64.b64decode(picture))


def run_otherwise(profile: str) -> list[Path]:
    """List the executed chapters that ran with any parameters other than the given profile alone."""
    own = {} if profile == "digits" else {"profile": profile}

    def ran_with(path: Path) -> object:
        try:
            return json.loads(path.read_text(encoding="utf-8"))["metadata"]["papermill"]["parameters"]
        except (ValueError, LookupError, TypeError):
            return None

    return [path for path in sorted((project_root() / "_build/src/book").glob("*.ipynb")) if ran_with(path) != own]


def build_pages() -> str:
    """Build the HTML from the executed chapters under _build/src; a warning is an error.

    Returns:
        The path of the page to open.

    Raises:
        ChapterError: Sphinx warned or failed; its messages are printed above the error.
    """
    root = project_root()
    writable_home(root)
    source = root / "_build/src"
    texts = [f"book/{path.name}" for path in (root / "book").glob("*.md")]
    for name in ("_config.yml", "_toc.yml", "book/references.bib", *texts):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, source / name)
    for name in ("api", "static"):
        shutil.copytree(root / "book" / name, source / "book" / name, dirs_exist_ok=True)
    for stale in set(source.glob("book/*.ipynb")) - {source / "book" / f"{name}.ipynb" for name in names()}:
        stale.unlink()
    # Not the script jupyter-book beside the interpreter: its #! line fails in folders with a long name or a space.
    program = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", "-W", "--keep-going", "-q", "--path-output", str(root)]
    command.append(str(source))
    if subprocess.run(command, check=False).returncode:
        raise ChapterError("the pages were not built; Sphinx's warnings above say why.")
    return str(root / "_build/html/index.html")


def build_book(profile: str = "digits", *, cores: int = 2, target: str = "all") -> str:
    """Run the pipeline of the Snakefile: train, measure, execute, build; skip every step that is up to date.

    Args:
        profile: name of the profile on which the live experiments run.
        cores: number of jobs that run at the same time.
        target: a rule of the Snakefile; `networks` only trains.

    Returns:
        The line to print, with the path of the page to open.

    Raises:
        ChapterError: a step failed; its own message is printed above the error.
    """
    load_profile(profile)
    root = project_root()
    writable_home(root)
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(root / "Snakefile"),
        "--directory",
        str(root),
        "--cores",
        str(cores),
        "--rerun-incomplete",
        "--config",
        f"profile={profile}",
        "--quiet",
        "rules",
        "progress",
        "host",
        "--",
        target,
    ]
    # A killed build leaves its lock behind; removing it first is safe with one user and one checkout.
    subprocess.run([*command[:7], "--unlock"], capture_output=True, check=False)
    process = subprocess.Popen(command)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.wait()  # snakemake received the same Ctrl-C and is stopping its jobs
        raise
    if status:
        raise ChapterError(f"the book was not built (snakemake ended with {status}); the reason stands above.")
    return f"The book is built. Open {root / '_build/html/index.html'}" if target == "all" else f"{target}: done"
