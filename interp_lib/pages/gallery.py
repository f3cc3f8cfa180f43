"""One figure of a chapter under several sets of parameters, side by side; each set is a run by papermill."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from . import parameters as page
from .chapters import CELL_SECONDS, parameters_of, run_notebook
from .profiles import project_root


@dataclass(frozen=True)
class Run:
    """One run of a chapter: its parameters, the command that repeats it, its figure as base64, and what that shows."""

    parameters: dict[str, object]
    command: str
    png: str
    alt: str

    @property
    def title(self) -> str:
        return ", ".join(f"{name} = {value}" for name, value in self.parameters.items())


@dataclass(frozen=True)
class Gallery:
    """Runs of one chapter, shown side by side on a page, and as a list of commands elsewhere."""

    runs: list[Run]

    def __repr__(self) -> str:
        return "\n".join(run.command for run in self.runs)

    def _repr_html_(self) -> str:
        return '<div class="gallery">' + "".join(map(_card, self.runs)) + "</div>"


def _card(run: Run) -> str:
    command = f'<div class="highlight"><pre>{escape(run.command)}</pre></div>'
    picture = f'<img src="data:image/png;base64,{run.png}" alt="{escape(f"{run.title}: {run.alt}")}" loading="lazy">'
    caption = f"<figcaption>{escape(run.title)}</figcaption>"
    return f'<figure>{caption}<div class="highlight-bash notranslate">{command}</div>{picture}</figure>'


def side_by_side(chapter: str, figure: str, several: Sequence[Mapping], profile: str = "digits") -> Gallery:
    """Execute a chapter as far as one of its figures, once for each set of parameters, and collect the figures.

    Args:
        chapter: file name of the chapter, without .ipynb.
        figure: name of the figure in its cell's metadata, such as 'fig-own-attack'.
        several: sets of parameters, names and values as after `-p` of the command `chapter`.
        profile: profile of all runs.

    Raises:
        ValueError: the chapter has no such figure, or not one of the parameters, or a value is invalid.
        ChapterError: a cell failed.
    """
    import nbformat

    root = project_root()
    source = root / "book" / f"{chapter}.ipynb"
    known = parameters_of(source)
    notebook, folder = nbformat.read(source, 4), root / "_build/gallery"
    notebook.cells = notebook.cells[: _place(notebook, figure, chapter) + 1]
    folder.mkdir(parents=True, exist_ok=True)
    shortened, runs = folder / f"{chapter}-as-far-as-{figure}.ipynb", []
    nbformat.write(notebook, shortened)
    for number, given in enumerate(several):
        page.refuse_unknown(given, known, f"chapter {chapter}")
        chosen = {
            name: page.read(name, value) for name, value in {"profile": profile, **given}.items() if name in known
        }
        executed = folder / f"{chapter}-{number}.ipynb"
        run_notebook(chapter, shortened, executed, chosen, CELL_SECONDS, progress=False)
        png, alt = _figure(executed)
        runs.append(Run(dict(given), command(chapter, given, profile), png, alt))
    return Gallery(runs)


def command(chapter: str, given: Mapping[str, object], profile: str = "digits") -> str:
    """Return the command that runs a chapter with these parameters, one of them a line."""
    parts = [f"python -m interp_lib chapter {chapter}"]
    parts += [f"--profile {shlex.quote(profile)}"] * (profile != "digits")
    parts += [f"-p {shlex.quote(f'{name}={value}')}" for name, value in given.items()]
    return " \\\n    ".join(parts)


def _place(notebook, figure: str, chapter: str) -> int:
    """Return the place of the cell that draws a figure."""
    names = [cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in notebook.cells]
    if figure not in names:
        raise ValueError(f"chapter {chapter} has no figure {figure!r}; it has {', '.join(filter(None, names))}.")
    return names.index(figure)


def _figure(path: Path) -> tuple[str, str]:
    """Return the last picture of an executed notebook, as base64, and its description."""
    import nbformat

    pictures = [
        (output.data["image/png"], output.metadata.get("image/png", {}).get("alt", ""))
        for output in nbformat.read(path, 4).cells[-1].outputs
        if "image/png" in output.get("data", {})
    ]
    return pictures[-1]
