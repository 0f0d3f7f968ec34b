"""The YAML header of a card that people may have written: what they wrote stays to the letter.

YAML is read in two ways: to some readers ``no`` is a text and ``1.10`` a version, to others false and the number 1.1.
So nothing is read and written again; a key that maskdpo sets is put into the text, and the lines of all others stay.
"""

from collections.abc import Iterable
from io import StringIO
from typing import Any, NamedTuple

import yaml

from maskdpo.errors import InputError

CARD = "README.md"
UNREADABLE = "the YAML between the first --- and the next cannot be read; correct it"


class Part(NamedTuple):
    """One key of a header."""

    lead: str
    """The comments and blank lines above it."""
    text: str
    node: yaml.Node | None
    """The value; None where maskdpo has set it."""


Header = dict[str, Part]


def parse_header(text: str) -> Header:
    """The keys of a header, in their order.

    Raises:
        InputError: it is not valid YAML, no mapping, or has a key twice.
    """
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError:
        root = yaml.ScalarNode("", "")
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode) or not all(isinstance(key, yaml.ScalarNode) for key, _ in root.value):
        raise InputError(UNREADABLE, path=CARD)
    header: Header = {}
    for (key, value), (lead, lines) in zip(root.value, _parts(root, text), strict=True):
        if key.value in header:
            raise InputError("is there twice in the YAML; delete one of the two", path=CARD, field=key.value)
        header[key.value] = Part(lead, lines, value)
    return header


def _parts(root: yaml.MappingNode, text: str) -> Iterable[tuple[str, str]]:
    """For each key the lines of comments above it, and its own lines."""
    if root.flow_style:
        return [("", _text_of(key, value)) for key, value in root.value]
    lines = text.splitlines(keepends=True)
    begins = [key.start_mark.line for key, _ in root.value]
    leads = []
    for begin, end_of_last in zip(begins, [-1, *begins], strict=False):
        first = begin
        while first - 1 > end_of_last and (not lines[first - 1].strip() or lines[first - 1].startswith("#")):
            first -= 1
        leads.append(first)
    ends = [*leads[1:], len(lines)]
    return [
        ("".join(lines[lead:begin]), "".join(lines[begin:end]))
        for lead, begin, end in zip(leads, begins, ends, strict=True)
    ]


def listed(header: Header, key: str, kind: type[yaml.Node]) -> list[yaml.Node]:
    """The values under a key: one, a list, or none.

    Args:
        kind: what each must be: ``yaml.ScalarNode`` (a text) or ``yaml.MappingNode``.
    """
    node = header[key].node if key in header else None
    if node is None or node.tag == "tag:yaml.org,2002:null":
        return []
    found = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if not all(isinstance(value, kind) for value in found):
        what = "texts" if kind is yaml.ScalarNode else "mappings"
        raise InputError(f"must be a list of {what} in the YAML; put it right", path=CARD, field=key)
    return list(found)


def entry(mapping: yaml.Node, key: str) -> str | None:
    """The text under a key of a mapping."""
    return next((str(value.value) for name, value in mapping.value if name.value == key), None)


def set_value(header: Header, key: str, value: Any) -> None:
    """Set a key. In a list there may also be values that ``listed`` has returned: these stay as people wrote them."""
    node = yaml.SequenceNode("tag:yaml.org,2002:seq", [*map(_node, value)]) if isinstance(value, list) else _node(value)
    lead = header[key].lead if key in header else ""
    header[key] = Part(lead, _text_of(_node(key), node), None)


def header_text(header: Header) -> str:
    """The header, without the lines of dashes around it."""
    text = "".join(f"{part.lead}{part.text.rstrip()}\n" if part.text.strip() else "" for part in header.values())
    try:
        yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", error)
        raise InputError(
            f"the YAML cannot be kept as it is ({problem}); write out what its aliases stand for", path=CARD
        ) from None
    return text


def _node(value: Any) -> yaml.Node:
    if isinstance(value, yaml.Node):
        return value
    node: yaml.Node = yaml.SafeDumper(StringIO(), sort_keys=False).represent_data(value)
    return node


def _text_of(key: yaml.Node, value: yaml.Node) -> str:
    mapping = yaml.MappingNode("tag:yaml.org,2002:map", [(key, value)])
    text: str = yaml.serialize(mapping, Dumper=yaml.SafeDumper, allow_unicode=True, width=120)
    return text
