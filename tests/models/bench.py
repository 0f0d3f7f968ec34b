"""One architecture under test: its model, its pairs, and the runs that several checks look at."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from architectures import build
from attempts import attempt
from plain import all_logps, load_plain
from torch import Tensor
from train_helpers import Labelled, make_pair
from transformers import AutoTokenizer, PreTrainedModel

from maskdpo.errors import UserError
from maskdpo.io import write_records
from maskdpo.schemas import Label, Pair
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.encode import Encoder, encode_pairs
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.run.train import train
from maskdpo.train.settings import RunOptions

STEPS = 2
BATCH = 3
LR = 3e-3
BETA = 0.1
RIGHT, WRONG = Label.NO_HALLUCINATION, Label.CONTRADICTORY
FACTS = ("Paris is the capital of France.", " The river Rhine flows through Basel.", " She won two Nobel prizes.")
ERRORS = (" It is a town of ten people.", "Tokyo lies in Poland.", " The Rhine is 3 km long.")


def _answer(first: str, sentences: int, label: Label) -> Labelled:
    """Sentences of alternating truth."""
    other = WRONG if label is RIGHT else RIGHT
    texts = {RIGHT: FACTS, WRONG: ERRORS}
    rest = [(texts[kind][i % 3], kind) for i in range(sentences) for kind in (other, label)]
    return [(first, label), *rest[:sentences]]


def make_pairs() -> list[Pair]:
    """The first two are shorter than the window, the others longer, with prompts of very different lengths."""
    return [
        make_pair(
            _answer("Yes.", sentences, RIGHT),
            _answer("No.", (sentences * 2) % 5, WRONG),
            id=f"p{i}",
            prompt="Tell me" + " about Paris, the Rhine" * words + ".",
        )
        for i, (words, sentences) in enumerate([(0, 0), (0, 1), (1, 2), (4, 3), (0, 4), (2, 3)])
    ]


@dataclass(frozen=True)
class Run:
    """What a run left behind."""

    out: Path
    layout: str
    metrics: list[dict[str, Any]]
    after: dict[str, Any]
    """Means over all pairs under the trained policy, as the trainer computes them."""
    reference: dict[str, Tensor]
    """Log-probs before the first step; by pair, of every answer token."""


class Bench:
    """See the module's docstring.

    Args:
        folder: an empty one for models and runs.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.model = build(name, folder / "model")
        self.pairs_file = folder / "pairs.jsonl"
        write_records(self.pairs_file, make_pairs())

    @cached_property
    def tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self.model)

    @cached_property
    def pairs(self) -> list[EncodedPair]:
        encoded = encode_pairs(make_pairs(), Encoder(self.tokenizer, self.config()))
        assert not encoded.dropped
        return encoded.pairs

    @cached_property
    def plain(self) -> PreTrainedModel:
        """The untrained model as the judge sees it; never change its weights."""
        return load_plain(self.model)

    @cached_property
    def plain_logps(self) -> dict[str, Tensor]:
        return all_logps(self.plain, self.pairs)

    @cached_property
    def whole(self) -> Run:
        """Every weight trained."""
        return self.train("whole")

    @cached_property
    def lora_start(self) -> Run:
        """One step of an adapter that is written as it is. Its A are still those of the start: with B = 0 the first
        step's gradient of A is 0."""
        return self.train("lora-start", lora_r=4, lora_alpha=8, merge=False, max_steps=1)

    def config(self, **settings: Any) -> TrainConfig:
        fixed: dict[str, Any] = {
            "lr": LR,
            "beta": BETA,
            "batch_size": BATCH,
            "max_steps": STEPS,
            "warmup_ratio": 0.0,
            "dtype": "float32",
            "tokens_per_batch": 400,  # some passes have several pairs, and padding
            "log_masked_every": 0,
            "eval_every": 1000,
        }
        return TrainConfig(model=self.model, **fixed | settings)

    def train(self, name: str, **settings: Any) -> Run:
        """A run in this process.

        Raises:
            UserError: it is refused.
        """
        out = self.folder / name
        with _cache_folder(self._cache(name)):
            result = train(
                self.pairs_file, out, self.config(**settings), RunOptions(save_every=0, eval_file=self.pairs_file)
            )
        assert result is not None
        (file,) = (self._cache(name) / "reference").glob("*.f32")
        ends = np.cumsum([len(pair.chosen.ids) + len(pair.rejected.ids) for pair in self.pairs])
        parts = np.split(np.fromfile(file, "<f4"), ends[:-1])
        reference = {pair.id: torch.from_numpy(p).double() for pair, p in zip(self.pairs, parts, strict=True)}
        return Run(out, result.layout, rows(out / "metrics.jsonl"), rows(out / "eval.jsonl")[-1], reference)

    def train_apart(self, name: str, *, codes: list[int], **job: Any) -> Path:
        """A run in processes of its own; where it is.

        Raises:
            UserError: it is refused.
        """
        out = self.folder / name
        job["out"] = str(out)
        found, said = attempt(self.pairs_file, self.config(), job, MASKDPO_CACHE=str(self._cache(name)))
        if found != codes and set(found) == {2}:
            raise UserError(" ".join(said.split()))
        assert found == codes, said
        return out

    def _cache(self, name: str) -> Path:
        return self.folder / f"cache-{name}"


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@contextmanager
def _cache_folder(folder: Path) -> Iterator[None]:
    previous = os.environ.get("MASKDPO_CACHE")
    os.environ["MASKDPO_CACHE"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("MASKDPO_CACHE")
        if previous is not None:
            os.environ["MASKDPO_CACHE"] = previous
