"""A pairs file as a run of some settings sees it."""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from maskdpo.console import warn
from maskdpo.io import read_records
from maskdpo.schemas import Pair
from maskdpo.train.config import EncodeSettings, TrainConfig
from maskdpo.train.data.encode import EncodedPairs, Encoder, encode_pairs
from maskdpo.train.losses import LOSSES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encoder_for(settings: EncodeSettings, tokenizer: "PreTrainedTokenizerBase", today: date | None = None) -> Encoder:
    """The encoder for these settings; those of a training may have a loss that reaches into weights and pairs.

    Args:
        today: the day on which the run was begun.
    """
    config = settings if isinstance(settings, TrainConfig) else None
    return Encoder(
        tokenizer,
        method=settings.method,
        eos=settings.eos,
        max_length=settings.max_length,
        ld_alpha=1.0 if config is None or config.ld_alpha is None else config.ld_alpha,
        need_scores=config is not None and LOSSES[config.loss].needs_scores,
        reasoning=settings.reasoning,
        template_options=settings.template_options,
        today=today,
    )


def read_pairs(
    file: Path, config: TrainConfig, tokenizer: "PreTrainedTokenizerBase", today: date | None = None
) -> EncodedPairs:
    """All pairs of a file that can be trained on; what is dropped is said.

    Raises:
        UserError: the file is no pairs file, the tokenizer will not do, or no pair is left.
    """
    encoder = encoder_for(config, tokenizer, today)
    encoded = encode_pairs(read_records(file, Pair), encoder)
    if encoder.without_end and config.eos != "drop":
        warn(
            "behind an answer the chat template writes nothing that is one token of this tokenizer and ends the turn: "
            f"`eos` {config.eos} has nothing to train"
        )
    for reason, count in encoded.dropped.most_common():
        warn(f"{count} pairs left out: {reason.value}")
    return encoded
