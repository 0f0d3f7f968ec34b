"""``--track``: the figures of a run in TensorBoard, Weights & Biases or Trackio, besides ``metrics.jsonl``."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from maskdpo.extras import require

TrackerName = Literal["tensorboard", "wandb", "trackio"]
Log = Callable[[int, Mapping[str, float]], None]
"""(optimiser step, figures by name)."""

PROJECT = "maskdpo"


def require_tracker(name: TrackerName) -> None:
    """
    Raises:
        UserError: its package is missing.
    """
    require(name, install=f"'maskdpo[{name}]'", purpose=f"`track` {name}")


@contextmanager
def tracker(name: TrackerName, out: Path, settings: Mapping[str, Any], first: int) -> Iterator[Log]:
    """A place for figures, closed at the end.

    Args:
        out: the run's folder; its name is the run's.
        first: steps that an earlier attempt has done; the figures of later ones are logged again.
    """
    require_tracker(name)
    with TRACKERS[name](out, settings, first) as log:
        yield log


@contextmanager
def _tensorboard(out: Path, settings: Mapping[str, Any], first: int) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(out / "tensorboard"), purge_step=first + 1 if first else None) as writer:
        if not first:
            writer.add_text("settings", "\n".join(f"    {key}: {value}" for key, value in settings.items()))

        def log(step: int, figures: Mapping[str, float]) -> None:
            for key, value in figures.items():
                writer.add_scalar(key, value, step)

        yield log


@contextmanager
def _wandb(out: Path, settings: Mapping[str, Any], first: int) -> Iterator[Log]:
    import wandb

    id_file = out / ".wandb-id"  # a run that is taken up again goes on in the same chart
    if not id_file.exists():
        id_file.write_text(uuid.uuid4().hex[:8])
    with wandb.init(
        project=PROJECT, name=out.name, id=id_file.read_text(), resume="allow", dir=str(out), config=dict(settings)
    ) as run:
        yield lambda step, figures: run.log(dict(figures), step=step)


@contextmanager
def _trackio(out: Path, settings: Mapping[str, Any], first: int) -> Iterator[Log]:
    import trackio

    trackio.init(project=PROJECT, name=out.name, resume="allow" if first else "never", config=dict(settings))
    try:
        yield lambda step, figures: trackio.log(dict(figures), step=step)
    finally:
        trackio.finish()


TRACKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
