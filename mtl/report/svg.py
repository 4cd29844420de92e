"""A figure as an ``<svg>`` element of a page: the only HTML that no template writes."""

from __future__ import annotations

import io
import re
from typing import Any

from markupsafe import Markup, escape

from mtl.report import drawing


def inline_svg(figure: Any, prefix: str, label: str) -> Markup:
    """Write a figure as an ``<svg>`` element to stand inside a page.

    Text stays text, what is drawn in ink takes the page's colour (to be read on dark), ids get a prefix
    (several figures share a page), and nothing names another host.

    Args:
      figure: from `mtl.report.figures`, or any of matplotlib's.
      prefix: unique in the page; letters, digits and dashes.
      label: what a screen reader says.

    Returns:
      The element.
    """
    out = io.StringIO()
    drawing.write(figure, out, "svg", fonttype="none")
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.S)  # it would apply to the whole page
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}-", svg)
    svg = re.sub(r'(xlink:)?href="#', f'href="#{prefix}-', svg)
    # The paper of the figure is the first patch; the page has its own.
    svg = re.sub(rf'(<g id="{prefix}-patch_1">.*?)fill: #ffffff', r"\1fill: none", svg, count=1, flags=re.S)
    for i, color in enumerate(drawing.COLORS):  # dark pages lighten the darkest
        svg = svg.replace(color, f"var(--c{i}, {color})")
    svg = (
        svg.replace(drawing.SOFT, "var(--soft)")
        .replace(drawing.INK, "currentColor")
        .replace("fill: #ffffff", "fill: var(--paper)")
    )
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    assert size is not None
    svg = svg.replace(size.group(0), f'role="img" aria-label="{escape(" ".join(label.split()))}"', 1)
    # The one place where text is declared to be HTML: matplotlib has escaped its words, the line above the label.
    return Markup("\n".join(line.rstrip() for line in svg.strip().splitlines()) + "\n")
