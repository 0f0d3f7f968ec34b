"""Cards: the README.md of a repository on the Hub, which begins with a YAML header that the Hub reads."""

import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import jinja2

from maskdpo.hub.header import Header, header_text, parse_header, set_value

HEADER = re.compile(r"\A---\n(.*?)^---\n?", re.DOTALL | re.MULTILINE)


def split_card(card: str) -> tuple[Header, str]:
    """The header of a card that people may have written, and the text below it.

    Raises:
        InputError: the header is not valid YAML, or no mapping.
    """
    card = card.replace("\r\n", "\n")
    found = HEADER.match(card)
    return ({}, card) if found is None else (parse_header(found[1]), card[found.end() :])


def new_header(values: Mapping[str, Any]) -> Header:
    header: Header = {}
    for key, value in values.items():
        set_value(header, key, value)
    return header


def join_card(header: Header, text: str) -> str:
    return f"---\n{header_text(header)}---\n{text}"


def card_template(package: str, name: str, filters: Mapping[str, Callable[..., str]]) -> jinja2.Template:
    """A template in the folder ``templates`` of a package."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= filters
    return environment.from_string((files(package) / "templates" / name).read_text(encoding="utf-8"))
