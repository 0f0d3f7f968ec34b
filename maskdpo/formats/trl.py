"""TRL's preference data: the three columns that ``DPOTrainer`` takes. It has no place for labels: no mask."""

from typing import Any

from maskdpo.schemas import Pair


def to_trl(pair: Pair) -> dict[str, Any]:
    """Chat messages, or plain strings for answers that were sampled with ``--raw``."""
    return pair.model_dump(mode="json", include={"prompt", "chosen", "rejected"})
