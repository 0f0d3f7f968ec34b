"""``maskdpo build-pairs``."""

from pathlib import Path
from typing import TYPE_CHECKING

from maskdpo import console
from maskdpo.commands.mix import show_mix
from maskdpo.dataset.options import BuildPairsSettings

if TYPE_CHECKING:
    from maskdpo.dataset.stats import PairStats


def build_pairs(settings: BuildPairsSettings) -> None:
    """Build preference pairs that keep the labels of their sentences.

    An answer is chosen for its right sentences and rejected for its wrong ones. Everything that is dropped is counted
    by its reason. docs/pairs.md explains the scores, the filters and the order in which they apply.
    """
    from maskdpo.dataset.pairs import build_pairs as run

    stats = run(
        settings.prompts,
        settings.annotations,
        settings.out,
        settings.options(),
        gold_file=settings.gold,
        summary_file=settings.summary,
    )
    _show(stats, settings.out)


def _show(stats: "PairStats", out: Path) -> None:
    console.table(f"build-pairs -> {out}", ("", "count"), _funnel(stats))
    summary = stats.summary()
    sides = summary["sentences_per_pair"]
    console.table(
        "sentences per pair",
        ("", "chosen", "rejected"),
        [(group.replace("_", " "), sides["chosen"][group], sides["rejected"][group]) for group in sides["chosen"]],
    )
    if stats.cut_off.total():
        ends = {"answers cut off at the token limit": stats.cut_off, "  that end in a fragment": stats.fragments}
        console.table(
            "ends of the answers",
            ("", "chosen", "rejected"),
            [(name, sides["chosen"], sides["rejected"]) for name, sides in ends.items()],
        )
    spreads = {
        "characters, chosen": summary["characters"]["chosen"],
        "characters, rejected": summary["characters"]["rejected"],
        "characters, chosen / rejected": summary["length_ratio"],
        "margin of the scores": summary["margin"],
        "pairs per topic": summary["pairs_per_topic"],
    }
    console.table(
        "spread over the pairs",
        ("", "mean", "least", "10%", "50%", "90%", "most"),
        [(name, spread["mean"], *(spread["deciles"][i] for i in (0, 1, 5, 9, 10))) for name, spread in spreads.items()],
    )
    console.table(
        "scores",
        ("from, to", "answers", "chosen", "rejected"),
        [(f"{b['from']:g}, {b['to']:g}", b["answers"], b["chosen"], b["rejected"]) for b in summary["scores"]],
    )
    show_mix(stats.mix, unit="characters")


def _funnel(stats: "PairStats") -> list[tuple[str, object]]:
    """From answers to pairs: what is there, and what was dropped, by reason."""
    return [
        ("answers", stats.answers),
        *([("  with labels of people", stats.gold_answers)] if stats.gold_answers else []),
        *((f"  dropped: {reason.value}", number) for reason, number in stats.dropped_answers.most_common()),
        ("  that may be chosen", stats.may_be_chosen),
        ("  that may be rejected", stats.may_be_rejected),
        ("prompts", stats.prompts),
        *((f"  no pair: {reason.value}", number) for reason, number in stats.no_pair.most_common()),
        ("pairs proposed", stats.total + stats.dropped_pairs.total()),
        *((f"  dropped: {reason.value}", number) for reason, number in stats.dropped_pairs.most_common()),
        ("  to train on", stats.pairs["train"]),
        ("  of held-out topics", stats.pairs["test"]),
    ]
