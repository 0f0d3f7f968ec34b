"""The built-in judges. To add one: a module with its factory and a line in ``get_judge``."""

import importlib
from collections.abc import Callable

from maskdpo.annotate.judge import Judge
from maskdpo.annotate.judges.lexical import lexical_judge
from maskdpo.annotate.judges.llm import llm_judge
from maskdpo.backends.base import Backend
from maskdpo.errors import UserError

KNOWN = "lexical, llm, or package.module:factory for one of your own"


def get_judge(name: str, *, make_backend: Callable[[], Backend], protocol: str = "single", votes: int = 1) -> Judge:
    """A judge by name.

    Args:
        make_backend: called for the ``llm`` judge, which speaks through it.
        protocol: for the ``llm`` judge: the name of a built-in protocol, or a folder of templates.
        votes: for the ``llm`` judge: verdicts to sample for each label.
    """
    if name == "lexical":
        return lexical_judge()
    if name == "llm":
        return llm_judge(make_backend(), protocol, votes=votes)
    if ":" in name:
        return _load(name)
    raise UserError(f"unknown judge {name!r}; known: {KNOWN}")


def _load(name: str) -> Judge:
    """Import ``package.module:factory`` and call it without arguments."""
    module_name, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"--judge {name}: cannot be imported: {error}. Is its folder on PYTHONPATH?") from None
    try:
        judge = factory() if callable(factory) else factory
    except TypeError as error:
        raise UserError(f"--judge {name}: cannot be made without arguments: {error}") from None
    if not hasattr(judge, "judge") or not hasattr(judge, "info"):
        raise UserError(
            f"--judge {name}: {type(judge).__name__} is no judge: it needs 'info' and 'judge' (maskdpo.annotate.judge)"
        )
    found: Judge = judge
    return found
