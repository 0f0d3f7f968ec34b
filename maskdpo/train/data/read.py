"""A pairs file to token ids and weights, by the settings of a training."""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from maskdpo.console import warn
from maskdpo.io import read_records
from maskdpo.schemas import Pair
from maskdpo.train.config import LOSSES, EncodeSettings, TrainConfig
from maskdpo.train.data.encode import EncodedPairs, Encoder, encode_pairs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encoder_for(settings: EncodeSettings, tokenizer: "PreTrainedTokenizerBase", today: date | None = None) -> Encoder:
    """The encoder for these settings. In those of a training the loss may decide on weights and pairs, too.

    Args:
        today: the day on which the run was begun.
    """
    if not isinstance(settings, TrainConfig):
        return Encoder(tokenizer, settings, today=today)
    ld_alpha = 1.0 if settings.ld_alpha is None else settings.ld_alpha
    need_scores = LOSSES[settings.loss].needs_scores
    return Encoder(tokenizer, settings, today=today, ld_alpha=ld_alpha, need_scores=need_scores)


def read_pairs(
    file: Path,
    config: TrainConfig,
    tokenizer: "PreTrainedTokenizerBase",
    today: date | None = None,
    limit: int | None = None,
) -> EncodedPairs:
    """All pairs of a file that can be trained on; warnings count the others by reason.

    Args:
        limit: read only so many pairs, the first ones.

    Raises:
        UserError: the file is no pairs file, the tokenizer will not do, or no pair is left.
    """
    encoder = encoder_for(config, tokenizer, today)
    encoded = encode_pairs(read_records(file, Pair, limit), encoder)
    if encoder.without_end and config.eos != "drop":
        warn(
            "behind an answer the chat template writes nothing that is one token of this tokenizer and ends the turn: "
            f"`eos` {config.eos} has nothing to train"
        )
    for reason, count in encoded.dropped.most_common():
        warn(f"{count} pairs left out: {reason.value}")
    return encoded
