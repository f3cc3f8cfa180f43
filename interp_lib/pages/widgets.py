"""Make sliders that need no kernel: every frame is drawn beforehand and stored inside the page."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from .style import describe


def figure_slider(
    figures: Sequence[Figure],
    labels: Sequence[object],
    description: str = "ε",
    value_index: int = 0,
    *,
    play: bool = True,
) -> ipywidgets.VBox:
    """Show one figure at a time, chosen with a slider, also on a static page without a kernel.

    The slider is linked to the frames in the browser (``jslink``), so the widget's stored state is all that
    a page needs. The figures are closed in pyplot, so that the cell shows the slider and not every figure below it.
    On a page of the book, `book/static/access.js` names the controls for screen readers and lets the slider say the
    label of the frame where it would say its index.

    Args:
        figures: the frames, preferably all of one size, so that the page does not jump.
        labels: one label per frame, shown beside the slider as ``str(label)``; they must differ.
        description: the quantity that the slider changes, in Unicode (ε, not ``$\\epsilon$``: widgets render no LaTeX).
        value_index: index of the frame shown first.
        play: whether to add a button that runs through the frames.

    Returns:
        The widget; make it the last expression of a cell, or display it.

    Raises:
        ValueError: no figures, a number of labels other than that of figures, repeated labels, or ``value_index`` out
            of range.
    """
    labels = [str(label) for label in labels]
    if not figures:
        raise ValueError("figures must hold at least one figure; got none")
    if len(figures) != len(labels):
        raise ValueError(f"need one label per figure; got {len(figures)} figures and {len(labels)} labels")
    if len(set(labels)) < len(labels):
        raise ValueError(f"labels must differ from each other; got {labels}")
    if not 0 <= value_index < len(figures):
        raise ValueError(f"value_index must lie in 0..{len(figures) - 1}; got {value_index}")

    frames = [_frame(figure, f"{description} = {label}") for figure, label in zip(figures, labels, strict=True)]
    stack = ipywidgets.Stack(frames, selected_index=value_index, layout={"max_width": "100%"})
    slider = ipywidgets.SelectionSlider(
        options=labels,
        index=value_index,
        description=description,
        tooltip=f"{description}: drag, or use the arrow keys",  # without one the browser shows "null"
        style={"description_width": "initial"},
        layout={"width": "22rem", "max_width": "100%"},
    )
    ipywidgets.jslink((slider, "index"), (stack, "selected_index"))
    controls = [slider]
    if play and len(figures) > 1:
        button = ipywidgets.Play(value=value_index, min=0, max=len(figures) - 1, interval=700, show_repeat=False)
        ipywidgets.jslink((button, "value"), (slider, "index"))
        controls.append(button)
    box = ipywidgets.VBox([ipywidgets.HBox(controls, layout={"flex_flow": "row wrap"}), stack])
    box.add_class("figure-slider")
    return box


def figure_png(figure: Figure, pixels_per_inch: float = 150) -> bytes:
    """Render the figure as a PNG with a palette of 256 colours, about half of the usual size."""
    full, small = BytesIO(), BytesIO()
    figure.savefig(full, format="png", dpi=pixels_per_inch)
    image = Image.open(full).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(small, format="png", optimize=True)
    return small.getvalue()


def _frame(figure: Figure, state: str) -> ipywidgets.HTML:
    """Make one frame with a fixed size, so that the page does not jump, and alternative text for screen readers.

    It is an HTML widget, because an Image widget has no alternative text, and an Image with a tooltip breaks the page.
    """
    plt.close(figure)
    width, height = (round(100 * inches) for inches in figure.get_size_inches())
    text = escape(", ".join(filter(None, (describe(figure), state))))
    data = b64encode(figure_png(figure)).decode()
    return ipywidgets.HTML(
        f'<img alt="{text}" width="{width}" height="{height}" style="max-width: 100%; height: auto" '
        f'src="data:image/png;base64,{data}">',
        layout={"max_width": "100%"},
    )
