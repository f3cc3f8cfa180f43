"""Everything behind a page of the book: figures, tables, sliders, parameters, and the execution of chapters."""

from ..faces import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {"live": "playground", "source": "show", "style": "use_style", "widgets": "figure_slider"},
)
