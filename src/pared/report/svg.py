"""Matplotlib figures as SVG text that can stand several times in one page."""

import io
import math
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

# Okabe and Ito's colours, told apart by readers with any colour vision.
BLUE, VERMILION, GREEN, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#b4558c", "#56b4e9"
GREY, INK = "#7a7f87", "#22262b"
COLOURS = {"full": BLUE, "cut": VERMILION, "trained_on": SKY, "scratch": GREEN, "random": PURPLE}

_STYLE: Any = {
    "svg.hashsalt": "pared",  # ids without it are random
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.0,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#8d939b",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.8,
    "xtick.color": "#4a5058",
    "ytick.color": "#4a5058",
    "text.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
}


@dataclass(frozen=True)
class Drawing:
    """A figure of the page; without `svg`, the caption says why there is none."""

    name: str
    title: str
    caption: str
    svg: Markup | None = None


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power(value: float, _: object = None) -> str:
    """Tick label of a power of ten; empty for other values."""
    exponent = round(math.log10(value)) if value > 0 else 0
    return "10" + str(exponent).translate(_SUPERSCRIPT) if math.isclose(value, 10.0**exponent) else ""


def percentage(value: float, _: object = None) -> str:
    """Tick label of a share."""
    return f"{100 * value:.4g} %"


def style() -> AbstractContextManager[None]:
    """Context in which every figure is made and written: it neither follows nor changes the settings outside."""
    defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}
    return matplotlib.rc_context(defaults | _STYLE)


def canvas(rows: int = 1, columns: int = 1, height: float = 3.4, **layout: Any) -> tuple[Figure, list[Axes]]:
    """Figure as wide as the page with its axes, row by row."""
    figure = Figure(figsize=(8.8, height), layout=ConstrainedLayoutEngine(wspace=0.05))
    axes = figure.subplots(rows, columns, squeeze=False, **layout)
    return figure, list(axes.flat)


def inline(figure: Figure, name: str) -> Markup:
    """SVG element of the figure with `name` before every id, so that figures of one page do not collide."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*<style type=\"text/css\">.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r"<svg \1>", text, count=1)
    text = re.sub(r"\bid=\"", f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r"href=\"#", f'href="#{name}-', text)
    return Markup(text.strip())
