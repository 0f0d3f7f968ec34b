"""Judged sentences beside gold sentences."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeVar

from maskdpo.console import warn
from maskdpo.errors import InputError
from maskdpo.run_record import META_IN_FOLDER, holds, meta_file, read_meta
from maskdpo.schemas import Annotation, JudgeInfo, Kind, Sentence
from maskdpo.verdicts.decision import scoring_judge

Drawn = Literal["recorded", "random"]
PEOPLE = "gold labels are those that people gave, in a file of their own (docs/records.md)"


def check_gold(
    gold: Mapping[str, Annotation], file: Path, judged: Sequence[Path], judges: Iterable[JudgeInfo | None]
) -> None:
    """Refuse gold labels that are the very labels that they are to check, and warn of those of another judge, and of
    those that the judge was trained on.

    Args:
        gold: by id, out of ``file``.
        judges: those of the annotations ``judged``.

    Raises:
        InputError: it is the same file, or labels of the same judge.
    """
    if any(file == each or (file.exists() and each.exists() and each.samefile(file)) for each in judged):
        raise InputError(f"is the file whose labels it is to check; {PEOPLE}", path=file)
    judges = list(judges)
    named = {record.judge for record in gold.values() if record.judge is not None}
    if {scoring_judge(judge) for judge in named} & {scoring_judge(judge) for judge in judges if judge}:
        raise InputError(f"has its labels from the very judge of {', '.join(map(str, judged))}; {PEOPLE}", path=file)
    if _only_chosen(file):
        warn(
            f"{file}: none of its sentences was drawn at random, as its record says, so figures against it describe "
            "sentences that were chosen, as doubtful for example, and not the answers"
        )
    for name in sorted({judge.name for judge in named}):
        warn(f"{file}: labels of the judge {name} are taken as gold; the figures say how well it is imitated")
    for model in sorted({judge.model for judge in judges if judge and judge.model}):
        if _trained_on(model, file):
            warn(
                f"{file}: the judge {model} was trained on these labels, so it looks better on them than it is; label "
                "sentences of other topics"
            )


def _only_chosen(gold: Path) -> bool:
    """Whether ``maskdpo gold`` has made this file of sentences of which none was drawn, but some were chosen."""
    meta = read_meta(meta_file(gold))
    return (
        meta is not None and meta.command == "gold" and not meta.counts.get("drawn") and bool(meta.counts.get("chosen"))
    )


def _trained_on(model: str, file: Path) -> bool:
    """Whether ``maskdpo train-judge`` has read the labels of this file for the judge in this folder."""
    meta = read_meta(Path(model) / META_IN_FOLDER)
    return meta is not None and any(
        role.startswith("labelled") and holds(file, digest) for role, digest in meta.inputs.items()
    )


class Match(NamedTuple):
    """A gold sentence and what the judge says of it."""

    annotation: Annotation
    sentence: Sentence | None
    """The judged sentence that shares most characters with the gold sentence; None where none shares any."""
    gold: Sentence
    topic: str

    @property
    def weight(self) -> float:
        """How many sentences the gold sentence stands for: 1 / the probability with which it was drawn."""
        return 1 / (self.gold.inclusion or 1.0)


def matches(
    annotations: Iterable[Annotation], gold: Mapping[str, Annotation], topics: Mapping[str, str] | None = None
) -> Iterator[Match]:
    """The labelled gold sentences of all annotated answers, by the id of the answer, in the order of the annotations.

    Answers whose gold labels are of another text are left out, and so are gold sentences where the judged answer has a
    fragment, about which no judge is asked.

    Args:
        gold: by id.
        topics: by the id of a prompt; without one, the prompt is its own topic.
    """
    for annotation in annotations:
        answer = gold.get(annotation.id)
        if answer is None or answer.response != annotation.response:
            continue
        topic = (topics or {}).get(annotation.prompt_id, annotation.prompt_id)
        for sentence in answer.sentences:
            judged = overlapping(annotation.sentences, sentence)
            if sentence.label is not None and (judged is None or judged.kind is not Kind.FRAGMENT):
                yield Match(annotation, judged, sentence, topic)


def describing(matched: Iterable[Match], drawn: Drawn = "recorded") -> list[Match]:
    """The gold sentences that figures of all answers may be made of.

    Where some were drawn at random (``Sentence.inclusion``), the others were chosen, as doubtful for example, and are
    left out. Where none says how it was drawn, all count the same.

    Args:
        drawn: ``random``: all were drawn with the same probability, whatever they say.
    """
    every = list(matched)
    if drawn == "random":
        return [one._replace(gold=one.gold.model_copy(update={"inclusion": None})) for one in every]
    known = [one for one in every if one.gold.inclusion is not None]
    return known or every


def beside_gold(matched: Iterable[Match]) -> Iterator[tuple[Sentence, Sentence]]:
    """Every judged sentence of an answer that gold speaks of, once: with the gold sentence that shares most with it."""
    found: dict[int, tuple[Sentence, list[Sentence]]] = {}
    for _, judged, gold, _ in matched:
        if judged is not None:
            found.setdefault(judged.start, (judged, []))[1].append(gold)
    for judged, labelled in found.values():
        yield judged, overlapping(labelled, judged) or labelled[0]


def with_gold(annotation: Annotation, gold: Mapping[str, Annotation]) -> Annotation:
    """The annotation with the sentences that people have labelled in place of those of the judge that they overlap.

    The labels of people have no confidence. A fragment stays one. Nothing is known of what is left of a sentence that
    people have split and labelled in part, so no sentence covers it.
    """
    people = gold.get(annotation.id)
    if people is None or people.response != annotation.response:
        return annotation
    fragments = [one for one in annotation.sentences if one.kind is Kind.FRAGMENT]
    labelled = [
        Sentence(start=one.start, end=one.end, label=one.label, kind=one.kind)
        for one in people.sentences
        if one.label is not None and overlapping(fragments, one) is None
    ]
    others = [one for one in annotation.sentences if overlapping(labelled, one) is None]
    return annotation.model_copy(update={"sentences": sorted([*others, *labelled], key=lambda one: one.start)})


class Spanned(Protocol):
    """A sentence of a judge, or what a person decided: code points ``start <= i < end`` of a response."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


S = TypeVar("S", bound=Spanned)


def overlapping(sentences: Iterable[S], wanted: Spanned) -> S | None:
    """The sentence that shares most characters with ``wanted``, if it shares any."""
    best, most = None, 0
    for sentence in sentences:
        shared = min(sentence.end, wanted.end) - max(sentence.start, wanted.start)
        if shared > most:
            best, most = sentence, shared
    return best
