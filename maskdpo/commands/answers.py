"""``maskdpo sample`` and ``annotate``."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from maskdpo import console
from maskdpo.annotate.settings import AnnotateSettings
from maskdpo.backends.settings import BackendSettings
from maskdpo.errors import UserError
from maskdpo.sample import SampleSettings
from maskdpo.schemas import FAILED, Counts, Status

NEARLY_ALL = 0.9
"""Share of unsure sentences from which on a run warns."""

if TYPE_CHECKING:
    from maskdpo.annotate.stats import AnnotateStats, SentenceCounts
    from maskdpo.backends.forecast import Forecast
    from maskdpo.verdicts.decision import Rule


def sample(settings: SampleSettings) -> None:
    """Sample several answers to every prompt.

    Repeat the same command to continue an interrupted run.
    """
    from maskdpo.backends import make_backend
    from maskdpo.sample import sample as run

    if settings.dry_run:
        from maskdpo.sample import forecast_sample

        # a worker is only asked how long the context of its model is
        backend = make_backend(settings.model, settings.but(workers=settings.workers and 1))
        _show_forecast("sample", "prompts", forecast_sample(settings, backend), settings)
        return
    backend = make_backend(settings.model, settings)
    stats = run(
        settings.prompts,
        settings.out,
        backend,
        settings.sampling(),
        raw=settings.raw,
        restart=settings.restart,
        limit=settings.limit,
        shard=settings.shard,
    )
    rows: list[tuple[str, object]] = [
        ("prompts", stats.prompts),
        ("of them answered before", stats.already_there),
        ("answers", stats.responses),
        ("cut off at --max-tokens", stats.cut_off),
        ("prompts that failed", stats.failed),
        ("answers that failed beside others", stats.failed_answers),
        ("prompt tokens", stats.prompt_tokens),
        *([("of them cached by the server", stats.cached_tokens)] if stats.cached_tokens else []),
        ("tokens generated", stats.completion_tokens),
        *_cost_rows("cost", stats.cost, settings.out),
        ("tokens generated / s", round(stats.completion_tokens / stats.seconds) if stats.seconds else None),
    ]
    console.table(f"sample -> {settings.out}", ("", "count"), rows)
    if stats.failed_answers:
        console.warn(
            f"{console.counted(stats.failed_answers, 'answer is', 'answers are')} missing beside others to the same "
            "prompts (see the warnings); repeat the command to ask again"
        )
    if stats.failed:
        raise UserError(
            f"{console.counted(stats.failed, 'prompt has', 'prompts have')} no answer (see the warnings); repeat the "
            "command to ask again"
        )


def annotate(settings: AnnotateSettings) -> None:
    """Split every answer into sentences and have each labelled against the reference.

    A call that fails is a status, never a label. Repeat the same command to continue an interrupted run.
    """
    from maskdpo.annotate.deciding import read_rule
    from maskdpo.annotate.labelling import annotate as run

    if settings.dry_run:
        from maskdpo.annotate.forecast import forecast_annotate

        _show_forecast("annotate", "answers", forecast_annotate(settings), settings)
        return
    rule = read_rule(settings.calibration, settings.min_confidence)
    judge = settings.make_judge()
    stats = run(
        settings.prompts,
        settings.responses,
        settings.out,
        judge,
        settings.make_splitter(),
        restart=settings.restart,
        retry_failed=settings.retry_failed,
        limit=settings.limit,
        shard=settings.shard,
        summary=settings.summary,
        options=settings.own_options(),
        rule=rule,
        missing_reference=settings.missing_reference,
    )
    console.table(f"annotate -> {settings.out}", ("", "count"), _annotate_rows(stats, settings.out))
    for note in getattr(judge, "notes", list)():
        console.say(f"note: {note}")
    if stats.file.failed:
        why = f" (for example: {stats.file.why_failed})" if stats.file.why_failed else ""
        every = "; the judge has answered nothing" if not stats.file.of_judge else ""
        console.warn(
            f"{console.counted(stats.file.failed, 'sentence')} could not be judged{why}{every}; such sentences carry a "
            "status, no label, and do not train; repeat the command with --retry-failed to ask again (docs/judges.md: "
            "which statuses that helps)"
        )
    if without := stats.file.statuses[Status.NO_REFERENCE]:
        console.warn(
            f"{console.counted(without, 'sentence was', 'sentences were')} not judged for want of a reference; such "
            "sentences carry the status no_reference and do not train. Give their prompts references and repeat the "
            "command with --retry-failed"
        )
    warn_of_labels(stats.file, rule)


def label_rows(file: "SentenceCounts") -> list[tuple[str, object]]:
    """The sentences of a file by label, then those without one: answered too weakly, not asked, and not answered."""
    rows: list[tuple[str, object]] = [(f"  {label.value}", n) for label, n in file.labels.most_common() if n]
    rows += [("  unsure", file.statuses[Status.UNSURE])] if file.statuses[Status.UNSURE] else []
    torn, without = file.statuses[Status.FRAGMENT], file.statuses[Status.NO_REFERENCE]
    rows += [("  fragments of answers that were cut off", torn)] if torn else []
    rows += [("  of prompts without a reference", without)] if without else []
    rows += [
        (f"  not judged: {status.value}", n) for status, n in file.statuses.most_common() if n and status in FAILED
    ]
    for language, counts in file.languages.of_several().items():
        said = ", ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in Counts._fields if counts[name])
        rows.append((f"  in {language}", f"{console.counted(counts['answers'], 'answer')}: {said or 'no sentences'}"))
    return rows


def warn_of_labels(file: "SentenceCounts", rule: "Rule") -> None:
    """Warn of labels on which a rule had no say, and of labels that are nearly all the same."""
    if rule.calibration is not None and file.without_scores:
        sentences = console.counted(file.without_scores, "sentence has", "sentences have")
        console.warn(f"{sentences} no scores, so the calibration has no say there: the label of the judge stays")
    if rule.min_confidence is not None and file.without_confidence:
        sentences = console.counted(file.without_confidence, "sentence has", "sentences have")
        console.warn(f"{sentences} no confidence to compare with `min_confidence`: the label stays")
    unsure = file.statuses[Status.UNSURE]
    if unsure > NEARLY_ALL * (unsure + file.of_judge.total()):
        console.warn(
            f"{unsure:,} sentences are unsure, nearly all: no pairs can be built from these labels. Take a smaller "
            "`min_confidence`, or a calibration with another `aim` or a smaller `abstain`"
        )
    if name := file.nearly_all:
        share = file.of_judge[name] / file.of_judge.total()
        console.warn(
            f"{share:.0%} of the {file.of_judge.total():,} labels of the judge are {name.replace('_', ' ')}: that says "
            "little about the answers. Label some sentences yourself and run `maskdpo calibrate`, or take another "
            "`protocol` or a stronger judge (docs/calibrate.md)"
        )


def _show_forecast(command: str, records: str, made: "Forecast", settings: BackendSettings) -> None:
    from maskdpo.backends.price import dollars

    unknown = "unknown"
    time = unknown if made.seconds is None else timedelta(seconds=round(made.seconds))
    rows: list[tuple[str, object]] = [
        (records, made.records),
        ("of them counted", made.counted),
        ("calls", made.calls),
        ("prompt tokens", made.prompt_tokens),
        ("tokens generated, at most", made.completion_tokens),
    ]
    notes = [f"tokens of prompts are counted by {made.counted_by}"]
    if settings.backend == "openai":
        rows += [
            ("cost of the prompts", unknown if made.prompt_cost is None else dollars(made.prompt_cost)),
            ("cost, at most", unknown if made.cost is None else dollars(made.cost)),
            ("time at the given rates, at most", time),
        ]
        notes += [] if made.cost is not None else ["no price is known: give `price` for the cost"]
    notes += _beside_limit(made, settings.max_cost)
    notes += [] if made.seconds is not None else ["the time depends on the speed of the model, which is not known"]
    console.table(f"{command} (dry run)", ("", "forecast"), rows, notes)


def _beside_limit(made: "Forecast", limit: float | None) -> list[str]:
    """Whether the whole output costs less than ``max_cost``."""
    from maskdpo.backends.price import dollars

    if limit is None or made.cost is None or made.prompt_cost is None:
        return []
    of = f"`max_cost` {dollars(limit)}"
    if made.cost <= limit:
        return [f"{of} is enough, even if every reply is as long as it may be"]
    if made.prompt_cost <= limit:
        return [f"{of} may not be enough: the prompts cost less, and with the longest replies the run costs more"]
    return [f"{of} is not enough: the prompts alone cost more, so the run would stop before its end"]


def _cost_rows(name: str, cost: float | None, out: Path) -> list[tuple[str, object]]:
    """What a run has cost, and what all runs of its output have cost, where a price is known."""
    from maskdpo.backends.price import dollars
    from maskdpo.run_record import meta_file, read_meta

    meta = read_meta(meta_file(out))
    if cost is None or meta is None or meta.spent is None:
        return []
    rows: list[tuple[str, object]] = [(name, dollars(cost))]
    if meta.spent.cost is not None and meta.spent.cost > cost:
        rows.append(("cost of all runs", dollars(meta.spent.cost)))
    if meta.spent.unanswered:
        rows.append(("calls without an answer, at most", dollars(meta.spent.unanswered)))
    return rows


def _annotate_rows(stats: "AnnotateStats", out: Path) -> list[tuple[str, object]]:
    """The closing table: first what the file holds by now, then what this run did, where it did anything."""
    from maskdpo.annotate.stats import cached_share

    file, usage = stats.file, stats.run_usage
    rows: list[tuple[str, object]] = [("responses", stats.responses), ("sentences in the file", file.sentences)]
    rows += label_rows(file)
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
            *_cost_rows("this run: cost", stats.run_cost, out),
        ]
    if not stats.run_responses:
        return [*rows, ("annotated before", stats.already_there)]
    before: list[tuple[str, object]] = [("annotated before this run", stats.already_there)]
    return rows + [row for row in before + this_run if row[1]]
