"""From answers to what a judge is asked: their sentences, less those about which no judge is asked."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from maskdpo.annotate.judge import Judge, Task, Verdict
from maskdpo.annotate.output import AnnotationFile, retried_sentences
from maskdpo.errors import UserError
from maskdpo.io import read_located, read_records
from maskdpo.schemas import WITHOUT_CLAIM, Annotation, Kind, Label, Prompt, Response, Sentence, Span, Status
from maskdpo.text import fragment
from maskdpo.text.language import detect_language
from maskdpo.text.splitters import Splitter

NO_CLAIM, FRAGMENT, NO_REFERENCE = (
    Verdict(Label.NO_FACT), Verdict(None, Status.FRAGMENT), Verdict(None, Status.NO_REFERENCE)
)  # fmt: skip
"""Of sentences about which no judge is asked."""


def tasks_of(responses: Iterable[Response], prompts: Mapping[str, Prompt], splitter: Splitter) -> Iterator[Task]:
    for response in responses:
        prompt = prompts[response.prompt_id]
        spans = splitter.split(response.response, prompt.language or detect_language(response.response))
        _check_spans(spans, response, splitter)
        spans = fragment.set_apart(spans, response.response, response.finish_reason)
        known = dict.fromkeys(WITHOUT_CLAIM, NO_CLAIM) | {Kind.FRAGMENT: FRAGMENT}
        given = tuple(sentence_of(span, known[span.kind]) for span in spans if span.kind in known)
        yield Task(prompt, response, [span for span in spans if span.kind not in known], given)


def retry_tasks(output: AnnotationFile, prompts: Mapping[str, Prompt]) -> Iterator[Task]:
    """Tasks for the failed sentences, read from the output one by one; sentences that have a verdict are ``given``."""
    if not output.failed:
        return
    for record in islice(read_records(output.path, Annotation), output.at_start):  # this run appends behind them
        if record.id in output.failed:
            output.stats.file.remove(record)
            response = Response(**{name: getattr(record, name) for name in Response.model_fields})
            again = retried_sentences(record)
            spans = [Span(sentence.start, sentence.end, sentence.kind) for sentence in again]
            starts = {sentence.start for sentence in again}
            given = tuple(sentence for sentence in record.sentences if sentence.start not in starts)
            yield Task(prompts[record.prompt_id], response, spans, given)


def _check_spans(spans: Sequence[Span], response: Response, splitter: Splitter) -> None:
    """A custom splitter may not keep to the interface."""
    end = 0
    for span in spans:
        if not isinstance(span, Span) or not end <= span.start < span.end <= len(response.response):
            raise UserError(
                f"the splitter {splitter.name} gave {span!r} for the answer {response.id!r}; spans must be of the type "
                "maskdpo.schemas.Span, in order, not empty, not overlapping, and within the text"
            )
        end = span.end


def sentence_of(span: Span, verdict: Verdict) -> Sentence:
    return Sentence(**span._asdict(), **asdict(verdict))


# --- prompts without a reference -----------------------------------------------------------------------


def without_reference(judge: Judge, prompts: Mapping[str, Prompt], asked: AbstractSet[str]) -> frozenset[str]:
    """The prompts of these answers that have no reference, where the judge compares with one."""
    if not getattr(judge, "needs_reference", False):
        return frozenset()
    return frozenset(prompt_id for prompt_id in asked if not prompts[prompt_id].has_reference)


def refuse_missing_reference(
    missing: AbstractSet[str], asked: int, judge: Judge, prompts_file: Path | None = None
) -> None:
    """Raise the error about prompts without a reference, if there are any.

    Args:
        asked: number of all prompts of the answers.
        prompts_file: where the prompts are from, unless from memory.
    """
    if not missing:
        return
    rest = (
        f"has no reference, and the {judge.info.name} judge compares with one (prompts without a reference: "
        f"{len(missing):,} of {asked:,}). Add the references, take another judge, or leave the answers to such prompts "
        "without labels: `missing_reference` skip"
    )
    for item in read_located(prompts_file, Prompt) if prompts_file else ():
        if item.record.id in missing:
            raise item.error("reference", f"prompt {item.record.id!r} {rest}")
    raise UserError(f"prompt {min(missing)!r} {rest}")


def unasked(tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
    """The tasks of prompts without a reference, as a judge would return them."""
    return ((task, [NO_REFERENCE] * len(task.spans)) for task in tasks)
