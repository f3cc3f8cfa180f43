"""Chapters executed by papermill, and the book built from them."""

import ast
import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .profiles import load as load_profile
from .profiles import project_root
from .records import Record, read_all, write_atomically


class ChapterError(RuntimeError):
    """A chapter that did not run to its end; the message names chapter and cell."""


def names() -> list[str]:
    """The chapters, in order of file name."""
    return sorted(path.stem for path in (project_root() / "book").glob("*.ipynb"))


def records_for(recompute: bool, *measurements: str) -> list[Record]:
    """The records that a chapter shows: the committed ones, or the same measurements made again.

    Measuring again is `python -m interp_lib measure NAME` into _build/recomputed/. A table's measurement does only
    what is missing there: after an interruption it goes on, and for another time the folder has to go.

    Args:
        recompute: the chapter's parameter of that name.
        measurements: what the chapter shows, as `measure` calls it: 'table1', 'figure2', ...

    Returns:
        All records of results/; with `recompute` those measured again stand in the place of theirs.

    Raises:
        ChapterError: a measurement failed, in its own words: no data, or no released networks.
    """
    root = project_root()
    committed = read_all(root / "results")
    if not recompute:
        return committed
    folder = root / "_build/recomputed"
    for name in measurements:
        command = [sys.executable, "-m", "interp_lib", "measure", name, "--results-dir", str(folder)]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("error: ")
            raise ChapterError(f"recompute=true needs data and networks, and `measure {name}` said: {reason}")
    again = read_all(folder)
    replaced = {_measures(record) for record in again}
    copies = {record.settings.get("dataset"): record.settings.get("data") for record in again}

    def stays(record: Record) -> bool:
        # Beside a measurement on another copy of the data a committed one has no place.
        data = record.settings.get("data")
        other_copy = data is not None and copies.get(record.settings.get("dataset"), data) != data
        return _measures(record) not in replaced and not other_copy

    return [record for record in committed if stays(record)] + again


def _measures(record: Record) -> str:
    """What tells a record from the others, whichever copy of the data it was measured on."""
    settings = {key: value for key, value in record.settings.items() if key not in ("title", "data")}
    return json.dumps([record.family, settings], sort_keys=True)


def parse_parameter(text: str) -> tuple[str, object]:
    """`NAME=VALUE` as a name and a Python scalar; true and false are booleans, what is no Python literal is a string.

    Raises:
        ValueError: there is no equals sign.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"a parameter is written NAME=VALUE; got {text!r}.")
    try:
        return name, ast.literal_eval({"true": "True", "false": "False"}.get(value, value))
    except (ValueError, SyntaxError):
        return name, value


def execute(name: str, parameters: Mapping[str, object], *, timeout: int = 600, in_place: bool = False) -> str:
    """Executes one chapter, or 'all', and says where the result is.

    The source in book/ is not touched unless `in_place`; a chapter that fails leaves what it got to, with its
    outputs, in _build/failed/.

    Args:
        name: file name without .ipynb, or 'all'.
        parameters: other values for names of the cell tagged `parameters`.
        timeout: seconds that one cell may take.
        in_place: write the outputs into book/ itself, without the marks of this run, to be committed.

    Returns:
        The path of the executed notebook; for 'all' one a line.

    Raises:
        ValueError: an unknown chapter, or a parameter that the chapter does not have.
        ChapterError: a cell failed or ran out of time.
    """
    if name == "all":
        return "\n".join(execute(n, parameters, timeout=timeout, in_place=in_place) for n in names())
    if name not in names():
        raise ValueError(f"unknown chapter {name!r}; known are {', '.join(names())}.")
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    root = project_root()
    source = root / "book" / f"{name}.ipynb"
    parameters = {key: value for key, value in parameters.items() if (key, value) != ("profile", "digits")}
    if "profile" in parameters:
        load_profile(str(parameters["profile"]))
    known = set(papermill.inspect_notebook(str(source)))
    if unknown := set(parameters) - known:
        raise ValueError(
            f"chapter {name} has no parameter {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}."
        )
    running = root / "_build/failed" / f"{name}.ipynb"
    running.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(source), str(running), parameters=parameters, cwd=str(source.parent), kernel_name="python3",
            execution_timeout=timeout, progress_bar={"desc": name, "disable": None},
        )  # fmt: skip
    except PapermillExecutionError as error:
        raise ChapterError(
            f"chapter {name}, cell {error.cell_index + 1} (In [{error.exec_count}]): {error.ename}: {error.evalue}\n"
            f"The chapter as far as it got is in {running}."
        ) from None
    except Exception as error:
        if type(error).__name__ in ("CellTimeoutError", "DeadKernelError"):
            raise ChapterError(f"chapter {name}: {error}\nThe chapter as far as it got is in {running}.") from None
        raise
    notebook = nbformat.read(running, 4)
    target = source if in_place else root / "_build/src/book" / f"{name}.ipynb"
    if in_place:
        notebook.cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
        for metadata in (notebook.metadata, *(cell.metadata for cell in notebook.cells)):
            for key in ("papermill", "execution"):
                metadata.pop(key, None)
        notebook.metadata["language_info"] = {"name": "python"}
    write_atomically(target, (nbformat.writes(notebook) + "\n").encode())
    running.unlink()
    if in_place and name == "index":  # the README shows the landing page's figures
        for cell in notebook.cells:
            if figure := cell.metadata.get("mystnb", {}).get("figure"):
                (picture,) = (out.data["image/png"] for out in cell.outputs if "image/png" in out.get("data", {}))
                file = f"{figure['name'].removeprefix('fig-')}.png"
                write_atomically(root / "book/static" / file, base64.b64decode(picture))
    return str(target)


def build_pages() -> str:
    """Builds the HTML from the executed chapters under _build/src; a warning is an error.

    Returns:
        The page to open.

    Raises:
        ChapterError: Sphinx warned or failed; its words stand above.
    """
    root = project_root()
    source = root / "_build/src"
    for name in ("_config.yml", "_toc.yml", "book/references.bib", "book/references.md"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, source / name)
    shutil.copytree(root / "book/static", source / "book/static", dirs_exist_ok=True)
    for stale in set(source.glob("book/*.ipynb")) - {source / "book" / f"{name}.ipynb" for name in names()}:
        stale.unlink()
    script = Path(sys.executable).with_name("jupyter-book")
    command = [str(script), "build", "-W", "--keep-going", "-q", "--path-output", str(root), str(source)]
    if subprocess.run(command, check=False).returncode:
        raise ChapterError("the pages were not built; Sphinx's warnings above say why.")
    return str(root / "_build/html/index.html")


def build_book(profile: str = "digits", *, cores: int = 2, target: str = "all") -> str:
    """Runs the pipeline of the Snakefile: train, measure, execute, build, each only where it is out of date.

    Args:
        profile: what the live experiments run on.
        cores: jobs at a time.
        target: a rule of the Snakefile; `networks` trains only.

    Returns:
        The line to print: the page to open.

    Raises:
        ChapterError: a step failed; its own message stands above.
    """
    load_profile(profile)
    root = project_root()
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(root / "Snakefile"), "--directory", str(root),
        "--cores", str(cores), "--rerun-incomplete", "--config", f"profile={profile}", "--quiet", "rules", "progress",
        "host", "--", target,
    ]  # fmt: skip
    # A build that was killed leaves its lock behind; taking it away first is safe for one user and one checkout.
    subprocess.run([*command[:7], "--unlock"], capture_output=True, check=False)
    process = subprocess.Popen(command)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.wait()  # it got the same signal and is putting its jobs away
        raise
    if status:
        raise ChapterError(f"the book was not built (snakemake ended with {status}); the reason stands above.")
    return f"The book is built. Open {root / '_build/html/index.html'}" if target == "all" else f"{target}: done"
