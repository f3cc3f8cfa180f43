"""One image under an attack whose settings a reader changes: live with a kernel, ready-made frames without one."""

import time
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import ipywidgets
from torch import Tensor, nn

from ..checks import check_images
from ..models.predict import predictions
from ..study.one_image import ATTACKS, SHOWN, STARTS, TITLES, attack_image
from ..values import check_each, check_number, check_radius
from .map_figures import attack_panel
from .widgets import figure_slider

FRAMES = 7  # radii of the ready-made frames


def playground(
    model: nn.Module,
    x: Tensor,
    *,
    classes: Sequence[str] | None = None,
    label: int | None = None,
    largest: float = 0.4,
    steps: int = 20,
    eps: Sequence[float] | None = None,
) -> ipywidgets.VBox:
    """Show one image under an attack, with controls for everything that `study.attack_image` takes.

    Where a kernel runs, as in JupyterLab, the controls appear, and every change is computed anew when a slider is
    released. On a page without a kernel a slider shows ready-made frames instead: untargeted PGD for several radii.

    Args:
        model: a network with a CAM, see `adapt`.
        x: one image (1, C, H, W) in [0, 1], on the model's device.
        classes: names of the classes. Default: their numbers.
        label: the image's class t. Default: the network's prediction.
        largest: the largest eps of the control, in (0, 1].
        steps: number of steps at the beginning, and of the ready-made frames.
        eps: radii of the ready-made frames. Default: seven from 0 to `largest`.

    Returns:
        The widget; make it the last expression of a cell, or display it.

    Raises:
        TypeError, ValueError: see `checks`; also more than one image, or a number of names other than of classes.
    """
    check_images(x)
    if len(x) != 1:
        raise ValueError(f"x must be one image (1, C, H, W); got {tuple(x.shape)}. Write x[:1].")
    check_radius(largest, "largest", above=True)
    radii = [largest * k / (FRAMES - 1) for k in range(FRAMES)] if eps is None else list(eps)
    check_each(radii, "eps", check_radius)
    check_number(steps, "steps", 1, 1000)
    t = int(predictions(model, x)) if label is None else label
    first: dict[str, Any] = {"attack": "PGD", "label": t, "steps": steps}
    frames = [attack_image(model, x, eps=e, alpha=max(e, 1e-3) / 4, **first) for e in radii]
    names = [str(c) for c in (range(frames[0].logits.shape[1]) if classes is None else classes)]
    if len(names) != frames[0].logits.shape[1]:
        raise ValueError(f"classes must name {frames[0].logits.shape[1]} classes; got {len(names)}.")
    figures = [attack_panel(one, names, eps=e) for one, e in zip(frames, radii, strict=True)]
    ready = figure_slider(figures, [f"{e:.3g}" for e in radii], value_index=len(radii) // 2)
    box = ipywidgets.VBox([ready], layout={"max_width": "100%"})
    # The browser counts the views of a widget that asks for it, and only a kernel hears of it: a page without one, and
    # a chapter that is executed without a browser, keep the ready-made frames.
    box._view_count = 0

    def shown(_: Any) -> None:
        box.unobserve(shown, "_view_count")
        box.children = (Controls(model, x, names, t, largest, steps).box,)

    box.observe(shown, "_view_count")
    return box


class Controls:
    """The controls and the figure of `playground`, which follow each other while a kernel runs.

    Attributes:
        box: the widget.
        attacked: the result that is shown, see `study.attack_image`.
        seconds: how long the last change took.
    """

    def __init__(self, model: nn.Module, x: Tensor, names: Sequence[str], label: int, largest: float, steps: int):
        self.model, self.x, self.names = model, x, names
        on_release: dict[str, Any] = {"continuous_update": False, "layout": {"width": "19rem", "max_width": "100%"}}
        choice: dict[str, Any] = {"layout": {"width": "19rem", "max_width": "100%"}}
        radius = {"min": 0.0, "max": largest, "step": largest / 80, "readout_format": ".4f", **on_release}
        self.controls: dict[str, Any] = {
            "attack": ipywidgets.Dropdown(options=ATTACKS, description="attack", **choice),
            "eps": ipywidgets.FloatSlider(value=largest / 2, description="ε", **radius),
            "alpha": ipywidgets.FloatSlider(value=largest / 8, description="α", **radius),
            "steps": ipywidgets.IntSlider(value=steps, min=0, max=200, description="steps", **on_release),
            "label": ipywidgets.Dropdown(options=_numbered(names), value=label, description="class t", **choice),
            "target": ipywidgets.Dropdown(
                options=[("any other", None), *_numbered(names)], description="target t′", **choice
            ),
            "start": ipywidgets.Dropdown(options=STARTS, description="start", **choice),
            "interpreter": ipywidgets.Dropdown(options=[(TITLES[m], m) for m in SHOWN], description="map", **choice),
            "seed": ipywidgets.BoundedIntText(value=0, min=0, max=2**31 - 1, description="seed", **choice),
        }
        self.picture, self.note = ipywidgets.HTML(), ipywidgets.HTML()
        for control in self.controls.values():
            control.observe(self.update, "value")
        panel = ipywidgets.HBox(list(self.controls.values()), layout={"flex_flow": "row wrap"})
        self.box = ipywidgets.VBox([panel, self.note, self.picture], layout={"max_width": "100%"})
        self.update()

    def update(self, _: Any = None) -> None:
        """Compute and draw what the controls say; a request that cannot be computed is answered in words."""
        began = time.perf_counter()
        chosen = {name: control.value for name, control in self.controls.items()}
        # The start and the target do not matter to every attack: controls without an effect are switched off.
        self.controls["start"].disabled = chosen["attack"] == "ISA"
        self.controls["target"].disabled = chosen["attack"] == "AAI"
        try:
            self.attacked = attack_image(self.model, self.x, **chosen)
        except ValueError as error:
            self.note.value = str(error)
            return
        figure = attack_panel(self.attacked, self.names, eps=chosen["eps"])
        drawn = BytesIO()
        figure.savefig(drawn, format="png", dpi=100)
        self.picture.value = (
            f'<img alt="{chosen["attack"]}, ε = {chosen["eps"]:.4f}" style="max-width: 100%" '
            f'src="data:image/png;base64,{b64encode(drawn.getvalue()).decode()}">'
        )
        self.seconds = time.perf_counter() - began
        self.note.value = f"computed in {self.seconds:.2f} s"


def _numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    """Return the options of a control that chooses a class: (name, class), the number added to names that repeat."""
    return [(name if names.count(name) == 1 else f"{name} ({c})", c) for c, name in enumerate(names)]
