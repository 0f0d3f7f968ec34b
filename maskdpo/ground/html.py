"""The text of HTML pages, without what a reader does not see."""

import re
from typing import NamedTuple

from maskdpo.extras import require

HIDDEN = "script, style, nav, noscript, template, svg, iframe, object, button, select, textarea, [hidden]"
_NOT_SHOWN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
PARAGRAPHS = (
    "address, article, aside, blockquote, dl, details, dialog, div, fieldset, figcaption, figure, footer, form, "
    "h1, h2, h3, h4, h5, h6, header, hr, main, ol, p, pre, section, summary, table, ul"
)
LINES = "br, caption, dd, dt, li, tr"
CELLS = "td, th"
_MARKS = {PARAGRAPHS: "\x1d", LINES: "\x1e", CELLS: "\x1f"}
"""Control characters that stand for a break between elements until white space has been folded."""


class Page(NamedTuple):
    """What is left of an HTML page."""

    title: str | None
    text: str


def page_of(html: str) -> Page:
    """The title and the text of a page: paragraphs with an empty line between them, lists and rows line by line."""
    require("selectolax", install="'maskdpo[html]'", purpose="reading HTML")
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(re.sub("[\x1d-\x1f]", " ", html))
    title = tree.css_first("head > title")
    name = " ".join(title.text().split()) if title is not None else ""
    if tree.body is None:
        return Page(name or None, "")
    for node in tree.body.css(HIDDEN):
        node.decompose()
    for node in tree.body.css("[style]"):
        if _NOT_SHOWN.search(node.attributes["style"] or ""):
            node.decompose()
    for selector, mark in _MARKS.items():
        for node in tree.body.css(selector):
            node.insert_before(mark)
            node.insert_after(mark)
    text = re.sub(r"[^\S\x1d-\x1f]+", " ", tree.body.text())
    text = re.sub(r" ?\x1d[ \x1d-\x1f]*|[ \x1e\x1f]+\x1d[ \x1d-\x1f]*", "\n\n", text)
    text = re.sub(r"[ \x1f]*\x1e[ \x1e\x1f]*", "\n", text)
    return Page(name or None, re.sub(r"[ \x1f]+", " ", text).strip())
