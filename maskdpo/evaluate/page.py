"""The page of answers and pairs with their labelled sentences: one self-contained HTML file.

This module makes the JSON that the scripts of the page (``templates/report/*.js``) show.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from maskdpo.html.render import Payload, SummaryTable, render
from maskdpo.io import atomic_write
from maskdpo.schemas import SIDES, TRAINED, Annotation, Pair, PairSentence, Prompt, Sentence, Side
from maskdpo.schemas.training import Spans, TrainedTokens
from maskdpo.verdicts.gold import beside_gold, matches

_NOTHING: Mapping[Side, Spans] = {"chosen": (), "rejected": ()}

SCRIPTS = (
    "page/labels",
    "page/reference",
    "report/data",
    "report/filters",
    "report/bar",
    "report/summary",
    "report/plots",
    "report/by_file",
    "report/answers",
    "report/list",
    "report/moving",
    "report/inspector",
    "report/start",
)
"""The parts of the script of the page, in the order in which they run."""


@dataclass(frozen=True)
class PageStats:
    """What went into a page."""

    items: int
    """Rows of the page: answers, matched answers, or pairs."""
    answers: int
    sentences: int
    unmatched: int
    """Rows of a comparison that have an answer on one side only."""
    gold_sentences: int
    """Sentences that have a gold label beside them."""
    bytes: int

    def counts(self) -> list[tuple[str, int]]:
        """The figures that the command prints."""
        return [
            ("answers", self.answers),
            ("sentences", self.sentences),
            ("without a counterpart", self.unmatched),
            ("size, kB", round(self.bytes / 1000)),
        ]


def write_page(
    out: Path,
    annotations: Iterable[Annotation],
    *,
    title: str,
    prompts: Mapping[str, Prompt] | None = None,
    compare: Iterable[Annotation] | None = None,
    gold: Mapping[str, Annotation] | None = None,
    summary: Sequence[SummaryTable] = (),
    by_file: Payload | None = None,
) -> PageStats:
    """Write the page for one annotations file, or for two side by side.

    Args:
        out: the HTML file, written atomically.
        annotations: the answers; with ``compare`` those of before.
        title: heading of the page.
        prompts: prompts by id, for questions, topics and references; without them the page shows ids.
        compare: the answers of after; the k-th answer to a prompt stands beside the k-th one of before.
        gold: human labels, by the id of their answer.
        summary: tables to show above the answers.
        by_file: for a plot: figures by the names of files, each with ``value``, ``low`` and ``high``.
    """
    build = _Builder(prompts or {}, gold or {})
    rows: Iterable[tuple[Annotation | None, ...]]
    rows = ((a,) for a in annotations) if compare is None else _matched(annotations, compare)
    for row in rows:
        first = next(answer for answer in row if answer is not None)
        build.add(first.prompt_id, first.id, [build.annotation(a) if a is not None else None for a in row])
    kind: Literal["answers", "compare"] = "answers" if compare is None else "compare"
    return build.write(out, kind, title, summary, by_file)


def write_pairs_page(
    out: Path,
    pairs: Iterable[Pair],
    *,
    title: str,
    prompts: Mapping[str, Prompt] | None = None,
    tokens: TrainedTokens | None = None,
) -> PageStats:
    """Write the page for preference pairs.

    The page marks what takes part in the loss: the text of the tokens where ``tokens`` is given, else whole sentences,
    by their labels.
    """
    build = _Builder(prompts or {}, {})
    for pair in pairs:
        trained = tokens(pair) if tokens else None
        spans: Mapping[Side, Spans] = {} if trained is None else _NOTHING if isinstance(trained, str) else trained
        sides = [build.pair_side(pair, side, spans.get(side)) for side in SIDES]
        asked = Prompt(id=pair.prompt_id, prompt=pair.prompt)
        build.add(pair.prompt_id, pair.id, sides, topic=pair.topic, question=asked.question)
        if pair.weight != 1.0:
            build.items[-1]["w"] = pair.weight
        if isinstance(trained, str):
            build.items[-1]["out"] = trained
    return build.write(out, "pairs", title, ())


def _matched(
    before: Iterable[Annotation], after: Iterable[Annotation]
) -> Iterator[tuple[Annotation | None, Annotation | None]]:
    """The k-th answer to a prompt beside the k-th one of the other file; None where the other file has fewer."""
    waiting: dict[str, list[Annotation]] = defaultdict(list)
    for answer in after:
        waiting[answer.prompt_id].append(answer)
    for answers in waiting.values():
        answers.reverse()  # so that pop() takes them in order
    for answer in before:
        others = waiting[answer.prompt_id]
        yield answer, others.pop() if others else None
    for answers in waiting.values():
        for answer in reversed(answers):
            yield None, answer


@dataclass
class _Builder:
    """Collects the data of the page. Every prompt is stored once, however many answers it has."""

    prompts: Mapping[str, Prompt]
    gold: Mapping[str, Annotation]
    items: list[Payload] = field(default_factory=list)
    used: dict[str, int] = field(default_factory=dict)
    prompt_data: list[Payload] = field(default_factory=list)
    judges: dict[str, None] = field(default_factory=dict)
    answers: int = 0
    sentences: int = 0
    unmatched: int = 0
    gold_sentences: int = 0

    def add(
        self,
        prompt_id: str,
        item_id: str,
        sides: Sequence[Payload | None],
        topic: str | None = None,
        question: str | None = None,
    ) -> None:
        """Add a row. ``topic`` and ``question`` are used where the prompt itself is not known."""
        if prompt_id not in self.used:
            self.used[prompt_id] = len(self.prompt_data)
            prompt = self.prompts.get(prompt_id)
            data: Payload = {
                "id": prompt_id,
                "q": prompt.question if prompt else question,
                "topic": topic or (prompt.topic_or_id if prompt else prompt_id),
                "ref": prompt.passages if prompt else [],
            }
            if prompt and prompt.sources:
                data["src"] = [one.model_dump(exclude_defaults=True) if one else None for one in prompt.sources]
            self.prompt_data.append(data)
        self.unmatched += None in sides
        self.items.append({"id": item_id, "p": self.used[prompt_id], "a": list(sides)})

    def annotation(self, answer: Annotation) -> Payload:
        """One answer with its sentences, and with the gold labels that the tables compare with them."""
        gold = {judged.start: given.label for judged, given in beside_gold(matches([answer], self.gold))}
        if answer.judge is not None:
            parts = (answer.judge.name, answer.judge.model, answer.judge.protocol)
            self.judges.setdefault(" · ".join(part for part in parts if part))
        sentences = []
        for sentence in answer.sentences:
            label = gold.get(sentence.start)
            self.gold_sentences += label is not None
            scores = {name.value: round(score, 4) for name, score in (sentence.scores or {}).items()}
            extra = {"ev": sentence.evidence, "re": sentence.reason, "g": label, "st": sentence.status.value}
            more = {"k": sentence.kind.value, "sc": scores or None}
            sentences.append(_without_defaults(_span(sentence) | extra | more))
        return self._answer(
            answer.id,
            answer.response,
            sentences,
            m=answer.model,
            fin=answer.finish_reason,
            r=answer.reasoning,
            cal=1 if answer.judge is not None and answer.judge.calibration else None,
        )

    def pair_side(self, pair: Pair, side: Side, tokens: Spans | None) -> Payload:
        """One side of a pair. ``tr`` marks sentences that take part in the loss; ``tk`` is the text whose tokens do."""
        score = pair.chosen_score if side == "chosen" else pair.rejected_score
        sentences = []
        for sentence in pair.sentences(side):
            if tokens is None:
                trained = sentence.label in TRAINED[side]
            else:
                trained = any(begin < sentence.end and sentence.start < end for begin, end in tokens)
            sentences.append(_without_defaults(_span(sentence) | {"tr": 1 if trained else None}))
        more = {"fin": pair.finish_reason(side), "r": pair.reasoning(side), "score": score, "tk": tokens}
        return self._answer(f"{pair.id} {side}", pair.response(side), sentences, **more)

    def _answer(self, answer_id: str, text: str, sentences: list[Payload], **more: object) -> Payload:
        self.answers += 1
        self.sentences += len(sentences)
        return _without_defaults({"id": answer_id, "t": text, "s": sentences, **more})

    def write(
        self, out: Path, kind: str, title: str, summary: Sequence[SummaryTable], by_file: Payload | None = None
    ) -> PageStats:
        """Render and write the page."""
        data: Payload = {"kind": kind, "judges": list(self.judges), "gold": self.gold_sentences > 0}
        data |= {"by_file": by_file} if by_file else {}
        payload = data | {"prompts": self.prompt_data, "items": self.items}
        page = render("maskdpo.evaluate", "report.html.j2", SCRIPTS, payload, title, summary)
        with atomic_write(out) as file:
            file.write(page)
        return PageStats(
            items=len(self.items),
            answers=self.answers,
            sentences=self.sentences,
            unmatched=self.unmatched,
            gold_sentences=self.gold_sentences,
            bytes=len(page),
        )


def _span(sentence: Sentence | PairSentence) -> Payload:
    label = sentence.label.value if sentence.label is not None else None
    return {"b": sentence.start, "e": sentence.end, "l": label, "c": sentence.confidence}


def _without_defaults(record: Payload) -> Payload:
    """A record without the fields that have their default values, which the page adds again."""
    defaults = {"st": "ok", "k": "prose"}
    return {key: value for key, value in record.items() if value is not None and defaults.get(key) != value}
