"""``maskdpo sample`` and ``annotate``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from maskdpo import console
from maskdpo.cli.app import app
from maskdpo.cli.options import BackendFlags, Model, PromptsArg, Restart, Seed, with_backend
from maskdpo.errors import UserError


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
        ("prompt tokens", stats.prompt_tokens),
        ("tokens generated", stats.completion_tokens),
        ("tokens generated / s", round(stats.completion_tokens / stats.seconds) if stats.seconds else None),
    ]
    console.table(f"sample -> {out}", ("", "count"), rows)
    if stats.failed:
        raise UserError(
            f"{stats.failed} prompts have no answer (see the warnings); repeat the command to ask them again"
        )


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
    protocol: Annotated[
        str,
        typer.Option(
            help="How the `llm` judge is asked: `single` (a call a sentence), `joint` (a call an answer), `staged` "
            "(fact? evidence, verdict: three turns a sentence), or a folder of templates."
        ),
    ] = "single",
    votes: Annotated[
        int,
        typer.Option(min=1, help="Verdicts to sample a sentence: the majority is the label, its share the confidence."),
    ] = 1,
    splitter: Annotated[str, typer.Option(help="`markdown`, `spacy`, `spacy:PIPELINE` or `nltk`.")] = "markdown",
    restart: Restart = False,
    *,
    flags: BackendFlags,
) -> None:
    """Split every answer into sentences and have each labelled against the reference.

    A call that fails is a status, never a label. Repeat the same command to continue an interrupted run.
    """
    from maskdpo.annotate.judges import get_judge
    from maskdpo.annotate.runner import annotate as run
    from maskdpo.annotate.splitters import get_splitter
    from maskdpo.backends.base import Backend

    def judge_backend() -> Backend:
        if model is None:
            raise UserError("--judge llm needs --model: the model that judges")
        return flags.make(model)

    if ":" in judge:
        sys.path.append("")  # a judge of one's own may lie in the current folder
    made = get_judge(judge, make_backend=judge_backend, protocol=protocol, votes=votes)
    stats = run(prompts, responses, out, made, get_splitter(splitter), restart=restart)
    rows: list[tuple[str, object]] = [
        ("responses", stats.responses),
        ("of them annotated before", stats.already_there),
    ]
    rows += [("sentences", stats.sentences)]
    rows += [(f"  {label.value}", number) for label, number in stats.labels.most_common()]
    rows += [(f"  not judged: {status.value}", n) for status, n in stats.statuses.most_common() if status.value != "ok"]
    rows += [("sentences / s", stats.sentences / stats.seconds if stats.sentences else None)]
    console.table(f"annotate -> {out}", ("", "count"), rows)
    if stats.failed:
        console.warn(f"{stats.failed} sentences could not be judged; they carry a status, no label, and do not train")
