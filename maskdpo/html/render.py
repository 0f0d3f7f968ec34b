"""Pages as text: one self-contained HTML file, whatever is on it.

All data travels as one block of JSON that the page's script turns into text nodes; nothing from a record is ever parsed
as markup. Style and script are inlined and allowed by their hashes; all else, the network too, is forbidden.
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
"""The parts of every page's script, before its own."""

_UNSAFE = "<>&\u2028\u2029"


@dataclass(frozen=True)
class SummaryTable:
    """A small table above the rest: every row has as many cells as there are columns."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def render(
    package: str,
    template: str,
    scripts: Sequence[str],
    payload: Payload,
    title: str,
    summary: Sequence[SummaryTable] = (),
) -> bytes:
    """A page.

    Args:
        package: the package whose folder ``templates`` holds the page's own markup and scripts.
        template: the markup, a file in that folder.
        scripts: the parts of the script, in the order in which they run, after those of every page.
        payload: what the script finds as ``DATA``.
    """
    source = partial(_source, package)
    css = source("page/page.css")
    parts = "\n".join(source(f"{name}.js") for name in (*SHARED, *scripts))
    script = f'"use strict";\n(() => {{\n{parts}}})();\n'
    policy = (
        f"default-src 'none'; style-src {_hash(css)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=FunctionLoader(source))
    text = environment.get_template(template).render(
        policy=policy,
        title=title,
        version=__version__,
        summary=[asdict(table) for table in summary],
        css=Markup(css),  # our own files, not data
        script=Markup(script),
        data=Markup(to_json(payload)),  # escaped, for this very place
    )
    return text.encode(errors="replace")  # a lone surrogate becomes "?", one character: spans hold


def to_json(payload: Payload) -> str:
    """JSON that is safe inside a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in _UNSAFE:  # these stand in strings only; on a page of megabytes translate() is far slower
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _source(package: str, name: str) -> str:
    folder = files("maskdpo.html") if name.startswith("page/") else files(package) / "templates"
    return (folder / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
