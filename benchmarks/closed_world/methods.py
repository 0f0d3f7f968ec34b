"""The methods that are compared: how pairs are made, what of them trains, and by which loss."""

from dataclasses import dataclass, field
from typing import Any

from benchmarks.closed_world import spans
from benchmarks.closed_world.spans import Refine
from maskdpo.dataset.options import PairOptions

BEST_WORST = PairOptions(test_size=0.0)
RANDOM_PAIRS = PairOptions(test_size=0.0, strategy="all", score="precision", max_per_prompt=1)
"""One of all pairs of a prompt whose share of true facts differs, as in FactTune (arXiv 2311.08401)."""

ONLY_SFT: dict[str, Any] = {"beta": 1e-6, "sft_weight": 1.0}
"""With so small a beta the loss of DPO has no gradient, and only the SFT term on the chosen answer is left."""

LENGTH_NORMALISED: dict[str, Any] = {"loss": "sigmoid-norm", "beta": 3.0}
"""Log ratios a token instead of an answer; answers have about 30 tokens, so beta is 30 times that of the others."""


@dataclass(frozen=True)
class Method:
    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    """Of ``TrainConfig``."""
    pairs: PairOptions = BEST_WORST
    refine: Refine | None = None


METHODS: dict[str, Method] = {
    "bon-sft": Method("SFT on the best of 12", {"method": "dpo", **ONLY_SFT}),
    "masked-sft": Method("SFT on the best's right sentences", {"method": "mask-dpo", **ONLY_SFT}),
    "dpo": Method("DPO", {"method": "dpo"}),
    "facttune": Method("DPO, random pairs (FactTune)", {"method": "dpo"}, RANDOM_PAIRS),
    "mask-dpo": Method("Mask-DPO", {"method": "mask-dpo"}),
    "mask-random": Method("Mask-DPO, random pairs", {"method": "mask-dpo"}, RANDOM_PAIRS),
    "chosen-only": Method("only chosen masked", {"method": "chosen-only"}),
    "rejected-only": Method("only rejected masked", {"method": "rejected-only"}),
    "dpo-no-eos": Method("DPO, end of turn not trained", {"method": "dpo", "eos": "drop"}),
    "mask-no-eos": Method("Mask-DPO, end of turn not trained", {"method": "mask-dpo", "eos": "drop"}),
    "dpo-norm": Method("DPO, length-normalised", {"method": "dpo", **LENGTH_NORMALISED}),
    "mask-norm": Method("Mask-DPO, length-normalised", {"method": "mask-dpo", **LENGTH_NORMALISED}),
    "mask-sft": Method("Mask-DPO + masked SFT term", {"method": "mask-dpo", "sft_weight": 1.0}),
    "half": Method("masked sentences count 1/2", {"method": "soft"}, refine=spans.half),
    "wrong-values": Method("Mask-DPO, wrong: values only", {"method": "mask-dpo"}, refine=spans.wrong_values),
    "values": Method("Mask-DPO, values only", {"method": "mask-dpo"}, refine=spans.values),
    "content": Method("Mask-DPO, no template words", {"method": "mask-dpo"}, refine=spans.content),
    "matched": Method("Mask-DPO, same attributes only", {"method": "mask-dpo"}, refine=spans.matched),
    "dpo-sft": Method("DPO + SFT term", {"method": "dpo", "sft_weight": 1.0}),
    "chosen-sft": Method("only chosen masked + masked SFT term", {"method": "chosen-only", "sft_weight": 1.0}),
    "gentle": Method("Mask-DPO, wrong counts 1/2", {"method": "soft"}, refine=spans.gentle),
    "no-fact-down": Method("Mask-DPO, no-fact pushed down, too", {"method": "mask-dpo"}, refine=spans.no_fact_down),
    "no-fact-wrong": Method("Mask-DPO, no-fact as wrong", {"method": "mask-dpo"}, refine=spans.no_fact_wrong),
    "no-fact-wrong-sft": Method(
        "Mask-DPO, no-fact as wrong + masked SFT term",
        {"method": "mask-dpo", "sft_weight": 1.0},
        refine=spans.no_fact_wrong,
    ),
    "soft": Method("Mask-DPO weighted by confidence", {"method": "soft"}),
}

NEEDS_NOISE = frozenset({"soft"})
"""With exact labels every confidence is 1, and the method is Mask-DPO."""

NOISE_METHODS = ("dpo", "mask-dpo", "soft")
TOPIC_METHODS = ("dpo", "mask-dpo")
