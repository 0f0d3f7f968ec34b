"""Renders a page as one self-contained HTML file.

All data are one block of JSON, which the script of the page turns into text nodes: nothing from a record is ever parsed
as markup. Style and script are inlined and allowed by their hashes; everything else is forbidden, the network too.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from maskdpo import __version__

Payload = dict[str, Any]

SHARED = ("page/dom", "page/controls")
"""The parts of the script that all pages share; they run before the parts of the page itself."""

_UNSAFE = "<>&\u2028\u2029"


@dataclass(frozen=True)
class SummaryTable:
    """A small table at the top of a page. Every row has as many cells as there are columns."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    """What a reader must know of the figures: whole sentences, below the table."""


def render(
    package: str,
    template: str,
    scripts: Sequence[str],
    payload: Payload,
    title: str,
    summary: Sequence[SummaryTable] = (),
    *,
    connect: bool = False,
) -> bytes:
    """The bytes of a page.

    Args:
        package: the package whose folder ``templates`` holds the markup and the scripts of this page.
        template: the markup, a file in that folder.
        scripts: the parts of the script, in the order in which they run, after ``SHARED``.
        payload: the data, which the script has as ``DATA``.
        connect: allow the script to ask the server that the page is from; else it asks the network for nothing.
    """
    source = partial(_source, package)
    css = source("page/page.css")
    parts = "\n".join(source(f"{name}.js") for name in (*SHARED, *scripts))
    script = f'"use strict";\n(() => {{\n{parts}}})();\n'
    policy = (
        f"default-src 'none'; style-src {_hash(css)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    ) + ("; connect-src 'self'" if connect else "")
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=FunctionLoader(source))
    text = environment.get_template(template).render(
        policy=policy,
        title=title,
        version=__version__,
        summary=[asdict(table) for table in summary],
        css=Markup(css),  # files of the package, not data
        script=Markup(script),
        data=Markup(to_json(payload)),  # escaped for this place
    )
    return text.encode(errors="replace")  # a lone surrogate becomes "?", one character, so spans stay valid


def to_json(payload: Payload) -> str:
    """JSON for a script element: escaped so that it cannot end the element or open a comment."""
    text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in _UNSAFE:  # these occur in strings only; for megabytes, translate() is far slower
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _source(package: str, name: str) -> str:
    folder = files("maskdpo.html") if name.startswith("page/") else files(package) / "templates"
    return (folder / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
