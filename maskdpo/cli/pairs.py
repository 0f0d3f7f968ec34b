"""``maskdpo build-pairs``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskdpo import console
from maskdpo.cli.app import app
from maskdpo.cli.options import AnnotationsArg, PromptsArg

if TYPE_CHECKING:
    from maskdpo.dataset.stats import PairStats


def _answers(help: str, **limits: Any) -> Any:
    return typer.Option(help=help, rich_help_panel="Which answers take part", **limits)


def _pairs(help: str, **limits: Any) -> Any:
    return typer.Option(help=help, rich_help_panel="Which pairs are kept", **limits)


@app.command("build-pairs")
def build_pairs(
    prompts: PromptsArg,
    annotations: AnnotationsArg,
    out: Annotated[
        Path,
        typer.Option(
            help="Pair records (JSONL, or Parquet by the name); held-out topics go to NAME.test.jsonl beside it."
        ),
    ],
    strategy: Annotated[
        str,
        typer.Option(
            help="Which answers of a prompt make pairs. `best-worst`: the most and the least factual one, as in "
            "the paper. `all`: every two. `top-bottom`: the k best with the k worst, the best with the worst first. "
            "`best-random`: the best with one drawn from all that are worse by the margin."
        ),
    ] = "best-worst",
    k: Annotated[
        int | None, typer.Option("--k", min=1, help="`top-bottom`: pairs a prompt at most. [default: 2]")
    ] = None,
    score: Annotated[
        str,
        typer.Option(
            help="How factual an answer is, in sentences. `right-of-all`: right / all. `right-of-judged`: right / "
            "judged. `precision`: right / (right + wrong). `anah`: 1 - wrong / judged, which is won by saying nothing "
            "that can be checked. `difference`: right - wrong, the only one that is not between 0 and 1."
        ),
    ] = "right-of-all",
    confidence_weighted: Annotated[
        bool,
        typer.Option(
            "--confidence-weighted",
            help="In the score, a sentence counts with the judge's confidence where it has one.",
        ),
    ] = False,
    min_sentences: Annotated[int, _answers("Least number of sentences.", min=1)] = 1,
    min_coverage: Annotated[
        float, _answers("Least share of the sentences that must have a verdict of the judge.", min=0, max=1)
    ] = 0.8,
    min_right: Annotated[int, _answers("Least number of right sentences in an answer to be chosen.", min=0)] = 1,
    min_margin: Annotated[
        float, _pairs("Least difference of the two scores, in the unit of --score (`difference`: sentences).", min=0)
    ] = 0.1,
    max_length_ratio: Annotated[
        float, _pairs("The longer answer over the shorter one, in characters; `inf`: no limit.", min=1)
    ] = 4.0,
    max_similarity: Annotated[
        float,
        _pairs(
            "How alike the two texts may be, 1 - edits / characters; 1: only equal texts are dropped.", min=0, max=1
        ),
    ] = 0.95,
    max_per_prompt: Annotated[
        int | None, _pairs("Pairs a prompt at most, drawn by lot. [default: no limit]", min=1)
    ] = None,
    max_per_topic: Annotated[
        int | None,
        _pairs(
            "Pairs a topic at most, drawn by lot: more topics teach more than more questions. [default: no limit]",
            min=1,
        ),
    ] = None,
    test_size: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of topics held out; a topic is never split.")
    ] = 0.1,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the split and all lots; the order of the input never matters.")
    ] = 0,
    summary: Annotated[
        Path | None, typer.Option(help="Also write all counts as JSON, as in NAME.meta.json beside the pairs.")
    ] = None,
) -> None:
    """Build preference pairs that keep the labels of their sentences.

    An answer is chosen for its right sentences and rejected for its wrong ones. Everything that is dropped is counted
    by its reason. docs/pairs.md explains the scores, the filters and the order in which they apply.
    """
    from maskdpo.dataset.options import PairOptions
    from maskdpo.dataset.pairs import build_pairs as run

    options = PairOptions(
        strategy=strategy,
        k=k,
        score=score,
        confidence_weighted=confidence_weighted,
        min_margin=min_margin,
        min_right=min_right,
        min_sentences=min_sentences,
        min_coverage=min_coverage,
        max_length_ratio=max_length_ratio,
        max_similarity=max_similarity,
        max_per_prompt=max_per_prompt,
        max_per_topic=max_per_topic,
        test_size=test_size,
        seed=seed,
    )
    _show(run(prompts, annotations, out, options, summary_file=summary), out)


def _show(stats: "PairStats", out: Path) -> None:
    console.table(f"build-pairs -> {out}", ("", "count"), _funnel(stats))
    summary = stats.summary()
    sides = summary["sentences_per_pair"]
    console.table(
        "sentences a pair",
        ("", "chosen", "rejected"),
        [(group.replace("_", " "), sides["chosen"][group], sides["rejected"][group]) for group in sides["chosen"]],
    )
    spreads = {
        "characters, chosen": summary["characters"]["chosen"],
        "characters, rejected": summary["characters"]["rejected"],
        "characters, chosen / rejected": summary["length_ratio"],
        "margin of the scores": summary["margin"],
        "pairs a topic": summary["pairs_per_topic"],
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


def _funnel(stats: "PairStats") -> list[tuple[str, object]]:
    """From answers to pairs: what is there, and what was dropped, by reason."""
    return [
        ("answers", stats.answers),
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
