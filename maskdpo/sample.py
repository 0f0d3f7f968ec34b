"""``maskdpo sample``: several answers of a model to every prompt, resumable."""

import functools
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from maskdpo.backends.base import Backend, Reply, Request, Sampling, told
from maskdpo.backends.forecast import Forecast, drawn, forecast
from maskdpo.backends.price import account
from maskdpo.backends.settings import BackendSettings
from maskdpo.console import progress, warn
from maskdpo.errors import UserError
from maskdpo.identity import fingerprint
from maskdpo.io import Appender, Located, read_located, refuse_overwriting, reorder
from maskdpo.io.lock import sole_writer
from maskdpo.prompt_date import fix_date
from maskdpo.run_record import meta_file, recorded_option
from maskdpo.schemas import Message, Prompt, Response
from maskdpo.settings import DryRun, Limit, Model, Option, PromptsFile, Restart, Seed
from maskdpo.shard import Shard, ShardOption, in_shard
from maskdpo.stage_run import Run, begun_anew


class SampleSettings(BackendSettings):
    """What ``maskdpo sample`` can be told."""

    prompts: PromptsFile
    model: Model
    out: Annotated[Path, Option("Response records, appended as they come.")]
    n: Annotated[int, Field(ge=1), Option("Answers per prompt.")] = 8
    temperature: Annotated[float, Field(ge=0), Option("0 is greedy decoding.")] = 1.0
    top_p: Annotated[float, Field(ge=0.01, le=1), Option("Nucleus sampling.")] = 1.0
    max_tokens: Annotated[
        int, Field(ge=1), Option("Longest answer, in tokens; an answer that reaches this length counts as cut off.")
    ] = 256
    stop: Annotated[
        tuple[Annotated[str, AfterValidator(lambda text: text.replace("\\n", "\n"))], ...],
        BeforeValidator(lambda given: (given,) if isinstance(given, str) else given),
        Option(r"A text that ends an answer; repeat the option for more. \n is a newline.", metavar="TEXT"),
    ] = ()
    limit: Limit = None
    shard: ShardOption = None
    dry_run: DryRun = False
    raw: Annotated[
        bool, Option("Send prompts as they are, without a chat template (base models, few-shot prompts).")
    ] = False
    seed: Seed = 0
    restart: Restart = False

    def sampling(self) -> Sampling:
        return Sampling(**{field.name: getattr(self, field.name) for field in fields(Sampling)})


@dataclass
class SampleStats:
    """What a run of ``sample`` did."""

    prompts: int = 0
    already_there: int = 0
    """Prompts that an earlier run answered."""
    responses: int = 0
    cut_off: int = 0
    """Answers that reached ``max_tokens``."""
    failed: int = 0
    """Prompts without an answer; the next run sends them again."""
    failed_answers: int = 0
    """Missing answers to prompts that have others; the next run asks for them again."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the server had in its prefix cache."""
    completion_tokens: int = 0
    cost: float | None = None
    """Dollars; None where no price is known."""
    seconds: float = 0.0


def sample(
    prompts_file: Path,
    out: Path,
    backend: Backend,
    sampling: Sampling,
    *,
    raw: bool = False,
    restart: bool = False,
    limit: int | None = None,
    shard: Shard | None = None,
) -> SampleStats:
    """Sample ``sampling.n`` responses per prompt and append them to ``out`` as they come. At the end the file has the
    order of ``prompts_file``.

    Args:
        raw: send prompts as they are, without a chat template; every prompt must then be a string.
        restart: set an earlier output aside and start again; else its responses are kept and the missing ones added.
        limit: answer only so many prompts, the first ones.
        shard: answer only the prompts of this part, which may be none.

    Raises:
        UserError: bad input, an output that may not be continued, or a model that cannot answer.
    """
    refuse_overwriting(out, prompts_file)
    if raw and backend.template_options:
        raise UserError("`template_options` is for a chat template, and `raw` uses none")
    prompts = {item.record.id: item.record for item in _checked(prompts_file, raw, limit, shard)}
    with sole_writer(out), begun_anew(out, meta_file(out), restart=restart):
        restart_hint = "Use another `out`, or `restart` to set it aside and begin anew"
        files = functools.partial(fingerprint, backend.model, recorded_option(meta_file(out), "model_files"))
        options = _options(backend, sampling, raw) | {"model_files": files()}
        options |= {"shard": str(shard)} if shard else {}
        options |= {} if raw else fix_date(backend, meta_file(out))
        inputs = {"prompts": prompts_file}
        before = recorded_option(meta_file(out), "max_tokens")
        # an answer that was cut off in its reasoning is sampled again with the same seed: more tokens may complete it
        run = Run(meta_file(out), "sample", options, inputs, restart=restart_hint, may_grow="max_tokens")
        done: set[str] = set()
        appender = Appender(out, Response, lambda response: done.add(response.id))
        run.warn_of_changed_inputs()
        if done and run.inputs_changed:
            warn(
                "answers to a prompt whose text was edited stay as they are, and would be paired with the new text: "
                "give such a prompt another id, or sample anew with `restart`"
            )
        missing = [p for p in prompts.values() if any(response_id(p.id, i) not in done for i in range(sampling.n))]
        stats = SampleStats(prompts=len(prompts), already_there=len(prompts) - len(missing))
        if done and sampling.max_tokens > (before or sampling.max_tokens):
            warn(
                f"`max_tokens` was {before} when this output was begun: its answers stay as they are, also those that "
                "were cut off. `restart` samples all of them anew"
            )
        # the record of a part also says that nothing of a grown input is in it
        if not missing and run.is_complete and not (shard and run.inputs_changed):
            return stats
        started = time.monotonic()
        with progress("sample", len(missing) * sampling.n, "responses") as bar, account(backend, run) as spending:
            replies = backend.generate(Request(p.id, _to_send(p, raw), sampling=sampling) for p in missing)
            first = list(islice(replies, 1))  # a model that cannot be loaded fails here, before anything is written
            run.begin({"model_files": files()})
            with appender:
                for reply in chain(first, replies):
                    prompt_id = str(reply.key)
                    responses = [r for r in _responses(prompt_id, reply, backend, sampling, raw) if r.id not in done]
                    appender.append(responses)
                    _count(stats, prompt_id, reply, responses, done)
                    bar.advance(sampling.n, f"{stats.completion_tokens:,} tokens{spending.text}")
        reorder(out, Response, (response_id(p, i) for p in prompts for i in range(sampling.n)))
        stats.seconds, stats.cost = time.monotonic() - started, spending.cost
        run.finish(asdict(stats))
        _warn_of_length(stats, sampling)
        return stats


def _warn_of_length(stats: SampleStats, sampling: Sampling) -> None:
    if stats.cut_off:
        warn(
            f"{stats.cut_off / stats.responses:.0%} of the answers ({stats.cut_off:,} of {stats.responses:,}) reached "
            f"`max_tokens` {sampling.max_tokens} and were cut off: a sentence that is torn there is neither judged nor "
            "trained, and models do not learn from such answers where to end. Sample anew (`restart`) with a greater "
            "`max_tokens` (without `restart` these answers stay as they are), or ask for shorter answers in the prompts"
        )


def stream_responses(
    prompts: Iterable[Prompt], backend: Backend, sampling: Sampling, *, raw: bool = False
) -> Iterator[Response]:
    """The same in memory: responses in the order in which they come. What fails is pointed out and left out."""
    for reply in backend.generate(Request(p.id, _to_send(p, raw), sampling=sampling) for p in prompts):
        responses = _responses(str(reply.key), reply, backend, sampling, raw)
        _count(SampleStats(), str(reply.key), reply, responses, set())
        yield from responses


def forecast_sample(settings: SampleSettings, backend: Backend) -> Forecast:
    """What ``sample`` would take for its whole input, whatever its output holds already. No model is asked."""
    prompts = [item.record for item in _checked(settings.prompts, settings.raw, settings.limit, settings.shard)]
    part, how = drawn(prompts), settings.sampling()
    requests = (Request(p.id, _to_send(p, settings.raw), sampling=how) for p in part)
    return forecast(requests, backend, settings, records=len(prompts), counted=len(part))


def _options(backend: Backend, sampling: Sampling, raw: bool) -> dict[str, Any]:
    return {
        **asdict(sampling),
        "stop": list(sampling.stop),
        "model": backend.model,
        "raw": raw,
        **told(backend),
    }


def response_id(prompt_id: str, i: int) -> str:
    return f"{prompt_id}-{i}"


def _checked(prompts_file: Path, raw: bool, limit: int | None, shard: Shard | None) -> Iterator[Located[Prompt]]:
    for item in in_shard(read_located(prompts_file, Prompt, limit), shard, lambda item: item.record.id):
        if raw and not isinstance(item.record.prompt, str):
            raise item.error("prompt", "`raw` sends the prompt as it is, so it must be a string, not chat messages")
        yield item


def _to_send(prompt: Prompt, raw: bool) -> str | list[Message]:
    if raw or not isinstance(prompt.prompt, str):
        return prompt.prompt
    return [Message(role="user", content=prompt.prompt)]


def _responses(prompt_id: str, reply: Reply, backend: Backend, sampling: Sampling, raw: bool) -> list[Response]:
    how = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "raw": raw,
        **told(backend),
        **reply.sampling,
    }
    if backend.today is not None and not raw:
        how["prompt_date"] = backend.today.isoformat()
    numbers = (i for i in range(sampling.n) if i not in reply.failed)
    return [
        Response(
            id=response_id(prompt_id, i),
            prompt_id=prompt_id,
            response=completion.text,
            reasoning=completion.reasoning,
            model=backend.model,
            sampling=how,
            finish_reason=completion.finish_reason,
        )
        for i, completion in zip(numbers, reply.completions, strict=False)
    ]


def _count(stats: SampleStats, prompt_id: str, reply: Reply, responses: list[Response], done: set[str]) -> None:
    if reply.failure is not None:
        stats.failed += 1
        warn(f"prompt {prompt_id!r}: {reply.failure.message}")
    for i, failure in sorted(reply.failed.items()):
        answer_id = response_id(prompt_id, i)
        if answer_id not in done:
            stats.failed_answers += 1
            warn(f"answer {answer_id!r}: {failure.message}")
    stats.responses += len(responses)
    stats.cut_off += sum(response.finish_reason == "length" for response in responses)
    stats.prompt_tokens += reply.prompt_tokens
    stats.cached_tokens += reply.cached_tokens
    stats.completion_tokens += reply.completion_tokens
