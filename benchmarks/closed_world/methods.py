"""The methods that are compared: how pairs are made, what of them trains, and by which loss."""

from dataclasses import dataclass, field
from typing import Any

from benchmarks.closed_world import spans
from benchmarks.closed_world.spans import Refine
from maskdpo.dataset.filters import differ_by_margin
from maskdpo.dataset.options import PairOptions
from maskdpo.dataset.strategies import Eligible, Proposal, every_two

MARGIN = 0.2
"""The most by which right / all differs in a pair of small margin."""


def small_margin(eligible: Eligible, options: PairOptions) -> list[Proposal]:
    """Every two answers with different scores that are close."""
    return [pair for pair in every_two(eligible, options) if not differ_by_margin(*pair, MARGIN + 1e-6)]


def most_kept(eligible: Eligible, options: PairOptions) -> list[Proposal]:
    """The pair with the most right sentences of the chosen plus wrong ones of the rejected answer, which masks keep."""
    every = every_two(eligible, options)
    return [max(every, key=lambda pair: pair.chosen.counts.right + pair.rejected.counts.wrong)] if every else []


PAIRS: dict[str, PairOptions] = {
    "best-worst": PairOptions(test_size=0.0),
    # one of all pairs of a prompt whose share of true facts differs, as in FactTune (arXiv 2311.08401)
    "random": PairOptions(test_size=0.0, strategy="all", score="precision", max_per_prompt=1),
    # one of all pairs of a prompt that are close
    "small-margin": PairOptions(test_size=0.0, strategy=f"{__name__}:small_margin", min_margin=0.0, max_per_prompt=1),
    "most-kept": PairOptions(test_size=0.0, strategy=f"{__name__}:most_kept", min_margin=0.0),
}
"""How pairs are made."""

ONLY_SFT: dict[str, Any] = {"beta": 1e-6, "sft_weight": 1.0}
"""With so small a beta the loss of DPO has no gradient, and only the SFT term on the chosen answer is left."""

LENGTH_NORMALISED: dict[str, Any] = {"loss": "sigmoid-norm", "beta": 3.0}
"""Log ratios a token instead of an answer; answers have about 30 tokens, so beta is 30 times that of the others."""

HELD: dict[str, Any] = {"hold_weight": 0.01}
"""All tokens of both answers are held near the reference."""


@dataclass(frozen=True)
class Method:
    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    """Of ``TrainConfig``."""
    pairs: str = "best-worst"
    refine: Refine | None = None


FIRST: dict[str, Method] = {
    "bon-sft": Method("SFT on the best answer", {"method": "dpo", **ONLY_SFT}),
    "masked-sft": Method("SFT on the best's right sentences", {"method": "mask-dpo", **ONLY_SFT}),
    "dpo": Method("DPO", {"method": "dpo"}),
    "facttune": Method("DPO, random pairs (FactTune)", {"method": "dpo"}, "random"),
    "mask-dpo": Method("Mask-DPO", {"method": "mask-dpo"}),
    "mask-random": Method("Mask-DPO, random pairs", {"method": "mask-dpo"}, "random"),
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

OF_THE_MAP: dict[str, Method] = {
    "strict": Method("strict", {"method": "strict"}),
    "no-fact-not-up": Method("Mask-DPO, no-fact not pulled up", {"method": "mask-dpo"}, refine=spans.no_fact_not_up),
    "strict-no-eos": Method("strict, end of turn not trained", {"method": "strict", "eos": "drop"}),
    "strict-sft": Method("strict + SFT term on right sentences", {"method": "strict", "sft_weight": 1.0}),
    "balanced": Method("Mask-DPO, sides and sentences of equal weight", {"method": "soft"}, refine=spans.balanced),
    "strict-balanced": Method(
        "strict, sides and sentences of equal weight", {"method": "soft"}, refine=spans.strictly_balanced
    ),
    "dpo-held": Method("DPO, held", {"method": "dpo", **HELD}),
    "strict-held": Method("strict, held", {"method": "strict", **HELD}),
    "sentence-margins": Method(
        "Mask-DPO, a margin of 1 nat a sentence",
        {"method": "mask-dpo", "loss": "fdpo-margin", "margin_gamma": 1.0},
        refine=spans.sentence_margins,
    ),
}
METHODS = FIRST | OF_THE_MAP

NEEDS_NOISE = frozenset({"soft"})
"""With exact labels every confidence is 1, and the method is Mask-DPO."""

NOISE_METHODS = ("dpo", "mask-dpo", "soft")
TOPIC_METHODS = ("dpo", "mask-dpo")
