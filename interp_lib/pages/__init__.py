"""What a page of the book is made of: figures, tables, sliders, parameters, and how chapters are executed."""

from ..faces import lazy

__getattr__, __dir__, __all__ = lazy(__name__, {"style": "use_style", "widgets": "figure_slider"})
