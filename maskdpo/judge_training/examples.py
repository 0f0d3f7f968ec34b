"""Labelled sentences out of annotation files: what a judge is trained on."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from maskdpo.errors import InputError, UserError
from maskdpo.io import read_answers, read_prompts
from maskdpo.schemas import WITHOUT_CLAIM, Annotation, JudgeInfo, Kind, Label, Prompt, Scores, Sentence, Span, Status
from maskdpo.text.language import detect_language
from maskdpo.text.splitters.markdown import markdown_splitter
from maskdpo.verdicts.decision import Calibration, refuse_other_judge


@dataclass(frozen=True, slots=True)
class LabelledSentence:
    """A labelled sentence, with everything that a judge may see of it."""

    id: str
    prompt: Prompt
    topic: str
    """What is held out together (``Prompt.shared_topic``)."""
    answer: str
    """The whole answer."""
    span: Span
    """Where the sentence stands in it."""
    sentence: str
    """Its text; of a changed sentence the new one."""
    label: Label
    scores: Scores | None = None
    """Probabilities to learn instead of the label."""
    weight: float = 1.0
    """Factor on the loss."""
    by_judge: bool = False
    """Whether the label is a judge's; else it is taken to be people's."""
    spans: tuple[Span, ...] = ()
    """All spans of the answer."""
    changed: str | None = None
    """What was changed in a right sentence to make this wrong one (``augment``)."""

    @property
    def answer_id(self) -> str:
        return self.id.rpartition("#")[0]


@dataclass
class FileCounts:
    """What became of the sentences of one file."""

    file: str
    weight: float
    examples: int = 0
    with_scores: int = 0
    labels: Counter[Label] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    """By reason."""


def read_examples(
    labelled: Sequence[Path],
    prompts: Sequence[Path],
    weights: Sequence[float] = (),
    *,
    soft: bool = True,
    calibration: Calibration | None = None,
) -> tuple[list[LabelledSentence], list[FileCounts]]:
    """All sentences with a verdict, of all files.

    Args:
        prompts: one file for all, or one for each of ``labelled``.
        weights: one for each of ``labelled``; none: 1.
        soft: whether scores are to be learnt.
        calibration: of the judge that has labelled. Labels and scores of its sentences are those that follow from it;
            sentences without a judge stay as they are.

    Raises:
        UserError: a file is not valid, a prompt is missing, or no sentence is left; the labels are of another judge
            than the calibration; or scores are to be learnt that the labels beside them do not follow from.
    """
    known: dict[Path, dict[str, Prompt]] = {file: read_prompts(file) for file in dict.fromkeys(prompts)}
    found: list[LabelledSentence] = []
    counts: list[FileCounts] = []
    for i, file in enumerate(labelled):
        count = FileCounts(file.name, weights[i] if weights else 1.0)
        prefix = f"{i}:" if len(labelled) > 1 else ""
        asked = known[prompts[i] if len(prompts) > 1 else prompts[0]]
        found += _of_file(file, asked, count, prefix, _Learnt(file, soft, calibration))
        counts.append(count)
    if calibration and not any(example.by_judge for example in found):
        raise UserError("`calibration` corrects the scores of a judge, and no sentence to train on is labelled by one")
    if not found:
        reasons = sum((count.left_out for count in counts), Counter[str]())
        said = ", ".join(f"{number} {reason}" for reason, number in reasons.most_common()) or "they hold no sentences"
        files = ", ".join(str(file) for file in labelled)
        raise UserError(f"{files}: no labelled sentence to train on: {said}")
    return found, counts


@dataclass(frozen=True)
class _Learnt:
    """Which label and scores of a sentence are learnt."""

    file: Path
    soft: bool = False
    calibration: Calibration | None = None

    def check(self, annotation: Annotation) -> None:
        """
        Raises:
            InputError: the calibration is of another judge, or the scores are those from before a calibration.
        """
        judge = annotation.judge
        if judge is None:
            return
        if self.calibration is not None:
            try:
                refuse_other_judge(self.calibration, judge)
            except UserError as error:
                raise InputError(f"{annotation.id!r}: {error}", path=self.file) from None
        elif self.soft and judge.calibration and any(sentence.scores for sentence in annotation.sentences):
            raise InputError(
                "has labels by a calibration, and scores from before it, which would be learnt: give the calibration "
                "(`calibration`), or learn the labels alone (`--hard`, in Python `soft=False`)",
                path=self.file,
            )

    def of(self, sentence: Sentence, judge: JudgeInfo | None) -> tuple[Label | None, Scores | None]:
        """No label: the calibration finds the scores too weak for one."""
        if self.calibration is None or judge is None or not sentence.scores:
            return sentence.label, sentence.scores
        decides = self.calibration.parameters
        return decides.choose(sentence.scores)[0], decides.apply(sentence.scores)


def _of_file(
    file: Path, prompts: Mapping[str, Prompt], count: FileCounts, prefix: str, learnt: _Learnt
) -> Iterator[LabelledSentence]:
    topics: dict[str, str] = {}
    for annotation in read_answers(file, Annotation, dict(prompts)):
        learnt.check(annotation)
        prompt = prompts[annotation.prompt_id]
        topic = topics.setdefault(prompt.id, prompt.shared_topic)
        spans = _spans_of(annotation, prompt)
        for i, sentence in enumerate(annotation.sentences):
            if reason := _left_out(sentence, prompt):
                count.left_out[reason] += 1
                continue
            label, scores = learnt.of(sentence, annotation.judge)
            if label is None:
                count.left_out["unsure by the calibration"] += 1
                continue
            count.examples += 1
            count.labels[label] += 1
            count.with_scores += scores is not None
            yield LabelledSentence(
                id=f"{prefix}{annotation.id}#{i}",
                prompt=prompt,
                topic=topic,
                answer=annotation.response,
                span=Span(sentence.start, sentence.end, sentence.kind),
                sentence=annotation.response[sentence.start : sentence.end],
                label=label,
                scores=scores,
                weight=count.weight,
                by_judge=annotation.judge is not None,
                spans=spans,
            )


def _spans_of(annotation: Annotation, prompt: Prompt) -> tuple[Span, ...]:
    """The spans of an answer. Text that no record speaks of, as where people have labelled some sentences only, is
    split as ``annotate`` does it by default."""
    text = annotation.response
    spans = [Span(sentence.start, sentence.end, sentence.kind) for sentence in annotation.sentences]
    edges = [0, *(edge for span in spans for edge in span[:2]), len(text)]
    if any(
        character.isalnum() for start, end in zip(edges[::2], edges[1::2], strict=True) for character in text[start:end]
    ):
        cut = markdown_splitter().split(text, prompt.language or detect_language(text))
        spans += [new for new in cut if all(new.end <= old.start or old.end <= new.start for old in spans)]
    return tuple(sorted(spans))


def _left_out(sentence: Sentence, prompt: Prompt) -> str | None:
    """Why a sentence is not trained on."""
    if sentence.kind in WITHOUT_CLAIM:
        return f"in a {sentence.kind.value} block"
    if sentence.kind is Kind.FRAGMENT:
        return "a fragment of an answer that was cut off"
    if sentence.status is Status.UNSURE:
        return "unsure"
    if sentence.label is None:
        return f"without a verdict ({sentence.status.value})"
    if not any(passage.strip() for passage in prompt.passages):
        return "without a reference"
    return None


def split_topics(
    examples: Sequence[LabelledSentence], share: float, seed: int, most: int | None = None
) -> tuple[list[LabelledSentence], list[LabelledSentence]]:
    """(to train on, held out): a share of the topics, at least one, chosen by a hash of seed and topic.

    Args:
        most: no further topic is held out once so many sentences are.

    Raises:
        UserError: there is a share to hold out, and only one topic.
    """
    topics = sorted({example.topic for example in examples}, key=lambda topic: _rank(topic, seed))
    if not share:
        return list(examples), []
    if len(topics) < 2:
        raise UserError(
            "all sentences are about one topic, so that none can be held out: label sentences about other topics, or "
            "`heldout` 0 for training without early stopping and calibration"
        )
    sizes = Counter(example.topic for example in examples)
    held, count = set[str](), 0
    for topic in topics[: max(1, round(share * len(topics)))]:
        if most is None or count < most:
            held.add(topic)
            count += sizes[topic]
    return [e for e in examples if e.topic not in held], [e for e in examples if e.topic in held]


def _rank(topic: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{topic}".encode(errors="replace")).digest()


def read_gold(file: Path, prompts: Sequence[Path]) -> list[LabelledSentence]:
    """The labelled sentences of a gold file, with the prompts of any of the given files.

    Raises:
        InputError: a prompt is in none of them, or no sentence is left.
    """
    known: dict[str, Prompt] = {}
    for one in prompts:
        known |= read_prompts(one)
    found = list(_of_file(file, known, FileCounts(file.name, 1.0), "gold:", _Learnt(file)))
    if not found:
        raise InputError("holds no labelled sentence with a reference", path=file)
    return found
