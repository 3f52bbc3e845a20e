"""Matplotlib figures as inline SVG: one style, no network, no dates, the same bytes each time."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType


INK, FAINT, GRID = "#1f2933", "#66727f", "#e4e8ec"

_STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": FAINT,
    "axes.labelsize": 9,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "ytick.major.size": 0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@contextmanager
def drawing(width: float = 4.7, height: float = 3.1) -> Iterator[tuple[Figure, Axes]]:
    """A figure of the given inches with one pair of axes, in the report's style."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**_STYLE, "svg.hashsalt": "sftlab"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def inline(figure: Figure, name: str, description: str) -> str:
    """The figure as an `<svg>` element for a page. Call it within `drawing`.

    Args:
        name: unique on the page; every id in the SVG starts with it, so that figures do not share ids.
        description: read out in place of the picture.
    """
    from markupsafe import escape
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    # Not by `savefig`, which draws all of a figure with a layout engine twice.
    FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    for pattern in _LEFT_OUT:
        text = pattern.sub("", text)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1).replace(
        " \n", " "
    )


# Sizes and fonts come from the page; the rest would reach beyond the figure or is of no use in a page.
_LEFT_OUT = [
    re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL),
    re.compile(r"<defs>\s*<style.*?</style>\s*</defs>\s*", re.DOTALL),
    re.compile(r' xmlns(:\w+)?="[^"]*"'),
    re.compile(r'(?<=<svg) width="[^"]*" height="[^"]*"| version="1\.1"'),
    re.compile(r"font-family: [^;\"]*; "),
    re.compile(r' transform="rotate\(-0 [^"]*"'),
    re.compile(r"(?m)^ +"),
]
