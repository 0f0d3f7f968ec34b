"""The built-in judges. To add one: a module with its factory, and a line in ``JUDGES``."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from maskdpo import registry
from maskdpo.annotate.judge import Judge
from maskdpo.backends.base import Backend
from maskdpo.backends.settings import DEFAULTS, BackendSettings
from maskdpo.errors import UserError

JUDGES: registry.Registry[Callable[..., Judge]] = registry.Registry(
    "judge",
    {
        "lexical": "maskdpo.annotate.judges.lexical:LexicalJudge",
        "llm": "maskdpo.annotate.judges.llm:llm_judge",
        "classifier": "maskdpo.annotate.judges.classifier:classifier_judge",
    },
    group="maskdpo.judges",
)
"""A factory of a judge may ask for ``options`` of its own, and for ``backend``, which runs the model that is named; or
for ``model``, its name, and ``settings``, those of backends, to run the model itself."""


def get_judge(
    name: str,
    *,
    make_backend: Callable[[], Backend],
    name_model: Callable[[], str] | None = None,
    settings: BackendSettings = DEFAULTS,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Judge:
    """A judge by name.

    Args:
        make_backend: called for a judge that asks for a backend.
        name_model: called for a judge that asks for the name of the model.
        settings: for a judge that runs the model itself.
        options: for the judge itself.

    Raises:
        UserError: there is no such judge, it cannot be made, or its options are not valid.
    """
    on_demand: dict[str, Callable[[], Any]] = {"backend": make_backend}
    if name_model is not None:
        on_demand["model"] = name_model
    judge: Judge = registry.make("judge", name, JUDGES[name], options, on_demand=on_demand, settings=settings)
    if not hasattr(judge, "judge") or not hasattr(judge, "info"):
        raise UserError(
            f"`judge` {name}: {type(judge).__name__} is no judge: it needs 'info' and 'judge' (maskdpo.annotate.judge)"
        )
    return judge
