"""From answers to annotations, in memory: what a judge returns is checked, and made into records."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain

from pydantic import ValidationError

from maskdpo.annotate.deciding import RAW, decided, under
from maskdpo.annotate.judge import Judge, MissingReference, Task, Verdict, not_asked_for
from maskdpo.annotate.tasks import refuse_missing_reference, sentence_of, tasks_of, unasked, without_reference
from maskdpo.errors import UserError, first_problem
from maskdpo.schemas import Annotation, JudgeInfo, Prompt, Response
from maskdpo.text.splitters import Splitter
from maskdpo.verdicts.decision import Rule


def stream_annotations(
    prompts: Mapping[str, Prompt],
    responses: Iterable[Response],
    judge: Judge,
    splitter: Splitter,
    *,
    rule: Rule = RAW,
    missing_reference: MissingReference = "fail",
) -> Iterator[Annotation]:
    """``annotate`` in memory: annotations in the order in which the judge is done with them.

    Raises:
        UserError: a response to a prompt that is not there or has no reference, or a judge that cannot work.
    """
    answers = list(responses)
    for response in answers:
        if response.prompt_id not in prompts:
            raise UserError(f"response {response.id!r}: no prompt has the id {response.prompt_id!r}")
    asked = dict.fromkeys(response.prompt_id for response in answers)
    skipped = without_reference(judge, prompts, asked.keys())
    if missing_reference == "fail":
        refuse_missing_reference(skipped, len(asked), judge)
    info = under(rule, judge.info).model_copy(update={"splitter": splitter.name})
    judged = tasks_of((r for r in answers if r.prompt_id not in skipped), prompts, splitter)
    without = tasks_of((r for r in answers if r.prompt_id in skipped), prompts, splitter)
    known = partial(with_commit, info, judge)
    unjudged = (record_of_answer(*result, known(), rule) for result in unasked(without))
    return chain(judged_annotations(judged, judge, known, rule), unjudged)


def judged_annotations(
    tasks: Iterable[Task], judge: Judge, known: Callable[[], JudgeInfo], rule: Rule
) -> Iterator[Annotation]:
    """What the judge returns, as records. A custom judge may not keep to the interface, so every task is checked.

    Args:
        known: the judge as records name it, asked for with every record.

    Raises:
        UserError: an answer that was not asked for, a verdict too many or too few, or one that no record can hold.
    """
    open_tasks: set[str] = set()
    name = judge.info.name

    def noted() -> Iterator[Task]:
        for task in tasks:
            open_tasks.add(task.response.id)
            yield task

    for task, verdicts in judge.judge(noted()):
        answer = task.response.id
        if answer not in open_tasks:
            raise not_asked_for(name, answer)
        open_tasks.remove(answer)
        if len(verdicts) != len(task.spans):
            counts = f"{len(verdicts)} verdicts for the {len(task.spans)} sentences of the answer {answer!r}"
            raise UserError(f"the judge {name} gave {counts}; a judge must give one verdict per sentence")
        if wrong := [verdict for verdict in verdicts if not isinstance(verdict, Verdict)]:
            raise UserError(f"the judge {name} gave {wrong[0]!r} on the answer {answer!r}; a Verdict is needed")
        try:
            yield record_of_answer(task, verdicts, known(), rule)
        except ValidationError as error:
            _, problem = first_problem(error)
            raise UserError(f"the judge {name} gave a wrong verdict on the answer {answer!r}: {problem}") from None


def record_of_answer(task: Task, verdicts: list[Verdict], info: JudgeInfo, rule: Rule) -> Annotation:
    """The record of one answer, with the sentences that were judged, in this run or before, and those that were not."""
    judged = [decided(sentence_of(span, verdict), rule) for span, verdict in zip(task.spans, verdicts, strict=True)]
    sentences = sorted([*judged, *task.given], key=lambda sentence: sentence.start)
    return Annotation(**dict(task.response), sentences=sentences, judge=info)


def with_commit(info: JudgeInfo, judge: Judge) -> JudgeInfo:
    """A judge knows the commit of its model only when it has fetched it."""
    return info.model_copy(update={"revision": judge.info.revision})
