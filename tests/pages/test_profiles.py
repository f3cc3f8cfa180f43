"""Profiles: plain scalars, every one of them checked by name of file."""

import os
from pathlib import Path

import pytest
import yaml
from conftest import NO_YAML, ROOT

from interp_lib import models
from interp_lib.models import predict, released, trained
from interp_lib.pages import profiles
from interp_lib.pages.profiles import ProfileError

GOOD = {
    "dataset": "digits",
    "model": "small",
    "networks": "ours",
    "methods": "Normal, Int-Adv",
    "seeds": 2,
    "schedule": "digits",
    "n": 200,
}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout of its own, with no profile yet; returns a function that writes one."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)

    def write(content, name="mine"):
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        (tmp_path / "profiles" / f"{name}.yml").write_text(text, encoding="utf-8")

    return write


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "profiles").glob("*.yml")))
def test_committed_profiles_load(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    profile = profiles.load(name)
    assert profile.name == name and profile.n > 0
    assert profile.model in models.ARCHITECTURES and set(profile.method_names) <= set(released.METHODS)
    assert len(profile.trained()) == (profile.seeds * len(profile.method_names) if profile.networks == "ours" else 0)


def test_the_default_needs_no_download_and_no_released_network():
    profile = profiles.load()
    assert (profile.name, profile.dataset, profile.networks) == ("digits", "digits", "ours")


def test_a_profile_names_the_networks_that_it_trains(checkout):
    checkout(GOOD)
    slugs = [name.slug for name in profiles.load("mine").trained()]
    assert slugs == [
        "digits-small-normal-s0-digits",
        "digits-small-normal-s1-digits",
        "digits-small-int-adv-s0-digits",
        "digits-small-int-adv-s1-digits",
    ]
    checkout(GOOD | {"networks": "released"})
    assert profiles.load("mine").trained() == []


@pytest.mark.parametrize(
    "content, words",
    [
        (GOOD | {"epochs": 3}, ("keys", "epochs")),
        ({k: v for k, v in GOOD.items() if k != "n"}, ("keys", "look at n")),
        ({}, ("keys", "dataset")),
        ("", ("keys", "dataset")),
        ("3", ("keys", "dataset")),
        ("[dataset, model]", ("keys", "schedule")),
        ("some text", ("keys", "schedule")),
        (GOOD | {1: 2}, ("keys", "look at 1")),
        *((text, ("is not YAML of plain values", word)) for text, word in NO_YAML),
        (GOOD | {"n": -5}, ("n must be at least 1; got -5",)),
        (GOOD | {"n": 0}, ("n must be at least 1",)),
        (GOOD | {"seeds": 0}, ("seeds must be at least 1",)),
        (GOOD | {"networks": "released", "seeds": -1}, ("seeds must be at least 0",)),
        (GOOD | {"methods": "Int, Int"}, ("methods names one twice",)),
        (GOOD | {"schedule": "slow"}, ("unknown schedule 'slow'", "paper")),
        (GOOD | {"schedule": "paper"}, ("schedule 'paper' is for mnist, cifar10, not for 'digits'",)),
        (GOOD | {"networks": "released", "schedule": "slow"}, ("unknown schedule 'slow'",)),
        (GOOD | {"dataset": 10**3 * "\x1b"}, ("dataset must be one of",)),
        (GOOD | {"n": "200"}, ("n must be of type int", "'200'")),
        (GOOD | {"n": 200.0}, ("n must be of type int", "200.0")),
        (GOOD | {"seeds": True}, ("seeds must be of type int", "True")),
        (GOOD | {"schedule": None}, ("schedule must be of type str", "None")),
        (GOOD | {"methods": ["Normal"]}, ("methods must be of type str",)),
        (GOOD | {"networks": "theirs"}, ("'ours' or 'released'", "theirs")),
        (GOOD | {"methods": "Normal, int"}, ("no such method", "int")),
    ],
)
def test_bad_profiles_are_refused_by_name(checkout, content, words):
    checkout(content)
    with pytest.raises(ProfileError) as caught:
        profiles.load("mine")
    message = str(caught.value)
    for word in ("profiles/mine.yml", *words):
        assert word in message
    assert message.isprintable() and len(message) < 1100


def test_unknown_profiles_list_the_known_ones(checkout):
    checkout(GOOD, "one")
    checkout(GOOD, "two")
    for name in ("three", "", "../one"):
        with pytest.raises(ProfileError, match="unknown profile .*; known are one, two"):
            profiles.load(name)


def test_networks_are_loaded_or_the_command_is_named(checkout, tmp_path):
    checkout(GOOD)
    profile = profiles.load("mine")
    with pytest.raises(FileNotFoundError, match="s1-digits is not trained.*interp_lib train --profile mine"):
        profile.load_network("Int-Adv", 1)
    model = models.build("small", (1, 8, 8), 3, seed=2)
    trained.save(model, profile.trained()[3].path(tmp_path / "_build/networks"), {"method": "Int-Adv"})
    assert predict.fingerprint(profile.load_network("Int-Adv", 1)) == predict.fingerprint(model)


def test_released_networks_come_from_the_authors(checkout, released_folder, monkeypatch):
    checkout(GOOD | {"networks": "released", "dataset": "mnist"})
    monkeypatch.setenv("INTERP_RELEASED", str(released_folder))
    loaded = profiles.load("mine").load_network("Int")
    expected = released.read_network(released.find("mnist", "small", "Int", released_folder))
    assert predict.fingerprint(loaded) == predict.fingerprint(expected)


def test_the_root_is_the_checkout_around_or_the_packages_own(checkout, tmp_path):
    inside = tmp_path / "book" / "deep"
    inside.mkdir(parents=True)
    os.chdir(inside)  # the fixture changes back
    assert profiles.project_root() == tmp_path
    assert profiles.project_root(Path(os.sep)) == ROOT
