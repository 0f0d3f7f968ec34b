"""``maskdpo build-pairs``."""

from pathlib import Path
from typing import Annotated

import typer

from maskdpo import console
from maskdpo.cli.app import app
from maskdpo.cli.options import AnnotationsArg, PromptsArg, Seed


@app.command("build-pairs")
def build_pairs(
    prompts: PromptsArg,
    annotations: AnnotationsArg,
    out: Annotated[Path, typer.Option(help="Pair records; held-out topics go to NAME.test.jsonl beside it.")],
    strategy: Annotated[
        str, typer.Option(help="`best-worst`: the most and the least factual answer of each prompt.")
    ] = "best-worst",
    min_margin: Annotated[
        float, typer.Option(min=0, max=1, help="Least difference of the scores (right / judged sentences).")
    ] = 0.1,
    test_size: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of topics held out; a topic is never split.")
    ] = 0.1,
    seed: Seed = 0,
) -> None:
    """Build preference pairs that keep the labels of their sentences."""
    from maskdpo.dataset.pairs import build_pairs as run

    stats = run(prompts, annotations, out, strategy=strategy, min_margin=min_margin, test_size=test_size, seed=seed)
    rows: list[tuple[str, object]] = [
        ("answers", stats.answers),
        ("  without any judged sentence", stats.unscored),
        ("prompts", stats.prompts),
        *((f"  no pair: {reason.value}", number) for reason, number in stats.rejected.most_common()),
        ("pairs to train on", stats.pairs["train"]),
        ("pairs of held-out topics", stats.pairs["test"]),
        ("mean margin", stats.margin_sum / stats.total),
    ]
    console.table(f"build-pairs -> {out}", ("", "count"), rows)
    console.table(
        "sentences and length a pair",
        ("", "chosen", "rejected"),
        [
            *(
                (name, *(stats.labels[s][name] / stats.total for s in stats.labels))
                for name in ("right", "wrong", "no_fact", "not_judged")
            ),
            ("characters", *(round(stats.characters[s] / stats.total) for s in stats.labels)),
        ],
    )
