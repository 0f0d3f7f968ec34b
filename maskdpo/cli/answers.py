"""``maskdpo sample`` and ``annotate``."""

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskdpo import console
from maskdpo.cli.app import app
from maskdpo.cli.options import BackendFlags, Model, PromptsArg, Restart, Seed, with_backend
from maskdpo.errors import UserError

if TYPE_CHECKING:
    from maskdpo.annotate.stats import AnnotateStats

TRAINED_ON = 2000
"""Responses that a splitter is trained on, where it learns: the first of them."""


@app.command()
@with_backend
def sample(
    prompts: PromptsArg,
    model: Model,
    out: Annotated[Path, typer.Option(help="Response records, appended as they come.")],
    n: Annotated[int, typer.Option(min=1, help="Answers a prompt.")] = 8,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy decoding.")] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Nucleus sampling.")] = 1.0,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Longest answer; one that reaches it counts as cut off.")
    ] = 256,
    stop: Annotated[
        list[str] | None,
        typer.Option(help=r"A text that ends an answer; repeat it for more. \n is a newline."),
    ] = None,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Send prompts as they are, without a chat template (base models, few-shot)."),
    ] = False,
    seed: Seed = 0,
    restart: Restart = False,
    *,
    flags: BackendFlags,
) -> None:
    """Sample several answers to every prompt.

    Repeat the same command to continue an interrupted run.
    """
    from maskdpo.backends.base import Sampling
    from maskdpo.sample import sample as run

    stops = tuple(text.replace("\\n", "\n") for text in stop or ())
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature, top_p=top_p, n=n, seed=seed, stop=stops)
    stats = run(prompts, out, flags.make(model), sampling, raw=raw, restart=restart)
    rows: list[tuple[str, object]] = [
        ("prompts", stats.prompts),
        ("of them answered before", stats.already_there),
        ("answers", stats.responses),
        ("cut off at --max-tokens", stats.cut_off),
        ("prompts that failed", stats.failed),
        ("answers that failed beside others", stats.failed_answers),
        ("prompt tokens", stats.prompt_tokens),
        ("tokens generated", stats.completion_tokens),
        ("tokens generated / s", round(stats.completion_tokens / stats.seconds) if stats.seconds else None),
    ]
    console.table(f"sample -> {out}", ("", "count"), rows)
    if stats.failed_answers:
        console.warn(
            f"{stats.failed_answers} answers are missing beside others to the same prompts (see the warnings); repeat "
            "the command to ask for them again"
        )
    if stats.failed:
        raise UserError(
            f"{stats.failed} prompts have no answer (see the warnings); repeat the command to ask them again"
        )


Protocol = Annotated[
    str,
    typer.Option(
        help="How the `llm` judge is asked: `single` (a call a sentence), `joint` (a call an answer), `staged` "
        "(fact? evidence, verdict: three turns a sentence), or a folder of templates."
    ),
]
Votes = Annotated[
    int, typer.Option(min=1, help="Verdicts to sample a sentence: the majority is the label, its share the confidence.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Ask again for the sentences that have no verdict, and for these only.")
]


@app.command()
@with_backend
def annotate(
    prompts: PromptsArg,
    responses: Annotated[Path, typer.Argument(help="Response records (JSONL).", show_default=False)],
    out: Annotated[Path, typer.Option(help="Annotation records, appended as they come.")],
    judge: Annotated[
        str, typer.Option(help="`lexical` (needs no model), `llm`, or `package.module:factory` for your own.")
    ],
    model: Annotated[str | None, typer.Option(help="The judge's model, for `--judge llm`.")] = None,
    protocol: Protocol = "single",
    votes: Votes = 1,
    splitter: Annotated[str, typer.Option(help="`markdown`, `spacy`, `spacy:PIPELINE` or `nltk`.")] = "markdown",
    retry_failed: RetryFailed = False,
    summary: Annotated[Path | None, typer.Option(help="Write the run's figures to this file, as JSON.")] = None,
    restart: Restart = False,
    *,
    flags: BackendFlags,
) -> None:
    """Split every answer into sentences and have each labelled against the reference.

    A call that fails is a status, never a label. Repeat the same command to continue an interrupted run.
    """
    from maskdpo.annotate.judges import get_judge
    from maskdpo.annotate.labelling import annotate as run
    from maskdpo.backends.base import Backend
    from maskdpo.text.splitters import get_splitter

    def judge_backend() -> Backend:
        if model is None:
            raise UserError("--judge llm needs --model: the model that judges")
        return flags.make(model)

    if judge != "llm" and (model is not None or votes != 1 or protocol != "single" or flags.template_option):
        raise UserError(f"--model, --protocol, --votes and --template-option go with --judge llm, not with {judge}")
    if ":" in judge:
        sys.path.append("")  # a judge of one's own may lie in the current folder
    made = get_judge(judge, make_backend=judge_backend, protocol=protocol, votes=votes)
    cut = get_splitter(splitter)
    if cut.name == "nltk:self":  # no model is installed, and one answer is too little to learn abbreviations from
        cut = get_splitter(splitter, _first_texts(responses))
    stats = run(prompts, responses, out, made, cut, restart=restart, retry_failed=retry_failed, summary=summary)
    console.table(f"annotate -> {out}", ("", "count"), _annotate_rows(stats))
    if stats.file.failed:
        console.warn(
            f"{stats.file.failed} sentences could not be judged; they carry a status, no label, and do not train; "
            "repeat the command with --retry-failed to ask them again (docs/judges.md: which statuses that helps)"
        )


def _first_texts(responses: Path) -> list[str]:
    """What a splitter that learns is trained on."""
    from maskdpo.io import read_records
    from maskdpo.schemas import Response

    return [record.response for record in islice(read_records(responses, Response), TRAINED_ON)]


def _annotate_rows(stats: "AnnotateStats") -> list[tuple[str, object]]:
    """The closing table: first what the file holds by now, then what this run did, where it did anything."""
    from maskdpo.annotate.stats import cached_share

    file, usage = stats.file, stats.run_usage
    rows: list[tuple[str, object]] = [("responses", stats.responses), ("sentences in the file", file.sentences)]
    rows += [(f"  {label.value}", n) for label, n in file.labels.most_common() if n]
    rows += [(f"  not judged: {status.value}", n) for status, n in file.statuses.most_common() if n and status != "ok"]
    this_run: list[tuple[str, object]] = [
        ("this run: answers", stats.run_responses if stats.already_there else 0),
        ("this run: sentences", stats.run_sentences if stats.already_there else 0),
        ("this run: of them asked again", stats.run_retried),
        ("this run: s", stats.run_seconds),
        ("this run: sentences / s", stats.run_rate),
    ]
    if usage is not None:
        this_run += [
            ("this run: calls", usage.calls),
            ("this run: sentences that repeat a call", usage.repeats),
            ("this run: calls with a reference cut", usage.references_cut),
            ("this run: prompt tokens", usage.prompt_tokens),
            ("this run: of them cached by the server", usage.cached_tokens),
            ("this run: share cached", cached_share(usage)),
            ("this run: tokens generated", usage.completion_tokens),
        ]
    if not stats.run_responses:
        return [*rows, ("annotated before", stats.already_there)]
    before: list[tuple[str, object]] = [("annotated before this run", stats.already_there)]
    return rows + [row for row in before + this_run if row[1]]
