"""The playground: ready-made frames where no kernel answers, controls where one does."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import pytest
import torch
from ipywidgets.embed import embed_data

from interp_lib.models.architectures import build
from interp_lib.pages.live import Controls, playground
from interp_lib.study import attack_image

NAMES = ["top", "middle", "bottom"]


@pytest.fixture
def scene(tiny_dataset):
    return build("small", (1, 8, 8), 3, seed=0).eval(), tiny_dataset.test.x(slice(1))


def test_without_a_kernel_a_slider_shows_ready_made_frames(scene):
    box = playground(*scene, classes=NAMES, eps=[0, 0.1, 0.2])
    state = embed_data(views=[box])["manager_state"]["state"].values()
    kinds = [model["model_name"] for model in state]
    assert "SelectionSliderModel" in kinds and "FloatSliderModel" not in kinds and "DropdownModel" not in kinds
    frames = box.children[0].children[1].children
    assert len({frame.value for frame in frames}) == 3 and "ε = 0.2" in frames[2].value
    assert not plt.get_fignums()


def test_a_browser_with_a_kernel_brings_the_controls(scene):
    box = playground(*scene, classes=NAMES, eps=[0, 0.1])
    box._view_count = 1  # what the browser's first view sends
    kinds = {type(child).__name__ for child in box.children[0].children[0].children}
    assert kinds == {"Dropdown", "FloatSlider", "IntSlider", "BoundedIntText"}
    before = box.children
    box._view_count = 2
    assert box.children is before


def test_controls_compute_what_they_say_and_only_on_release(scene):
    model, x = scene
    panel = Controls(model, x, NAMES, 0, 0.4, 5)
    sliders = [c for c in panel.controls.values() if hasattr(c, "continuous_update")]
    assert len(sliders) == 4 and not any(c.continuous_update for c in sliders)
    first = panel.picture.value
    for name, value in (("eps", 0.3), ("alpha", 0.1), ("attack", "AAI"), ("start", "random point"), ("seed", 3)):
        panel.controls[name].value = value
    expected = {"attack": "AAI", "eps": 0.3, "alpha": 0.1, "steps": 5, "start": "random point", "seed": 3}
    assert torch.equal(panel.attacked.x_adv, attack_image(model, x, label=0, **expected).x_adv)
    assert panel.picture.value != first and 'alt="AAI, ε = 0.3000"' in panel.picture.value
    assert panel.controls["target"].disabled and not panel.controls["start"].disabled
    assert "computed in" in panel.note.value and not plt.get_fignums()


def test_what_cannot_be_computed_is_answered_in_words(scene):
    panel = Controls(*scene, NAMES, 0, 0.4, 5)
    before = panel.picture.value
    panel.controls["target"].value = 0
    assert "another class than the label 0" in panel.note.value and panel.picture.value == before
    panel.controls["target"].value = 2
    assert "computed in" in panel.note.value and panel.attacked.pair == (0, 2)


def test_classes_of_one_name_can_be_told_apart(scene):
    panel = Controls(*scene, ["a", "a", "b"], 1, 0.4, 5)
    assert [label for label, _ in panel.controls["label"].options] == ["a (0)", "a (1)", "b"]
    assert panel.controls["label"].value == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"classes": ["a"]}, "classes must name 3 classes; got 1"),
        ({"largest": 8}, "Write 8/255, not 8"),
        ({"largest": 0}, "largest must be"),
        ({"eps": []}, "at least one value"),
        ({"steps": 0}, "steps must be"),
        ({"label": 7}, "label must lie in 0 .. 2"),
    ],
)
def test_refuses(settings, words, scene):
    with pytest.raises(ValueError, match=words):
        playground(*scene, **settings)


def test_refuses_two_images(scene):
    model, x = scene
    with pytest.raises(ValueError, match="one image"):
        playground(model, x.repeat(2, 1, 1, 1))
