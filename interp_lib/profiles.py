"""A profile says what the book's live experiments run on: one YAML file of plain scalars, `profiles/NAME.yml`."""

import os
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from . import data, models, networks, released
from .models import GlobalPoolNetwork


class ProfileError(ValueError):
    """A profile with an unknown key, a missing key or a value of the wrong kind."""


def project_root(start: str | os.PathLike = ".") -> Path:
    """The checkout that holds `start`, else the one that this package was installed from.

    Raises:
        FileNotFoundError: neither is a checkout of this project.
    """
    start = Path(start).resolve()
    for folder in (start, *start.parents, Path(__file__).resolve().parent.parent):
        if (folder / "profiles").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    raise FileNotFoundError(f"{start} is in no checkout of this project; run from a clone of it.")


@dataclass(frozen=True)
class Profile:
    """What the live experiments run on.

    Attributes:
        name: of the file.
        dataset, model: of the experiments.
        networks: 'ours', trained by the build under _build/networks, or 'released'.
        methods: rows of the tables, separated by commas.
        seeds: networks a method that the build trains, seeds 0 .. seeds - 1.
        schedule: how they are trained.
        n: images of the evaluation subset.
    """

    name: str
    dataset: str
    model: str
    networks: str
    methods: str
    seeds: int
    schedule: str
    n: int

    @property
    def method_names(self) -> list[str]:
        return [method.strip() for method in self.methods.split(",")]

    def trained(self) -> list[networks.NetworkName]:
        """The networks that this profile has to train; none where it uses the released ones."""
        return [
            networks.NetworkName(self.dataset, self.model, method, seed, self.schedule)
            for method in self.method_names
            for seed in range(self.seeds)
            if self.networks == "ours"
        ]

    def load_network(self, method: str, seed: int = 0) -> GlobalPoolNetwork:
        """A network of this profile, in evaluation mode.

        Raises:
            FileNotFoundError: with the command that trains it, or the way to the released ones.
        """
        if self.networks == "released":
            return released.read_network(released.find(self.dataset, self.model, method))
        name = networks.NetworkName(self.dataset, self.model, method, seed, self.schedule)
        path = name.path(project_root() / "_build/networks")
        if not path.exists():
            raise FileNotFoundError(
                f"{name.slug} is not trained yet. Run: python -m interp_lib train --profile {self.name}"
            )
        return networks.load(path)[0]

    def load_data(self) -> data.Dataset:
        return data.load(self.dataset)


def load(name: str = "digits") -> Profile:
    """A profile by name.

    Raises:
        ProfileError: an unknown name, an unknown or a missing key, or a value of the wrong kind.
    """
    folder = project_root() / "profiles"
    known = sorted(path.stem for path in folder.glob("*.yml"))
    if name not in known:
        raise ProfileError(f"unknown profile {name!r}; known are {', '.join(known)}.")
    try:
        content = yaml.safe_load((folder / f"{name}.yml").read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ProfileError(f"profiles/{name}.yml is no YAML: {reason}.") from None
    expected = {f.name: f.type for f in fields(Profile) if f.name != "name"}
    if not isinstance(content, dict) or set(content) != set(expected):
        wrong = sorted(map(str, set(content if isinstance(content, dict) else ()) ^ set(expected)))
        raise ProfileError(f"profiles/{name}.yml must have the keys {', '.join(expected)}; look at {', '.join(wrong)}.")
    for key, kind in expected.items():
        if type(content[key]) is not kind:
            raise ProfileError(f"profiles/{name}.yml: {key} must be of type {kind.__name__}; got {content[key]!r}.")
    profile = Profile(name=name, **content)
    if profile.networks not in ("ours", "released"):
        raise ProfileError(f"profiles/{name}.yml: networks must be 'ours' or 'released'; got {profile.networks!r}.")
    for key, known in (("dataset", data.TITLES), ("model", models.ARCHITECTURES)):
        if content[key] not in known:
            raise ProfileError(f"profiles/{name}.yml: {key} must be one of {', '.join(known)}; got {content[key]!r}.")
    if unknown := [method for method in profile.method_names if method not in released.METHODS]:
        raise ProfileError(f"profiles/{name}.yml: no such method: {', '.join(unknown)}.")
    return profile
