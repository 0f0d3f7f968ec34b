"""Sentence splitters. To add one: a function that makes it, in a module of its own, and a line in ``_MAKERS``."""

from collections.abc import Callable

from maskdpo.annotate.splitters.base import BlockSplitter, Splitter
from maskdpo.annotate.splitters.markdown import markdown_splitter
from maskdpo.errors import UserError

__all__ = ["BlockSplitter", "Splitter", "get_splitter"]

_MAKERS: dict[str, Callable[[], Splitter]] = {"markdown": markdown_splitter}


def get_splitter(name: str) -> Splitter:
    """The splitter called ``name``: ``markdown``."""
    if name not in _MAKERS:
        raise UserError(f"unknown splitter {name!r}; known: {', '.join(_MAKERS)}")
    return _MAKERS[name]()
