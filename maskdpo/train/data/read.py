"""A pairs file as a run of some settings sees it."""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from maskdpo.console import warn
from maskdpo.io import read_records
from maskdpo.schemas import Pair
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.encode import EncodedPairs, Encoder, encode_pairs
from maskdpo.train.losses import LOSSES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encoder_for(config: TrainConfig, tokenizer: "PreTrainedTokenizerBase", today: date | None = None) -> Encoder:
    """The encoder of a run that was begun on the day ``today``."""
    return Encoder(
        tokenizer,
        method=config.method,
        eos=config.eos,
        max_length=config.max_length,
        ld_alpha=1.0 if config.ld_alpha is None else config.ld_alpha,
        need_scores=LOSSES[config.loss].needs_scores,
        reasoning=config.reasoning,
        template_options=config.template_options,
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
