"""The losses by name, and the settings that only some of them use. Known without torch, which the losses need."""

from typing import TYPE_CHECKING, Any

from maskdpo.registry import Registry

if TYPE_CHECKING:
    from maskdpo.train.losses import Loss

LOSS_PARAMETERS: dict[str, tuple[float, tuple[str, ...]]] = {
    "label_smoothing": (0.1, ("conservative", "robust")),
    "simpo_gamma": (0.5, ("simpo",)),
    "ld_alpha": (0.5, ("ld-dpo",)),
    "margin_gamma": (10.0, ("fdpo-margin",)),
}
"""Settings that belong to some of our losses only: their default, and which losses."""


def _problem_of_a_loss(found: Any) -> str | None:
    from maskdpo.train.losses import Loss

    return None if isinstance(found, Loss) else f"is no maskdpo.train.losses.Loss, but {type(found).__name__}"


LOSSES: "Registry[Loss]" = Registry(
    "loss",
    {
        "sigmoid": "maskdpo.train.losses:sigmoid",
        "ipo": "maskdpo.train.losses:ipo",
        "hinge": "maskdpo.train.losses:hinge",
        "conservative": "maskdpo.train.losses:conservative",
        "robust": "maskdpo.train.losses:robust",
        "simpo": "maskdpo.train.losses:simpo",
        "sigmoid-norm": "maskdpo.train.losses:sigmoid_norm",
        "ld-dpo": "maskdpo.train.losses:ld_dpo",
        "fdpo-margin": "maskdpo.train.losses:fdpo_margin",
    },
    check=_problem_of_a_loss,
)
"""By name; imported when used, so that settings are read without torch."""
