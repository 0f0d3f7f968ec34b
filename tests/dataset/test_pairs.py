"""Pairs: which two answers, why none, and which split."""

import json
import random
import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from maskdpo.cli import main
from maskdpo.dataset import strategies
from maskdpo.dataset.answers import open_answer_texts
from maskdpo.dataset.filters import DroppedAnswer, DroppedPair, NoPair
from maskdpo.dataset.options import PairOptions
from maskdpo.dataset.pairs import build_pairs
from maskdpo.dataset.stats import PairStats
from maskdpo.dataset.strategies import Eligible, Proposal, best_worst
from maskdpo.errors import InputError, UserError
from maskdpo.io import read_records, write_records
from maskdpo.lineage import trace
from maskdpo.run_record import RunMeta, meta_file, read_meta
from maskdpo.schemas import Annotation, Message, Pair
from maskdpo.settings_reading import load_settings

LABELS = {"r": "no_hallucination", "w": "contradictory", "u": "unverifiable", "n": "no_fact", "?": None}


def answer(name: str, labels: str, prompt: str = "q", **more: Any) -> dict[str, Any]:
    """An annotation with one sentence a letter: right, wrong, unverifiable, no fact, ? not judged."""
    text = "".join(f"{name}{i}. " for i in range(len(labels)))
    width = len(name) + 3
    sentences = [
        {"start": i * width, "end": i * width + width - 1, "label": LABELS[letter]}
        | ({"status": "api_error"} if letter == "?" else {"confidence": 0.5})
        for i, letter in enumerate(labels)
    ]
    return {"id": name, "prompt_id": prompt, "response": text, "sentences": sentences} | more


def prompt(name: str = "q", **more: Any) -> dict[str, Any]:
    return {"id": name, "prompt": f"About {name}?"} | more


class Files:
    def __init__(self, folder: Path, jsonl: Any) -> None:
        self.out, self._jsonl = folder / "pairs.jsonl", jsonl

    def build(self, prompts: list[Any], answers: list[Any], **options: Any) -> PairStats:
        summary = options.pop("summary", None)
        files = self._jsonl("p.jsonl", prompts), self._jsonl("a.jsonl", answers)
        chosen = load_settings(PairOptions, {"test_size": 0.0} | options)
        return build_pairs(*files, self.out, chosen, summary_file=summary)

    def ids(self, answers: list[Any], **options: Any) -> list[str]:
        """The pairs of one prompt."""
        self.build([prompt()], answers, **options)
        return [pair.id for pair in self.pairs()]

    @property
    def test_out(self) -> Path:
        return self.out.with_name("pairs.test.jsonl")

    def pairs(self) -> list[Pair]:
        return list(read_records(self.out, Pair))


@pytest.fixture
def files(tmp_path: Path, jsonl: Any) -> Files:
    return Files(tmp_path, jsonl)


def cut_off(name: str, labels: str) -> dict[str, Any]:
    """An answer behind whose sentences one is torn."""
    made = answer(name, labels)
    torn = {"start": len(made["response"]), "end": len(made["response"]) + 4, "kind": "fragment", "status": "fragment"}
    ends = {"response": made["response"] + "It w", "finish_reason": "length"}
    return made | ends | {"sentences": [*made["sentences"], torn]}


def test_a_fragment_counts_in_no_score_and_is_counted_by_itself(files: Files) -> None:
    stats = files.build([prompt()], [cut_off("a", "rr"), answer("b", "rw", finish_reason="length"), cut_off("c", "")])
    (pair,) = files.pairs()
    assert (pair.id, pair.chosen_score, pair.rejected_score) == ("a|b", 1.0, 0.5)
    assert [(s.start, s.label) for s in pair.chosen_sentences[2:]] == [(8, None)]
    assert stats.dropped_answers == {DroppedAnswer.SENTENCES: 1}
    summary = stats.summary()
    assert summary["cut_off"] == {"chosen": 1, "rejected": 1}
    assert summary["fragments"] == {"chosen": 1, "rejected": 0}
    assert {side: counts["not_judged"] for side, counts in summary["sentences_per_pair"].items()} == {
        "chosen": 0, "rejected": 0
    }  # fmt: skip


def test_a_fragment_that_was_judged_is_said(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    torn = answer("b", "rw", judge={"name": "lexical"}, finish_reason="length")
    torn["response"] = torn["response"].replace("b1.", "b1x")
    files.build([prompt()], [answer("a", "rr"), torn])
    assert "in 1 answer the torn sentence at a cut-off was judged" in " ".join(capsys.readouterr().err.split())
    files.build([prompt()], [answer("a", "rr"), torn | {"judge": None}])
    assert "torn" not in capsys.readouterr().err  # a person may have judged it


def test_the_most_and_the_least_factual_answer_make_a_pair(files: Files) -> None:
    files.build([prompt(topic="t")], [answer("a", "rw"), answer("b", "rrn"), answer("c", "wur"), answer("d", "???")])
    (pair,) = files.pairs()
    assert (pair.id, pair.prompt_id, pair.topic) == ("b|c", "q", "t")
    assert (pair.chosen_score, pair.rejected_score) == (pytest.approx(2 / 3, abs=1e-6), pytest.approx(1 / 3, abs=1e-6))
    assert pair.prompt == [Message(role="user", content="About q?")]
    assert (pair.response("chosen"), pair.response("rejected")) == ("b0. b1. b2. ", "c0. c1. c2. ")
    assert [(s.start, s.end, s.label, s.confidence) for s in pair.chosen_sentences] == [
        (0, 3, "no_hallucination", 0.5),
        (4, 7, "no_hallucination", 0.5),
        (8, 11, "no_fact", 0.5),
    ]
    assert pair.weight == 1.0


def test_not_judged_sentences_lower_the_score_and_keep_no_label(files: Files) -> None:
    files.build([prompt()], [answer("a", "rrrr?"), answer("b", "wr??")], min_coverage=0.5)
    (pair,) = files.pairs()
    assert (pair.chosen_score, pair.rejected_score) == (0.8, 0.25)
    assert [s.label for s in pair.rejected_sentences] == ["contradictory", "no_hallucination", None, None]


def test_an_answer_that_was_hardly_judged_leaves_its_place_to_the_next_best(files: Files) -> None:
    answers = [answer("a", "rr?"), answer("b", "rw"), answer("c", "wwwr")]
    assert files.ids(answers) == ["b|c"]
    assert files.ids(answers, min_coverage=0.6) == ["a|c"]
    assert files.ids([*answers, answer("d", "r")], min_sentences=2) == ["b|c"]


def test_a_refusal_is_not_the_worst_answer(files: Files) -> None:
    """It scores 0 too, but holds nothing to unlearn: with it as the worst, the prompt would give no pair."""
    assert files.ids([answer("a", "rr"), answer("b", "rw"), answer("c", "n")]) == ["a|b"]


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("right-of-all", "b|d"),
        ("precision", "c|d"),
        ("anah", "c|d"),
        ("difference", "a|d"),
    ],
)
def test_the_score_decides(files: Files, score: str, expected: str) -> None:
    """Right of all: .6, .67, .5, 0; right - wrong: 4, 1, 1, -2; the third answer states nothing wrong."""
    answers = [answer("a", "rrrrrrwwnn"), answer("b", "rrw"), answer("c", "rn"), answer("d", "ww")]
    assert files.ids(answers, score=score, max_length_ratio=5) == [expected]


def test_weighted_by_confidence(files: Files) -> None:
    sure, unsure = answer("a", "rrw"), answer("b", "rrw")
    for place, (one, other) in enumerate([(1.0, 0.5), (1.0, 0.5), (0.5, 1.0)]):
        sure["sentences"][place]["confidence"], unsure["sentences"][place]["confidence"] = one, other
    with pytest.raises(InputError, match="no answer that may be chosen scores higher"):
        files.build([prompt()], [sure, unsure])
    assert files.ids([sure, unsure], confidence_weighted=True) == ["a|b"]
    (pair,) = files.pairs()
    assert (pair.chosen_score, pair.rejected_score) == (0.8, 0.5)


GOOD = [answer("x", "r", "good"), answer("y", "w", "good")]


@pytest.mark.parametrize(
    ("answers", "options", "reason"),
    [
        ([], {}, NoPair.NO_ANSWERS),
        ([answer("a", "rw")], {}, NoPair.TOO_FEW),
        ([answer("a", "wn"), answer("b", "w")], {}, NoPair.NO_CHOSEN),
        ([answer("a", "rr"), answer("b", "rn")], {}, NoPair.NO_REJECTED),
        ([answer("a", "rw"), answer("b", "rw")], {"min_margin": 0.0}, NoPair.EVEN),
        ([answer("a", "r"), answer("b", "rw")], {"min_margin": 0.6}, NoPair.DROPPED),
    ],
)
def test_every_prompt_without_a_pair_is_counted(
    files: Files, answers: list[Any], options: dict[str, Any], reason: NoPair
) -> None:
    stats = files.build([prompt(), prompt("good")], [*answers, *GOOD], **options)
    assert [pair.id for pair in files.pairs()] == ["x|y"]
    assert (stats.prompts, stats.no_pair) == (2, {reason: 1})
    assert counts_of(files)["prompts"] == {"total": 2, "without_pair": {reason.name.lower(): 1}}


@pytest.mark.parametrize(
    ("labels", "options", "reason"),
    [
        ("rrrr", {"min_sentences": 5, "strategy": "best-random"}, DroppedAnswer.SENTENCES),
        ("", {}, DroppedAnswer.SENTENCES),
        ("?????", {}, DroppedAnswer.UNJUDGED),
        ("rrr?", {}, DroppedAnswer.COVERAGE),
        ("nnn", {"score": "precision"}, DroppedAnswer.NO_SCORE),
    ],
)
def test_every_dropped_answer_is_counted(
    files: Files, labels: str, options: dict[str, Any], reason: DroppedAnswer
) -> None:
    stats = files.build([prompt()], [answer("a", labels), answer("b", "rrrrr"), answer("c", "wwwww")], **options)
    assert [pair.id for pair in files.pairs()] == ["b|c"]
    assert (stats.answers, stats.may_be_chosen, stats.may_be_rejected) == (3, 1, 1)
    assert counts_of(files)["answers"]["dropped"] == {reason.name.lower(): 1}


@pytest.mark.parametrize(
    ("answers", "options", "reason"),
    [
        ([answer("a", "r"), answer("b", "w") | {"response": " a0.\n"}], {}, DroppedPair.SAME_TEXT),
        (
            [answer("a", "r", sampling={"raw": True}), answer("b", "w", sampling={"raw": False})],
            {},
            DroppedPair.FORMS,
        ),
        (
            [
                answer("a", "r", sampling={"template_options": {"enable_thinking": False}}),
                answer("b", "w", sampling={}),
            ],
            {},
            DroppedPair.TEMPLATES,
        ),
        (
            [
                answer("a", "r", sampling={"prompt_date": "2026-11-27"}),
                answer("b", "w", sampling={"prompt_date": "2026-11-28"}),
            ],
            {},
            DroppedPair.TEMPLATES,
        ),
        ([answer("a", "rrrrrrrrrrrwwwwwwwww"), answer("b", "rrrrrwwwww")], {}, DroppedPair.MARGIN),
        ([answer("a", "r"), answer("b", "wwwww")], {}, DroppedPair.LENGTH),
        ([answer("answerA", "r"), answer("answerB", "w")], {"max_similarity": 0.88}, DroppedPair.SIMILAR),
    ],
)
def test_every_dropped_pair_is_counted(
    files: Files, answers: list[Any], options: dict[str, Any], reason: DroppedPair
) -> None:
    stats = files.build([prompt(), prompt("good")], [*answers, *GOOD], **options)
    assert [pair.id for pair in files.pairs()] == ["x|y"]
    assert (stats.dropped_pairs, stats.no_pair) == ({reason: 1}, {NoPair.DROPPED: 1})
    assert counts_of(files)["pairs"] == {"train": 1, "test": 0, "dropped": {reason.name.lower(): 1}}


def counts_of(files: Files) -> dict[str, Any]:
    return RunMeta.model_validate_json(meta_file(files.out).read_bytes()).counts


def some_answers(rng: random.Random, prompts: int, each: int, letters: str = "rrwwn?") -> list[dict[str, Any]]:
    return [
        answer(f"q{i}a{k}", "".join(rng.choices(letters, k=rng.randint(1, 5))), f"q{i}")
        for i in range(prompts)
        for k in range(each)
    ]


def test_the_limits_draw_and_leave_the_order(files: Files) -> None:
    prompts = [prompt(f"q{i}", topic=f"t{i % 3}") for i in range(12)]
    answers = some_answers(random.Random(1), 12, 6)
    files.build(prompts, answers, strategy="all")
    everything = files.pairs()
    stats = files.build(prompts, answers, strategy="all", max_per_prompt=3, max_per_topic=7)
    pairs = files.pairs()
    assert [pair.id for pair in everything if pair in pairs] == [pair.id for pair in pairs]
    per_prompt = {name: sum(pair.prompt_id == name for pair in pairs) for name in {p.prompt_id for p in pairs}}
    assert max(per_prompt.values()) == 3
    assert [sum(pair.topic == f"t{i}" for pair in pairs) for i in range(3)] == [7, 7, 7]
    limits = (DroppedPair.PER_PROMPT, DroppedPair.PER_TOPIC)
    assert sum(stats.dropped_pairs[reason] for reason in limits) == len(everything) - 21
    files.build(prompts, answers, strategy="all", max_per_prompt=3, max_per_topic=7, seed=1)
    assert {pair.id for pair in files.pairs()} != {pair.id for pair in pairs}


def test_a_pair_that_is_too_much_alike_leaves_its_place_under_the_limit(files: Files) -> None:
    """Three pairs with the best, of which two are near-equal texts: whatever the lots, the third stays."""
    best = answer("answerA", "rr")
    answers = [best, answer("answerB", "rw"), answer("answerC", "ww"), answer("zz", "ww")]
    for seed in range(6):
        stats = files.build([prompt()], answers, strategy="all", max_per_prompt=1, max_similarity=0.85, seed=seed)
        (pair,) = files.pairs()
        assert pair.rejected_sentences[0].end == 4 or "zz" in pair.id
        assert stats.dropped_pairs.total() == 4


def test_nothing_disappears_unseen(files: Files) -> None:
    prompts = [prompt(f"q{i}", topic=f"t{i // 3}") for i in range(40)]
    answers = some_answers(random.Random(2), 38, 5, "rrwwnn?")
    options = {"max_per_topic": 3, "max_similarity": 0.8, "min_margin": 0.3, "max_length_ratio": 2.0}
    stats = files.build(prompts, answers, strategy="all", test_size=0.3, **options)
    pairs = [*files.pairs(), *read_records(files.test_out, Pair)]
    assert stats.answers == len(answers) == stats.scores["answers"].total() + stats.dropped_answers.total()
    assert stats.prompts == 40 == len({pair.prompt_id for pair in pairs}) + stats.no_pair.total()
    assert stats.total == len(pairs) == sum(stats.pairs_per_topic)
    assert set(stats.dropped_pairs) == set(DroppedPair) - {
        DroppedPair.FORMS,
        DroppedPair.TEMPLATES,
        DroppedPair.SAME_TEXT,
        DroppedPair.PER_PROMPT,
    }
    proposed = stats.total + stats.dropped_pairs.total()
    free = {"max_similarity": 1.0, "min_margin": 0.0, "max_length_ratio": float("inf")}
    assert files.build(prompts, answers, strategy="all", test_size=0.3, **free).total == proposed


def test_a_margin_that_is_just_reached_is_enough(files: Files) -> None:
    stats = files.build([prompt()], [answer("a", "rrrww"), answer("b", "rw")], min_margin=0.1)
    assert (stats.total, list(stats.margins)) == (1, [pytest.approx(0.1)])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strategy": "all", "max_per_topic": 5, "max_similarity": 0.8},
        {"strategy": "top-bottom", "k": 2, "score": "difference"},
        {"strategy": "best-random", "confidence_weighted": True},
    ],
)
def test_the_order_of_the_input_does_not_matter(files: Files, tmp_path: Path, options: dict[str, Any]) -> None:
    rng = random.Random(0)
    prompts = [prompt(f"q{i}", topic=f"t{i % 7}") for i in range(20)]
    answers = some_answers(rng, 20, 4)
    summary = tmp_path / "summary.json"

    def built() -> list[bytes]:
        files.build(prompts, answers, test_size=0.3, summary=summary, **options)
        return [file.read_bytes() for file in (files.out, files.test_out, summary)]

    expected = built()
    assert expected[0].count(b"\n") > 3
    for _ in range(3):
        rng.shuffle(prompts)
        rng.shuffle(answers)
        assert built() == expected


def test_the_summary_is_what_the_record_of_the_run_counts(files: Files, tmp_path: Path) -> None:
    files.build([prompt(), prompt("good")], [answer("a", "rr"), answer("b", "w"), *GOOD], summary=tmp_path / "s.json")
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary == counts_of(files)
    assert summary["topics"] == {"train": 2, "test": 0}
    assert summary["pairs_per_topic"] == {"mean": 1.0, "deciles": [1] * 11}
    assert summary["length_ratio"]["deciles"][::10] == [1, 2]
    assert [(b["from"], b["answers"], b["chosen"], b["rejected"]) for b in summary["scores"] if b["answers"]] == [
        (0.0, 2, 0, 2),
        (0.9, 2, 2, 0),
    ]


@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
def test_texts_are_read_from_their_lines(files: Files, jsonl: Any, begin: bytes) -> None:
    """Blank lines, line ends of Windows, a byte order mark, and characters of several bytes."""
    rows = [json.dumps(answer("é", "r"), ensure_ascii=False), "", json.dumps(answer("b", "w")) + "\r", "  "]
    raw = begin + "\n".join(rows).encode()
    jsonl("p.jsonl", [prompt()])
    (files.out.parent / "a.jsonl").write_bytes(raw)  # its last line does not end
    build_pairs(files.out.parent / "p.jsonl", files.out.parent / "a.jsonl", files.out, PairOptions(test_size=0))
    (pair,) = files.pairs()
    assert (pair.response("chosen"), pair.response("rejected")) == ("é0. ", "b0. ")


def test_the_answers_to_a_prompt_may_be_in_several_files(files: Files, jsonl: Any) -> None:
    rows = [answer("a", "rr"), answer("b", "rw"), answer("c", "ww"), answer("d", "rw")]
    prompts, one = jsonl("p.jsonl", [prompt()]), jsonl("one.jsonl", rows[:3])
    other = files.out.parent / "other.parquet"
    write_records(other, [Annotation.model_validate(rows[3])])
    stats = build_pairs(prompts, [one, other], files.out, PairOptions(test_size=0, strategy="all"))
    together = files.out.read_bytes()
    assert stats.answers == 4
    record = read_meta(meta_file(files.out))
    assert record is not None and list(record.inputs) == ["prompts", "annotations", "annotations-2"]
    assert {node.role: node.state for node in trace(files.out).inputs} == dict.fromkeys(record.inputs, "unchanged")
    files.build([prompt()], rows, strategy="all")
    assert files.out.read_bytes() == together
    again = jsonl("again.jsonl", [rows[0]])
    with pytest.raises(InputError, match=r"again\.jsonl:1: id: duplicate id 'a', first in .*one\.jsonl:1$"):
        build_pairs(prompts, [one, other, again], files.out)


def test_a_split_that_holds_out_nothing_is_said(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [answer("a", "rr"), answer("b", "ww")]
    said = "no topic is held out: of 1 topic, each drawn with the probability `test_size` 0.01, none was drawn."
    files.ids(rows, test_size=0.01)
    assert said in capsys.readouterr().err
    files.ids(rows, test_size=0)
    assert "held out" not in capsys.readouterr().err


def test_a_first_try_takes_the_first_answers(files: Files) -> None:
    rows = [answer("a", "rr"), answer("b", "ww"), answer("c", "rw")]
    assert len(files.ids(rows, strategy="all")) == 3
    assert files.ids(rows, strategy="all", limit=2) == ["a|b"]


@pytest.mark.parametrize("change", ["other answer", "shorter", "torn"])
def test_a_file_that_changes_between_the_passes(files: Files, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    def changed(files: list[Path], gold: Any) -> Any:
        (path,) = files
        lines = path.read_bytes().splitlines(keepends=True)
        new = {"other answer": lines[::-1], "shorter": lines[:1], "torn": [lines[0], lines[1][:50]]}[change]
        path.write_bytes(b"".join(new))
        return open_answer_texts(files, gold)

    monkeypatch.setattr("maskdpo.dataset.pairs.open_answer_texts", changed)
    with pytest.raises(InputError, match=r"a\.jsonl:\d: was changed while this command read it; repeat the command"):
        files.build([prompt()], [answer("a", "r"), answer("b", "w")])
    assert not files.out.exists()


def two(i: int) -> list[Any]:
    return [answer(f"q{i}good", "r", f"q{i}"), answer(f"q{i}bad", "w", f"q{i}")]


def test_growing_data_moves_no_topic_to_the_other_split(files: Files) -> None:
    def splits(count: int) -> tuple[set[str], set[str]]:
        rows = [prompt(f"q{i}", topic=f"topic {i // 2}") for i in range(count)]
        files.build(rows, [a for i in range(count) for a in two(i)], test_size=0.3)
        return {p.topic for p in files.pairs()}, {p.topic for p in read_records(files.test_out, Pair)}

    train, test = splits(30)
    more_train, more_test = splits(90)
    assert train < more_train
    assert test < more_test
    assert not more_train & more_test


def test_a_file_named_parquet_holds_the_same_pairs_as_parquet(files: Files) -> None:
    prompts = [prompt(f"q{i}") for i in range(40)]
    answers = [
        answer(f"{p['id']}{kind}", labels, p["id"]) for p in prompts for kind, labels in (("a", "rr"), ("b", "w"))
    ]
    files.build(prompts, answers, test_size=0.3)
    expected = files.pairs(), list(read_records(files.test_out, Pair))
    assert all(expected)
    files.out = files.out.with_name("pairs.parquet")
    files.build(prompts, answers, test_size=0.3)
    assert files.out.read_bytes()[:4] == b"PAR1"
    assert (files.pairs(), list(read_records(files.out.with_name("pairs.test.parquet"), Pair))) == expected


def test_an_earlier_test_file_does_not_outlive_a_run_without_one(files: Files) -> None:
    prompts, answers = [prompt(f"q{i}") for i in range(12)], [a for i in range(12) for a in two(i)]
    files.build(prompts, answers, test_size=0.5)
    assert files.test_out.exists()
    files.build(prompts, answers, test_size=0.0)
    assert not files.test_out.exists()
    assert len(files.pairs()) == 12


@pytest.mark.parametrize("record", [None, "import"])
@pytest.mark.parametrize("test_size", [0.0, 0.5])
def test_a_test_file_of_somebody_else_stays(files: Files, record: str | None, test_size: float) -> None:
    prompts, answers = [prompt(f"q{i}") for i in range(12)], [a for i in range(12) for a in two(i)]
    files.build(prompts, answers, test_size=0.5)
    meta = json.loads(meta_file(files.out).read_text())
    meta_file(files.out).unlink()
    if record:
        meta_file(files.out).write_text(json.dumps(meta | {"command": record}))
    files.test_out.write_text("mine\n")
    before = {file: file.read_bytes() for file in files.out.parent.glob("pairs*")}
    message = r"pairs\.test\.jsonl: is where test pairs go, .* name another `out`"
    with pytest.raises(InputError, match="an output of `maskdpo import`" if record else message):
        files.build(prompts, answers, test_size=test_size)
    assert {file: file.read_bytes() for file in files.out.parent.glob("pairs*")} == before


def test_no_two_pairs_share_an_id_whatever_the_ids_of_answers_hold() -> None:
    def id_of(better: str, worse: str) -> str:
        return Proposal(cast(Any, SimpleNamespace(id=better)), cast(Any, SimpleNamespace(id=worse))).id

    assert id_of("a%7C", "b") == "a%7C|b"  # without a bar they stay as they are
    names = ("a", "b", "|", "a|", "|b", "a|b", "%7C", "a%7Cb", "%25", "b|c", "c")
    made = [id_of(better, worse) for better in names for worse in names]
    assert len(set(made)) == len(made)


def test_a_pair_says_what_was_before_its_answers(files: Files) -> None:
    told = {"sampling": {"template_options": {"effort": "low"}, "prompt_date": "2026-11-27"}}
    files.build([prompt()], [answer("a", "r", reasoning="Hm.", **told), answer("b", "w", **told)])
    (pair,) = files.pairs()
    assert (pair.chosen_reasoning, pair.rejected_reasoning) == ("Hm.", None)
    assert (pair.template_options, pair.prompt_date) == ({"effort": "low"}, date(2026, 11, 27))


def test_raw_answers_and_chat_prompts_keep_their_forms(files: Files) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where?"}]
    raw = {"sampling": {"raw": True}}
    files.build(
        [prompt("raw"), prompt("chat", prompt=chat)],
        [
            answer("a", "r", "raw", **raw),
            answer("b", "w", "raw", **raw),
            answer("c", "r", "chat", finish_reason="length"),
            answer("d", "w", "chat", finish_reason="stop"),
        ],
    )
    by_prompt = {pair.prompt_id: pair for pair in files.pairs()}
    assert (by_prompt["raw"].prompt, by_prompt["raw"].chosen) == ("About raw?", "a0. ")
    assert by_prompt["chat"].prompt == [Message(**turn) for turn in chat]
    assert by_prompt["chat"].rejected == [Message(role="assistant", content="d0. ")]
    assert (by_prompt["chat"].chosen_finish_reason, by_prompt["chat"].rejected_finish_reason) == ("length", "stop")


@pytest.mark.parametrize(
    ("answers", "options", "message"),
    [
        ([answer("a", "r"), answer("b", "r")], {}, "no pair could be built (1 prompt: no answer has a wrong sentence"),
        (
            [answer("a", "?")],
            {},
            "no pair could be built (1 answer: no sentence was judged; 1 prompt: fewer than two",
        ),
        (two(0), {"strategy": "worst-best"}, "unknown strategy 'worst-best'; known: best-worst, all, top-bottom, best"),
        (
            two(0),
            {"score": "bleu"},
            "unknown score 'bleu'; known: right-of-all, right-of-judged, precision, anah, diff",
        ),
        (two(0), {"k": 2}, "`k` goes with `strategy` top-bottom"),
        (two(0), {"min_margin": 1.5}, "`min_margin` is 1.5, but must lie between 0 and 1"),
        (two(0), {"min_margin": float("nan")}, "`min_margin`: Input should be greater than or equal to 0"),
        (two(0), {"max_length_ratio": float("nan")}, "`max_length_ratio`: Input should be greater than or equal to 1"),
        (
            two(0),
            {"min_margin": 3.0, "score": "difference"},
            "no pair could be built (1 prompt: no answers; 1 prompt:",
        ),
        (two(0), {"test_size": 0.99}, "no pair is left to train on: 1 pair is in the test split; lower `test_size`"),
        (two(1), {}, "a.jsonl:1: prompt_id: no prompt has the id 'q1'"),
    ],
)
def test_nothing_is_written_where_there_is_nothing_to_write(
    files: Files, answers: list[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        files.build([prompt("q0"), prompt()], answers, summary=files.out.with_name("s.json"), **options)
    assert message in str(error.value)
    assert sorted(file.name for file in files.out.parent.iterdir()) == ["a.jsonl", "p.jsonl"]


def test_a_failed_run_leaves_the_pairs_of_an_earlier_one(files: Files) -> None:
    files.build([prompt("q0"), prompt("q1")], [*two(0), *two(1)], test_size=0.5)
    before = {file: file.read_bytes() for file in files.out.parent.glob("pairs*")}
    with pytest.raises(InputError, match="no pair could be built"):
        files.build([prompt("q0"), prompt("q1")], [*two(0), *two(1)][::2])
    assert {file: file.read_bytes() for file in files.out.parent.glob("pairs*")} == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.jsonl", "is an input of this command"),
        ("p.jsonl", "is an input of this command"),
        ("pairs.jsonl", "is a file that this command writes already; give `summary` another name"),
        ("pairs.test.jsonl", "is a file that this command writes already; give `summary` another name"),
        ("pairs.jsonl.meta.json", "is a file that this command writes already; give `summary` another name"),
        (".", "is a folder, a file is needed"),
    ],
)
def test_a_summary_that_would_overwrite_something(files: Files, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        files.build([prompt("q0")], two(0), summary=files.out.with_name("x").parent / name)
    assert sorted(file.name for file in files.out.parent.iterdir()) == ["a.jsonl", "p.jsonl"]


def test_a_strategy_is_a_function_and_a_line(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def neighbours(eligible: Eligible, options: PairOptions) -> list[Proposal]:
        both = zip(eligible.chosen, eligible.rejected[::-1], strict=False)
        return [Proposal(chosen, rejected) for chosen, rejected in both if chosen.score > rejected.score]

    monkeypatch.setitem(strategies.STRATEGIES.ours, "neighbours", neighbours)
    answers = [answer("a", "r"), answer("b", "rw"), answer("c", "w")]
    assert files.ids(answers, strategy="neighbours") == ["a|b", "b|c"]
    assert strategies.STRATEGIES["best-worst"] is best_worst


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["maskdpo", "build-pairs", *map(str, arguments)])
    try:
        main()
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


def test_every_option_of_the_command_arrives(
    files: Files, jsonl: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = (
        jsonl("p.jsonl", [prompt(), prompt("good")]),
        jsonl("a.jsonl", [answer("a", "rrr"), answer("b", "www"), *GOOD]),
    )
    given = {
        "strategy": "top-bottom",
        "k": 3,
        "score": "difference",
        "min_margin": 2.5,
        "min_right": 2,
        "min_sentences": 2,
        "min_coverage": 0.5,
        "max_length_ratio": 4.0,
        "max_similarity": 0.9,
        "max_per_prompt": 5,
        "max_per_topic": 6,
        "limit": 99,
        "test_size": 0.0,
        "seed": 7,
    }
    flags = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", value)]
    summary = files.out.with_name("s.json")
    code = command(monkeypatch, *inputs, "--out", files.out, "--confidence-weighted", "--summary", summary, *flags)
    assert code == 0
    meta = RunMeta.model_validate_json(meta_file(files.out).read_bytes())
    assert meta.options == given | {"confidence_weighted": True}
    assert json.loads(summary.read_text()) == meta.counts
    shown = capsys.readouterr().out
    assert "dropped: fewer sentences than --min-sentences, torn ones not counted" in shown
    assert "no pair: fewer than two usable answers" in shown
    assert "-2, -1" in shown  # a bin of scores


def test_the_defaults_of_the_command_are_those_of_the_function(
    files: Files, jsonl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, answers = jsonl("p.jsonl", [prompt("good")]), jsonl("a.jsonl", GOOD)
    assert command(monkeypatch, prompts, answers, "--out", files.out) == 0
    by_command = meta_file(files.out).read_bytes()
    build_pairs(prompts, answers, files.out)
    one, other = (RunMeta.model_validate_json(text) for text in (by_command, meta_file(files.out).read_bytes()))
    assert one.options == other.options
