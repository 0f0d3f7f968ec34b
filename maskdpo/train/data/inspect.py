"""``maskdpo inspect``: see exactly which tokens a pair trains, and with which weight."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from maskdpo.io import atomic_write, read_records, refuse_overwriting
from maskdpo.models import load_tokenizer
from maskdpo.run_record import refuse_replacing
from maskdpo.schemas import SIDES, Pair
from maskdpo.train.data.encode import Encoder, encoder_for
from maskdpo.train.data.encoded_pair import Drop, EncodedPair
from maskdpo.train.data.settings import InspectSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEFT_OUT, TRAINED = "bright_black", {"chosen": "black on green", "rejected": "black on dark_orange"}
MARKS = ("⟦", "⟧")
"""Around trained tokens, for eyes and terminals without colour."""


@dataclass
class InspectStats:
    """Totals over the inspected pairs."""

    pairs: int = 0
    dropped: Counter[Drop] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    """Answer tokens by side."""
    kept: Counter[str] = field(default_factory=Counter)
    """Those with weight, by side."""


def inspect_pairs(settings: InspectSettings) -> tuple[InspectStats, list[Text]]:
    """Encode every pair as ``train`` would.

    With ``json_file`` there is one JSON line for every pair and side, with ``pair``, ``side``, ``input_ids`` and
    ``weights`` of the whole row: prompt, then answer.

    Returns:
        Totals, and the coloured texts of the first ``show`` pairs.
    """
    if settings.json_file is not None:
        refuse_overwriting(settings.json_file, settings.pairs)
        refuse_replacing(settings.json_file)
    tokenizer = load_tokenizer(settings.model)
    encoder = encoder_for(settings, tokenizer)
    stats = InspectStats()
    texts: list[Text] = []
    with atomic_write(settings.json_file) if settings.json_file else nullcontext() as file:
        for pair in _encode_all(settings.pairs, encoder, stats):
            if len(texts) < settings.show:
                texts.append(_coloured(pair, tokenizer))
            if file is not None:
                file.writelines(json.dumps(row).encode() + b"\n" for row in _rows(pair))
    return stats, texts


def _encode_all(pairs_file: Path, encoder: Encoder, stats: InspectStats) -> Iterator[EncodedPair]:
    for pair in read_records(pairs_file, Pair):
        encoded = encoder.encode(pair)
        if isinstance(encoded, Drop):
            stats.dropped[encoded] += 1
            continue
        stats.pairs += 1
        for side in SIDES:
            stats.tokens[side] += len(encoded.side(side).ids)
            stats.kept[side] += int((encoded.side(side).weights > 0).sum())
        yield encoded


def _rows(pair: EncodedPair) -> Iterator[dict[str, Any]]:
    prompt = pair.prompt_ids.tolist()
    for side in SIDES:
        answer = pair.side(side)
        ids, weights = [*prompt, *answer.ids.tolist()], [0.0] * len(prompt) + answer.weights.tolist()
        yield {"pair": pair.id, "side": side, "input_ids": ids, "weights": weights}


def _coloured(pair: EncodedPair, tokenizer: "PreTrainedTokenizerBase") -> Text:
    """The pair as text: trained tokens marked and on a coloured ground, all others grey."""
    text = Text.assemble((pair.id, "bold"), "\n", (tokenizer.decode(pair.prompt_ids), LEFT_OUT), "\n")
    for side in SIDES:
        answer = pair.side(side)
        kept = int((answer.weights > 0).sum())
        text.append(f"\n{side} ({kept} of {len(answer.ids)} tokens trained)\n", "bold")
        for piece, weight in _pieces(answer.ids.tolist(), answer.weights.tolist(), tokenizer):
            style = TRAINED[side] if weight == 1 else f"{TRAINED[side]} italic" if weight else LEFT_OUT
            text.append(f"{MARKS[0]}{piece}{MARKS[1]}" if weight else piece, style)
        text.append("\n")
    return text


def _pieces(ids: list[int], weights: list[float], tokenizer: "PreTrainedTokenizerBase") -> Iterator[tuple[str, float]]:
    """Runs of tokens of one weight, decoded together so that characters of several tokens come out whole."""
    for weight, run in groupby(zip(ids, weights, strict=True), key=lambda pair: pair[1]):
        yield str(tokenizer.decode([token for token, _ in run])), weight
