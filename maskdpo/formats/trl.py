"""TRL's preference data: the columns of ``DPOTrainer``. They have no labels, so they train without a mask."""

from typing import Any

from maskdpo.schemas import SIDES, Pair


def to_trl(pair: Pair) -> dict[str, Any]:
    """Chat messages, or plain strings for answers that were sampled with ``--raw``.

    Reasoning is in the message of the assistant, where chat templates expect it, and trains as the answer does.
    """
    row = pair.model_dump(mode="json", include={"prompt", "chosen", "rejected"})
    for side in SIDES:
        if pair.reasoning(side) is not None and not isinstance(row[side], str):
            row[side][0]["reasoning_content"] = pair.reasoning(side)
    if pair.template_options:
        row["chat_template_kwargs"] = pair.template_options
    return row
