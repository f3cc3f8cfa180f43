"""A Sphinx extension that labels the entries of the bibliography as the text cites them: author and year."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style as Plain
from pybtex.style.labels import BaseLabelStyle

if TYPE_CHECKING:
    from pybtex.database import Entry
    from sphinx.application import Sphinx

NAME = "author_year"  # for `bibtex_default_style` in _config.yml, whose `bibtex_reference_style` has that name, too


class AuthorYear(BaseLabelStyle):
    """Labels such as 'Boopathy et al., 2020': one author or two by name, of more the first."""

    def format_labels(self, sorted_entries: "Iterable[Entry]") -> Iterator[str]:
        """Yield the label of each entry."""
        for entry in sorted_entries:
            people = entry.persons["author"]
            names = [" ".join(map(str, [*one.rich_prelast_names, *one.rich_last_names])) for one in people]
            authors = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
            yield f"{authors}, {entry.fields['year']}"


class Style(Plain):
    """The plain style, sorted by author and year, with these labels."""

    default_label_style = AuthorYear


def setup(app: "Sphinx") -> dict[str, bool]:
    register_plugin("pybtex.style.formatting", NAME, Style)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
