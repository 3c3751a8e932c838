"""Formulas (`$\\sigma_t$`, `$$ ... $$`) become MathML, which browsers show without a script."""

import html
import re

from latex2mathml.converter import convert


FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content, **kwargs):
    return FORMULA.sub(
        lambda found: convert(html.unescape(found[2]), "block" if found[1] == "div" else "inline"), content
    )
