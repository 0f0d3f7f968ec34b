"""The commands: parse, call one plain function, print. Heavy imports stay inside them, so that --help is quick."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import maskdpo
from maskdpo import console
from maskdpo.errors import UserError

app = typer.Typer(
    name="maskdpo",
    help="Make a language model more factual: sample answers, label every sentence, build preference pairs, and train "
    "with Mask-DPO, which leaves the wrong sentences of the better answer and the right ones of the worse answer out "
    "of the loss.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=False,
)

Model = Annotated[
    str, typer.Option(help="`smollm2` (the small model out of a PyPI wheel), a model folder, or a Hub id.")
]
PromptsArg = Annotated[Path, typer.Argument(help="Prompt records (JSONL).", show_default=False)]
AnnotationsArg = Annotated[Path, typer.Argument(help="Annotation records (JSONL).", show_default=False)]
PairsArg = Annotated[Path, typer.Argument(help="Pair records (JSONL).", show_default=False)]
PromptsOption = Annotated[Path | None, typer.Option(help="Prompt records, for topics, questions and references.")]
BackendOption = Annotated[
    Literal["transformers", "vllm", "openai"],
    typer.Option(
        help="Who runs the model: this process (`transformers`, `vllm`), or a server that speaks the OpenAI API."
    ),
]
ApiBase = Annotated[
    str | None,
    typer.Option(help="URL of the server for `--backend openai`; the key is read from $OPENAI_API_KEY."),
]
Concurrency = Annotated[int, typer.Option(min=1, help="Requests under way at once (`--backend openai`).")]
BatchSize = Annotated[int, typer.Option(min=1, help="Rows a forward pass (`--backend transformers`).")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option(help="Compute type (`--backend transformers`); `auto`: bfloat16 where the hardware computes in it."),
]
Restart = Annotated[
    bool,
    typer.Option("--restart", help="Set an earlier output aside (.bak) and begin anew, instead of continuing."),
]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same draws (rounding may differ with the batch).")]


def _version(wanted: bool) -> None:
    if wanted:
        console.out.print(f"maskdpo {maskdpo.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def sample(
    prompts: PromptsArg,
    model: Model,
    out: Annotated[Path, typer.Option(help="Response records, appended as they come.")],
    backend: BackendOption = "transformers",
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
    api_base: ApiBase = None,
    concurrency: Concurrency = 32,
    batch_size: BatchSize = 64,
    dtype: Dtype = "auto",
    restart: Restart = False,
) -> None:
    """Sample several answers to every prompt.

    Repeat the same command to continue an interrupted run.
    """
    from maskdpo.backends import make_backend
    from maskdpo.backends.base import Sampling
    from maskdpo.sample import sample as run

    made = make_backend(backend, model, api_base=api_base, concurrency=concurrency, batch_size=batch_size, dtype=dtype)
    stops = tuple(text.replace("\\n", "\n") for text in stop or ())
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature, top_p=top_p, n=n, seed=seed, stop=stops)
    stats = run(prompts, out, made, sampling, raw=raw, restart=restart)
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
def annotate(
    prompts: PromptsArg,
    responses: Annotated[Path, typer.Argument(help="Response records (JSONL).", show_default=False)],
    out: Annotated[Path, typer.Option(help="Annotation records, appended as they come.")],
    judge: Annotated[
        str, typer.Option(help="`lexical` (needs no model), `llm`, or `package.module:factory` for your own.")
    ],
    backend: BackendOption = "transformers",
    model: Annotated[str | None, typer.Option(help="The judge's model, for `--judge llm`.")] = None,
    protocol: Annotated[
        str, typer.Option(help="How the `llm` judge is asked: `single`, or a folder of templates.")
    ] = "single",
    splitter: Annotated[str, typer.Option(help="`markdown`, `spacy`, `spacy:PIPELINE` or `nltk`.")] = "markdown",
    api_base: ApiBase = None,
    concurrency: Concurrency = 32,
    batch_size: BatchSize = 64,
    dtype: Dtype = "auto",
    restart: Restart = False,
) -> None:
    """Split every answer into sentences and have each labelled against the reference.

    A call that fails is a status, never a label. Repeat the same command to continue an interrupted run.
    """
    from maskdpo.annotate.judges import get_judge
    from maskdpo.annotate.runner import annotate as run
    from maskdpo.annotate.splitters import get_splitter
    from maskdpo.backends import make_backend
    from maskdpo.backends.base import Backend

    def judge_backend() -> Backend:
        if model is None:
            raise UserError("--judge llm needs --model: the model that judges")
        return make_backend(
            backend, model, api_base=api_base, concurrency=concurrency, batch_size=batch_size, dtype=dtype
        )

    if ":" in judge:
        sys.path.append("")  # a judge of one's own may lie in the current folder
    made = get_judge(judge, make_backend=judge_backend, protocol=protocol)
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


@app.command()
def train(
    pairs: PairsArg,
    out: Annotated[Path, typer.Option(help="Folder for the trained model (Hugging Face format).")],
    model: Annotated[str | None, typer.Option(help="`smollm2`, a model folder, or a Hub id.")] = None,
    method: Annotated[
        Literal["mask-dpo", "dpo"] | None, typer.Option(help="Which tokens count. [default: mask-dpo]")
    ] = None,
    beta: Annotated[float | None, typer.Option(help="Pull towards the reference model. [default: 0.1]")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate of AdamW. [default: 1e-6]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the pairs. [default: 1]")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Stop after this many optimiser steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pairs an optimiser step. [default: 16]")] = None,
    tokens_per_batch: Annotated[
        int | None, typer.Option(help="Tokens a forward pass: memory against speed. [default: 2048]")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Longest prompt + answer in tokens. [default: 2048]")] = None,
    eos: Annotated[
        Literal["keep", "last_sentence", "drop"] | None,
        typer.Option(help="Whether the end-of-turn token trains. [default: keep]"),
    ] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"] | None,
        typer.Option(help="Compute type; weights stay float32. [default: auto]"),
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None, typer.Option("--gradient-checkpointing", help="Slower, far less memory.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Order of the pairs. [default: 0]")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with any of these settings; flags override it.")
    ] = None,
    save_every: Annotated[int, typer.Option(min=0, help="Optimiser steps between checkpoints; 0: none.")] = 100,
    keep: Annotated[int, typer.Option(min=1, help="Newest checkpoints to keep.")] = 2,
    cache: Annotated[bool, typer.Option(help="Keep the reference log-probs on disk for the next run.")] = True,
    restart: Restart = False,
) -> None:
    """Train a model with Mask-DPO (or plain DPO).

    Repeat the same command to continue an interrupted run from its last checkpoint.
    """
    from maskdpo.train.config import make_config
    from maskdpo.train.run import train as run

    flags: dict[str, Any] = {
        "model": model, "method": method, "beta": beta, "lr": lr, "epochs": epochs, "max_steps": max_steps,
        "batch_size": batch_size, "tokens_per_batch": tokens_per_batch, "max_length": max_length, "eos": eos,
        "dtype": dtype, "gradient_checkpointing": gradient_checkpointing, "seed": seed,
    }  # fmt: skip
    result = run(
        pairs,
        out,
        make_config(flags, config),
        save_every=save_every,
        keep=keep,
        restart=restart,
        use_cache=cache,
    )
    if result is None or not result.steps:
        return
    columns = ("", f"step {result.steps[0].step}", f"step {result.steps[-1].step}")
    shown = (
        "loss",
        "margin",
        "accuracy",
        "reward_chosen",
        "reward_rejected",
        "kept_chosen",
        "kept_rejected",
        "grad_norm",
    )
    ends = (result.steps[0], result.steps[-1])
    console.table(f"train -> {out}", columns, [(name, *(getattr(stats, name) for stats in ends)) for name in shown])
    seconds = sum(stats.seconds for stats in result.steps)
    rows: list[tuple[str, object]] = [
        ("pairs", result.pairs),
        ("pairs dropped", result.dropped.total()),
        ("steps", result.total_steps),
        ("pairs / s", sum(stats.pairs_per_s * stats.seconds for stats in result.steps) / seconds),
        ("peak memory, GB", result.steps[-1].memory_gb),
        ("layout", result.layout),
    ]
    console.table("", ("", "value"), rows)


@app.command()
def inspect(
    pairs: PairsArg,
    model: Model,
    json: Annotated[
        Path | None, typer.Option(help="Write pair, side, input_ids and weights of all pairs as JSON lines.")
    ] = None,
    method: Annotated[Literal["mask-dpo", "dpo"], typer.Option(help="Which tokens count.")] = "mask-dpo",
    eos: Annotated[
        Literal["keep", "last_sentence", "drop"], typer.Option(help="Whether the end-of-turn token trains.")
    ] = "keep",
    max_length: Annotated[int, typer.Option(min=2, help="Longest prompt + answer in tokens.")] = 2048,
    show: Annotated[int, typer.Option(min=0, help="Pairs to print.")] = 3,
) -> None:
    """Show the tokens of each pair by their weight in the loss: ⟦trained⟧ on a coloured ground, grey: left out."""
    from maskdpo.train.inspect import inspect_pairs

    stats, texts = inspect_pairs(pairs, model, method=method, eos=eos, max_length=max_length, show=show, json_file=json)
    for text in texts:
        console.out.print(text)
    rows: list[tuple[str, object]] = [("pairs", stats.pairs)]
    rows += [(f"dropped: {reason.value}", number) for reason, number in stats.dropped.most_common()]
    for side in stats.tokens:
        rows.append((f"{side}: trained tokens of {stats.tokens[side]:,}", stats.kept[side]))
    console.table(f"inspect {pairs}", ("", "count"), rows)


@app.command()
def evaluate(
    annotations: AnnotationsArg,
    prompts: PromptsOption = None,
    gold: Annotated[Path | None, typer.Option(help="Annotations with human labels: how well do ours agree?")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Annotations of another model (after) to set beside these (before).")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Count right, wrong, no-fact and not-judged sentences per answer, with 95% intervals over topics."""
    from maskdpo.evaluate.tables import agreement_tables, comparison_table, summary_table

    tables = (
        [comparison_table(annotations, compare, prompts, seed)]
        if compare
        else [summary_table(annotations, prompts, seed)]
    )
    tables += agreement_tables(annotations, gold, seed) if gold else []
    for table in tables:
        console.table(table.title, table.columns, table.rows)


@app.command()
def report(
    annotations: Annotated[Path, typer.Argument(help="Annotation or pair records (JSONL).", show_default=False)],
    out: Annotated[Path, typer.Option(help="The HTML file.")],
    compare: Annotated[Path | None, typer.Option(help="Annotations from after, to set beside these.")] = None,
    prompts: PromptsOption = None,
    gold: Annotated[Path | None, typer.Option(help="Annotations with human labels.")] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the page.")] = None,
    seed: Seed = 0,
) -> None:
    """Write one self-contained HTML page with every sentence coloured by its label."""
    from maskdpo.evaluate.report import write_report

    stats = write_report(annotations, out, compare=compare, prompts=prompts, gold=gold, title=title, seed=seed)
    rows: list[tuple[str, object]] = [
        ("answers", stats.answers),
        ("sentences", stats.sentences),
        ("without a counterpart", stats.unmatched),
        ("size, kB", round(stats.bytes / 1000)),
    ]
    console.table(f"report -> {out}", ("", "count"), rows)


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="Any record file (JSONL).", show_default=False)],
    prompts: PromptsOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Errors to print before giving up.")] = 20,
) -> None:
    """Check a record file; every error is one line: file:line: field: message."""
    from maskdpo.validate import validate_file

    result = validate_file(file, prompts, limit)
    for error in result.errors:
        console.fail(str(error))
    more = f" (stopped after {limit} errors)" if result.stopped else ""
    console.table(
        f"validate {file}",
        ("", "count"),
        [(f"valid {result.kind} records", result.valid), ("errors" + more, len(result.errors))],
    )
    if result.errors:
        raise typer.Exit(2)


def main() -> None:
    """Run a command; what the user can put right is one line on stderr and exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except UserError as error:
        console.fail(str(error))
        raise SystemExit(2) from None
    except BrokenPipeError:
        raise SystemExit(141) from None
    except OSError as error:  # a full disk, a folder without rights: nothing that a traceback would explain better
        console.fail(f"{error.filename or 'input/output'}: {error.strerror or error}")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        console.fail("interrupted; repeat the same command to go on")
        raise SystemExit(130) from None
