"""Pairs: which two answers, why none, and which split."""

import random
from pathlib import Path
from typing import Any

import pytest

from maskdpo.dataset import pairs as pairs_module
from maskdpo.dataset.pairs import Candidate, PairStats, Reject, best_worst, build_pairs, split_of
from maskdpo.errors import InputError, UserError
from maskdpo.io import read_records
from maskdpo.runs import RunMeta, meta_file
from maskdpo.schemas import Message, Pair

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
        options = {"test_size": 0.0} | options
        return build_pairs(self._jsonl("p.jsonl", prompts), self._jsonl("a.jsonl", answers), self.out, **options)

    @property
    def test_out(self) -> Path:
        return self.out.with_name("pairs.test.jsonl")

    def pairs(self) -> list[Pair]:
        return list(read_records(self.out, Pair))


@pytest.fixture
def files(tmp_path: Path, jsonl: Any) -> Files:
    return Files(tmp_path, jsonl)


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


def test_not_judged_sentences_do_not_count_in_the_score_and_keep_no_label(files: Files) -> None:
    files.build([prompt()], [answer("a", "r?"), answer("b", "wr??")])
    (pair,) = files.pairs()
    assert (pair.chosen_score, pair.rejected_score) == (1.0, 0.5)
    assert [s.label for s in pair.rejected_sentences] == ["contradictory", "no_hallucination", None, None]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"a": "r", "b": "rr", "c": "w"}, "b|c"),  # same score: more right sentences
        ({"a": "r", "b": "w", "c": "ww"}, "a|c"),  # same score: more wrong sentences
        ({"b": "r", "a": "r", "d": "w", "c": "w"}, "a|c"),  # same in all: the id
    ],
)
def test_ties(files: Files, answers: dict[str, str], expected: str) -> None:
    files.build([prompt()], [answer(name, labels) for name, labels in answers.items()])
    assert [pair.id for pair in files.pairs()] == [expected]


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([answer("a", "rw")], Reject.TOO_FEW),
        ([answer("a", "rw"), answer("b", "??"), answer("c", "")], Reject.TOO_FEW),
        ([answer("a", "r"), answer("b", "w") | {"response": " a0.\n"}], Reject.SAME_TEXT),
        ([answer("a", "rw"), answer("b", "rw")], Reject.MARGIN),
        ([answer("a", "rrrrrrrrrrrwwwwwwwww"), answer("b", "rw")], Reject.MARGIN),
        ([answer("a", "wn"), answer("b", "w")], Reject.MARGIN),
        ([answer("a", "rr"), answer("b", "rn")], Reject.NO_WRONG),
        ([answer("a", "r", sampling={"raw": True}), answer("b", "w", sampling={"raw": False})], Reject.FORMS),
    ],
)
def test_every_reason_for_no_pair_is_counted(files: Files, answers: list[Any], reason: Reject) -> None:
    good = [answer("x", "r", "good"), answer("y", "w", "good")]
    stats = files.build([prompt(), prompt("good")], [*answers, *good])
    assert [pair.id for pair in files.pairs()] == ["x|y"]
    assert stats.rejected == {reason: 1}
    counts = RunMeta.model_validate_json(meta_file(files.out).read_bytes()).counts
    assert counts["rejected"] == {reason.name.lower(): 1}


def test_without_a_right_sentence_there_is_nothing_to_learn(files: Files) -> None:
    """Both answers score 0, so this shows without a margin only."""
    with pytest.raises(InputError, match="the better answer has no right sentence to learn"):
        files.build([prompt()], [answer("a", "n"), answer("b", "w")], min_margin=0.0)


def test_a_margin_that_is_just_reached_is_enough(files: Files) -> None:
    stats = files.build([prompt()], [answer("a", "rrrww"), answer("b", "rw")], min_margin=0.1)
    assert (stats.total, stats.margin_sum) == (1, pytest.approx(0.1))


def test_the_order_of_the_input_does_not_matter(files: Files) -> None:
    rng = random.Random(0)
    prompts = [prompt(f"q{i}", topic=f"t{i % 7}") for i in range(20)]
    answers = [
        answer(f"q{i}a{k}", "".join(rng.choices("rwn", k=rng.randint(1, 4))), f"q{i}")
        for i in range(20)
        for k in range(4)
    ]
    files.build(prompts, answers, test_size=0.3)
    expected = files.out.read_bytes(), files.test_out.read_bytes()
    for _ in range(3):
        rng.shuffle(prompts)
        rng.shuffle(answers)
        files.build(prompts, answers, test_size=0.3)
        assert (files.out.read_bytes(), files.test_out.read_bytes()) == expected


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


def test_the_share_of_held_out_topics_and_the_seed() -> None:
    topics = [f"topic {i}" for i in range(4000)]
    held_out = {topic for topic in topics if split_of(topic, 0.25, seed=0) == "test"}
    other = {topic for topic in topics if split_of(topic, 0.25, seed=1) == "test"}
    assert len(held_out) == pytest.approx(1000, abs=110)
    assert held_out != other
    assert held_out < {topic for topic in topics if split_of(topic, 0.5, seed=0) == "test"}
    assert all(split_of(topic, 0.0, seed=0) == "train" for topic in topics)


def test_an_earlier_test_file_does_not_outlive_a_run_without_one(files: Files) -> None:
    prompts, answers = [prompt(f"q{i}") for i in range(12)], [a for i in range(12) for a in two(i)]
    files.build(prompts, answers, test_size=0.5)
    assert files.test_out.exists()
    files.build(prompts, answers, test_size=0.0)
    assert not files.test_out.exists()
    assert len(files.pairs()) == 12


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


def test_counts(files: Files) -> None:
    stats = files.build(
        [prompt("q1"), prompt("q2"), prompt("q3")],
        [answer("a", "rr?", "q1"), answer("b", "wn", "q1"), answer("c", "r", "q2"), answer("d", "?", "q2")],
    )
    assert (stats.prompts, stats.answers, stats.unscored) == (2, 4, 1)
    assert (stats.pairs, stats.total, stats.margin_sum) == ({"train": 1}, 1, 1.0)
    assert stats.labels == {"chosen": {"right": 2, "not_judged": 1}, "rejected": {"wrong": 1, "no_fact": 1}}
    assert stats.characters == {"chosen": 12, "rejected": 8}


@pytest.mark.parametrize(
    ("answers", "options", "message"),
    [
        ([answer("a", "r"), answer("b", "r")], {}, "no pair could be built (1: the scores are closer"),
        ([answer("a", "?")], {}, "no pair could be built (1: fewer than two scored answers)"),
        (two(0), {"strategy": "worst-best"}, "unknown strategy 'worst-best'; known: best-worst"),
        (two(0), {"test_size": 0.99}, "all 1 pairs fell to the test split; lower --test-size"),
        (two(1), {}, "a.jsonl:1: prompt_id: no prompt has the id 'q1'"),
    ],
)
def test_nothing_is_written_where_there_is_nothing_to_write(
    files: Files, answers: list[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        files.build([prompt("q0"), prompt()], answers, **options)
    assert message in str(error.value)
    assert sorted(file.name for file in files.out.parent.iterdir()) == ["a.jsonl", "p.jsonl"]


def test_a_strategy_is_a_function_and_a_line(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_pairs(candidates: list[Candidate]) -> list[tuple[Candidate, Candidate]]:
        ranked = sorted(candidates, key=lambda c: (-c.score, c.id))
        return [(better, worse) for i, better in enumerate(ranked) for worse in ranked[i + 1 :]]

    monkeypatch.setitem(pairs_module.STRATEGIES, "all", all_pairs)
    stats = files.build([prompt()], [answer("a", "r"), answer("b", "rw"), answer("c", "w")], strategy="all")
    assert [pair.id for pair in files.pairs()] == ["a|b", "a|c", "b|c"]
    assert stats.total == 3
    assert pairs_module.STRATEGIES["best-worst"] is best_worst
