"""The built-in judges. To add one: a module with its factory, and a line in ``JUDGES``."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from maskdpo import registry
from maskdpo.annotate.judge import Judge
from maskdpo.backends.base import Backend
from maskdpo.errors import UserError

JUDGES: registry.Registry[Callable[..., Judge]] = registry.Registry(
    "judge",
    {"lexical": "maskdpo.annotate.judges.lexical:LexicalJudge", "llm": "maskdpo.annotate.judges.llm:llm_judge"},
    group="maskdpo.judges",
)
"""A factory of a judge may ask for ``options`` of its own, and for ``backend``, which runs the model that is named."""


def get_judge(
    name: str, *, make_backend: Callable[[], Backend], options: Mapping[str, Any] = MappingProxyType({})
) -> Judge:
    """A judge by name.

    Args:
        make_backend: called for a judge that asks for a backend.
        options: for the judge itself.

    Raises:
        UserError: there is no such judge, it cannot be made, or its options are not valid.
    """
    judge: Judge = registry.make("judge", name, JUDGES[name], options, on_demand={"backend": make_backend})
    if not hasattr(judge, "judge") or not hasattr(judge, "info"):
        raise UserError(
            f"`judge` {name}: {type(judge).__name__} is no judge: it needs 'info' and 'judge' (maskdpo.annotate.judge)"
        )
    return judge
