"""Cards: the README.md of a repository on the Hub, which begins with a YAML header that the Hub reads."""

import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import jinja2
import yaml

from maskdpo.errors import InputError

CARD = "README.md"
HEADER = re.compile(r"\A---\n(.*?)^---\n?", re.DOTALL | re.MULTILINE)


def split_card(card: str) -> tuple[dict[str, Any], str]:
    """The header of a card that people may have written, and the text below it.

    Raises:
        InputError: the header is not valid YAML, or no mapping.
    """
    card = card.replace("\r\n", "\n")
    found = HEADER.match(card)
    if found is None:
        return {}, card
    try:
        header = yaml.safe_load(found[1]) or {}
    except yaml.YAMLError:
        header = None
    if not isinstance(header, dict):
        raise InputError("the YAML between the first --- and the next cannot be read; correct it", path=CARD)
    return header, card[found.end() :]


def join_card(header: Mapping[str, Any], text: str) -> str:
    return f"---\n{yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True, width=120)}---\n{text}"


def card_template(package: str, name: str, filters: Mapping[str, Callable[..., str]]) -> jinja2.Template:
    """A template in the folder ``templates`` of a package."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= filters
    return environment.from_string((files(package) / "templates" / name).read_text(encoding="utf-8"))
