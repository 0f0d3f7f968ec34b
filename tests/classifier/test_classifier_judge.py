"""The classifier judge: chunks, contexts, tokens of answers, rules for filler, and the command."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_classifiers
from test_inputs import TWO, spec
from test_model import HEADS

from maskdpo.annotate.judge import Task, Verdict
from maskdpo.annotate.judges.classifier import ClassifierJudge, ClassifierOptions
from maskdpo.annotate.judges.evidence import decided, of_chunks, of_tokens
from maskdpo.annotate.judges.filler import why_filler
from maskdpo.annotate.tasks import tasks_of
from maskdpo.backends.settings import BackendSettings
from maskdpo.classifier.spec import presets, write_spec
from maskdpo.cli import main
from maskdpo.errors import UserError
from maskdpo.io import read_records
from maskdpo.schemas import Annotation, Kind, Label, Prompt, Response, Sentence, Span, Status
from maskdpo.text.splitters import get_splitter

FACTS = [f"Bridge {n} crosses the river in town {n}, where {n + 100} people live." for n in range(12)]
REFERENCE = "\n\n".join(" ".join(FACTS[i : i + 4]) for i in range(0, 12, 4))
ANSWER = "# Bridges\n\nBridge 3 is in town 3. It was built in 1950. Do you like bridges? Bridge 41 is in town 2."
NLI = [{"label": "no_hallucination"}, {"label": "unverifiable"}, {"label": "contradictory"}]

Make = Callable[..., ClassifierJudge]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: tiny_classifiers.save(tmp_path_factory.mktemp(kind), kind) for kind in HEADS}


@pytest.fixture
def make(folders: dict[str, Path], tmp_path: Path) -> Make:
    def judge(
        kind: str, *, batch_size: int = 4, options: dict[str, Any] | None = None, **changes: Any
    ) -> ClassifierJudge:
        chunk = {"size": 160} if kind == "modernbert" else {"size": 40, "unit": "words"}
        write_spec(spec(**HEADS[kind] | {"max_length": 400, "chunk": chunk} | changes), tmp_path)
        chosen = ClassifierOptions(spec=str(tmp_path / "classifier.yaml"), **options or {})
        settings = BackendSettings(batch_size=batch_size, dtype="float32", device="cpu")
        return ClassifierJudge(str(folders[kind]), settings, chosen)

    return judge


def tasks(*answers: str, reference: str | list[str] = REFERENCE) -> Iterator[Task]:
    prompt = Prompt(id="p", prompt="Which bridges?", reference=reference)
    responses = (Response(id=f"r{i}", prompt_id="p", response=answer) for i, answer in enumerate(answers))
    return tasks_of(responses, {"p": prompt}, get_splitter("markdown"))


def verdicts(judge: ClassifierJudge, *answers: str, **more: Any) -> list[list[Verdict]]:
    found = {task.response.id: given for task, given in judge.judge(tasks(*answers, **more))}
    return [found[f"r{i}"] for i in range(len(answers))]


# --- from chunks and tokens to a verdict -------------------------------------------------------------


def test_support_is_the_maximum_over_chunks() -> None:
    made = spec()
    shares = np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]])
    scores, best = of_chunks(made, shares)
    assert best == 1
    assert scores == {Label.NO_HALLUCINATION: pytest.approx(0.7), Label.HALLUCINATION: pytest.approx(0.3)}
    verdict = decided(scores, "the chunk")
    assert (verdict.label, verdict.confidence, verdict.evidence) == (
        Label.NO_HALLUCINATION,
        pytest.approx(0.7),
        "the chunk",
    )


def test_a_contradiction_in_any_chunk_counts() -> None:
    made = spec(labels=NLI)
    scores, best = of_chunks(made, np.array([[0.2, 0.7, 0.1], [0.1, 0.0, 0.9]]))
    assert best == 0
    assert scores == {
        Label.NO_HALLUCINATION: pytest.approx(0.2),
        Label.UNVERIFIABLE: pytest.approx(0.8 * 0.7 / 1.6),
        Label.CONTRADICTORY: pytest.approx(0.8 * 0.9 / 1.6),
    }
    assert decided(scores, "").label is Label.CONTRADICTORY
    certain, _ = of_chunks(made, np.array([[1.0, 0.0, 0.0]]))
    assert certain == {Label.NO_HALLUCINATION: 1.0, Label.UNVERIFIABLE: 0.0, Label.CONTRADICTORY: 0.0}


def test_a_class_for_filler_decides_where_it_is_most_probable() -> None:
    made = spec(labels=[*TWO, {"label": "no_fact"}])
    labels = [decided(of_chunks(made, np.array([row]))[0], "").label for row in ([0.3, 0.3, 0.4], [0.45, 0.15, 0.4])]
    assert labels == [Label.NO_FACT, Label.HALLUCINATION]


def test_a_token_is_invented_only_if_every_chunk_says_so() -> None:
    made = spec(**HEADS["modernbert"])
    wrong_CT = np.array([[0.9, 0.9, 0.1, 0.2], [0.1, 0.8, 0.2, 0.9]])
    shares = np.stack([1 - wrong_CT, wrong_CT], -1)
    places = [(0, 3), (3, 6), (6, 9), (9, 12)]
    first, second = of_tokens(made, shares, places, (0, 6)), of_tokens(made, shares, places, (6, 12))
    assert first is not None
    assert first == ({Label.NO_HALLUCINATION: pytest.approx(0.2), Label.HALLUCINATION: pytest.approx(0.8)}, 1)
    assert second is not None
    assert second[0][Label.HALLUCINATION] == pytest.approx(0.2)
    mean = of_tokens(spec(**HEADS["modernbert"], tokens="mean"), shares, places, (0, 6))
    assert mean is not None
    assert mean[0][Label.HALLUCINATION] == pytest.approx((0.1 + 0.8) / 2)
    assert of_tokens(made, shares, places, (12, 14)) is None


@pytest.mark.parametrize(
    ("sentence", "kind", "filler"),
    [
        ("Would you like to know more?", Kind.PROSE, True),
        ("Is Paris the capital?", Kind.PROSE, False),  # a name
        ("Did you know that dogs cannot see red?", Kind.PROSE, False),
        ("It is cold. Is it not?", Kind.PROSE, False),
        ("你想知道更多吗？", Kind.PROSE, True),
        ("很好。", Kind.PROSE, False),  # words are not seen in Chinese
        ("Oh, good!", Kind.PROSE, True),
        ("In 1950.", Kind.PROSE, False),
        ("Cats sleep well.", Kind.PROSE, False),
        ("Heavy rain", Kind.LIST_ITEM, False),
        ("I am happy to help you with that.", Kind.PROSE, False),
    ],
)
def test_rules_for_filler(sentence: str, kind: Kind, filler: bool) -> None:
    assert (why_filler(sentence, kind) is not None) == filler


# --- the judge --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", HEADS)
def test_verdicts_do_not_depend_on_batches_and_companions(kind: str, make: Make) -> None:
    answers = [ANSWER, "Bridge 8 is blue. " * 3, ANSWER, "Nothing crosses the river at all. Bridge 9 fell down."]
    alone = [verdicts(make(kind, batch_size=1), answer)[0] for answer in answers]
    for size in (2, 64):
        for found, expected in zip(verdicts(make(kind, batch_size=size), *answers), alone, strict=True):
            for verdict, other in zip(found, expected, strict=True):
                assert (verdict.label, verdict.evidence, verdict.reason) == (other.label, other.evidence, other.reason)
                assert (verdict.scores or {}) == pytest.approx(other.scores or {}, abs=1e-5)
    filler = alone[0][2]
    assert (filler.label, filler.scores, filler.confidence) == (Label.NO_FACT, None, None)
    assert all(verdict.evidence in REFERENCE for verdict in alone[0][:2] if verdict.evidence)


def test_every_chunk_ends_at_a_sentence_and_the_best_one_is_the_evidence(make: Make) -> None:
    judge, claim = make("deberta"), "Bridge 3 is in town 3."
    [[verdict]] = verdicts(judge, claim)
    assert judge.usage.calls == 6  # three paragraphs of 48 words, in chunks of at most 40
    chunks = [
        " ".join(FACTS[i:j]) for start in range(0, 12, 4) for i, j in ((start, start + 3), (start + 3, start + 4))
    ]
    alone = [verdicts(judge, claim, reference=chunk)[0][0].scores for chunk in chunks]
    support = [scores[Label.NO_HALLUCINATION] for scores in alone if scores]
    assert verdict.evidence == chunks[int(np.argmax(support))]
    assert verdict.scores == pytest.approx(alone[int(np.argmax(support))], abs=1e-5)
    assert np.ptp(support) > 1e-3


def test_only_the_chunks_that_bear_on_a_sentence(make: Make) -> None:
    judge = make("roberta", options={"chunks": 2})
    [[verdict]] = verdicts(judge, "Bridge 7 crosses the river in town 7.")
    assert judge.usage.calls == 2
    assert verdict.evidence is not None
    wide = make("roberta", options={"chunks": 100})
    verdicts(wide, "Bridge 7 crosses the river in town 7.")
    assert wide.usage.calls == 6
    assert judge.info.protocol_hash != wide.info.protocol_hash


def test_equal_questions_are_asked_once(make: Make) -> None:
    judge = make("roberta", batch_size=64, chunk={"size": 2000, "unit": "words"}, max_length=20_000)
    verdicts(judge, "Bridge 3 is in town 3.", "Bridge 3 is in town 3. Bridge 4 is not.", reference=FACTS[3])
    assert (judge.usage.calls, judge.usage.repeats) == (2, 1)


@pytest.mark.parametrize("kind", ["roberta", "modernbert"])
def test_repeats_are_sentences_of_all_runs_of_a_judge(kind: str, make: Make) -> None:
    judge = make(kind, batch_size=64)
    two = "Bridge 3 is in town 3. Bridge 4 is not."
    verdicts(judge, two, two)
    once = judge.usage.calls
    assert once > 2  # several chunks
    assert judge.usage.repeats == 2
    verdicts(judge, two, two)
    assert (judge.usage.calls, judge.usage.repeats) == (2 * once, 4)


def _texts(judge: ClassifierJudge, monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> list[str]:
    """What the model reads."""
    from maskdpo.classifier import model

    seen: list[str] = []
    scores = model.scores

    def watched(classifier: Any, items: Any, batch_size: int) -> Any:
        seen.extend(classifier.tokenizer.decode(item.ids) for item in items)
        return scores(classifier, items, batch_size)

    monkeypatch.setattr(model, "scores", watched)
    run()
    return seen


ONE, TWO_, THREE = "Cats sleep well.", "Dogs bark at night.", "Birds sing songs."


@pytest.mark.parametrize(
    ("template", "context", "shown"),
    [
        ("{reference}|{sentence}", 0, [f"One.|{ONE}", f"One.|{TWO_}", f"One.|{THREE}"]),
        ("{reference}|{sentence}", 1, [f"One.|{ONE}", f"One.|{ONE} {TWO_}", f"One.|{TWO_} {THREE}"]),
        ("{reference}|{context}|{sentence}", 2, [f"One.||{ONE}", f"One.|{ONE}|{TWO_}", f"One.|{ONE} {TWO_}|{THREE}"]),
        ("{question}|{reference}{sentence}", 0, [f"Which bridges?|One.{each}" for each in (ONE, TWO_, THREE)]),
    ],
)
def test_what_stands_before_a_sentence(
    template: str, context: int, shown: list[str], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = make("roberta", input={"text": template}, options={"context": context})
    answer = f"# Head\n\n{ONE} {TWO_} {THREE}"
    found = _texts(judge, monkeypatch, lambda: verdicts(judge, answer, reference="One."))
    assert found == [f"<s>{text}</s>" for text in shown]


def test_sentences_that_are_judged_already_are_still_the_context(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = make("roberta", input={"text": "{reference}|{context}|{sentence}"}, options={"context": 1})
    prompt = Prompt(id="p", prompt="?", reference="One.")
    response = Response(id="r", prompt_id="p", response="Cats sleep well. Dogs bark now.")
    given = (Sentence(start=0, end=16, kind=Kind.PROSE, label=Label.NO_HALLUCINATION),)
    task = Task(prompt, response, [Span(17, 31, Kind.PROSE)], given)
    assert _texts(judge, monkeypatch, lambda: list(judge.judge([task]))) == [
        "<s>One.|Cats sleep well.|Dogs bark now.</s>"
    ]


def test_sentences_of_a_chunk_may_be_joined_anew(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = make("roberta", input={"text": "{reference}|{sentence}", "joined_by": "\n"})
    text = 'He said "Rain." Dr. Lee did not.\nSo it was.'
    found = _texts(judge, monkeypatch, lambda: verdicts(judge, "Cats sleep well.", reference=text))
    assert found == ['<s>He said "Rain."\nDr. Lee did not.\nSo it was.|Cats sleep well.</s>']


def test_an_answer_is_read_with_its_passages_in_groups(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    template = {"text": "{question} {count} {passages}", "pair": "{answer}", "passage": "({number}) {reference}"}
    judge = make("modernbert", input=template, chunk=None, max_length=110)
    passages = ["Ab cd. ", "Ef gh.", " ".join(f"Long text {n} here." for n in range(12))]
    answer = f"{ONE} What now? {TWO_}"
    found = _texts(judge, monkeypatch, lambda: verdicts(judge, answer, reference=passages))
    assert len(found) > 1
    assert found[0].startswith("[CLS]Which bridges? 2 (1) Ab cd.\n(2) Ef gh.")
    assert all(text.endswith(f"[SEP]{answer}[SEP]") for text in found)
    assert all("".join(found).count(f"Long text {n} here.") == 1 for n in range(12))
    [[first, filler, last]] = verdicts(
        make("modernbert", input=template, chunk=None, max_length=100), answer, reference=passages
    )
    assert filler.label is Label.NO_FACT
    assert first.scores != last.scores


def test_what_does_not_fit_is_a_status(make: Make) -> None:
    long = "Bridge 1 " + "is very long " * 300 + "."
    for kind in ("roberta", "modernbert"):
        [[first, second]] = verdicts(make(kind), f"Bridge 2 is short. {long}")
        assert second.status is Status.TRUNCATED
        assert "tokens without a reference" in str(second.reason)
        assert first.status is (Status.OK if kind == "roberta" else Status.TRUNCATED)
    for chunk in ({"size": 40}, None):  # without chunks, the others share the room that the longest of them leaves
        [[first, second, third]] = verdicts(
            make("roberta", chunk=chunk), f"Bridge 2 is short. {long}\n\nBridge 3 was built a long time ago."
        )
        assert [one.status for one in (first, second, third)] == [Status.OK, Status.TRUNCATED, Status.OK]
    [[only]] = verdicts(make("roberta", chunk=None), long)
    assert only.status is Status.TRUNCATED
    judge = make("roberta", chunk={"size": 2000, "unit": "words"})
    [[verdict]] = verdicts(judge, "Bridge 2 is short.")
    assert verdict.label is not None
    assert judge.usage.references_cut == 1


def test_tasks_are_taken_a_window_at_a_time(make: Make) -> None:
    taken: list[str] = []

    def watched() -> Iterator[Task]:
        for task in tasks(*[f"Bridge {n} is high." for n in range(200)], reference=FACTS[0]):
            taken.append(task.response.id)
            yield task

    results = make("roberta", batch_size=2).judge(watched())
    next(results)
    assert len(taken) <= 16
    assert 1 + len(list(results)) == 200


def test_the_identity_of_the_judge(make: Make) -> None:
    info = make("roberta").info
    assert (info.name, info.protocol) == ("classifier", "classifier")
    assert info.revision is not None
    others = [
        make("roberta", max_length=256).info,
        make("roberta", options={"filler": False}).info,
        make("roberta", options={"context": 1}).info,
    ]
    assert len({each.protocol_hash for each in [info, *others]}) == 4
    assert make("roberta", batch_size=9).info == info


@pytest.mark.parametrize("model", presets())
def test_every_preset_judges_with_a_model_of_its_class(model: str, tmp_path: Path) -> None:
    found = presets()[model]
    name = model.lower()
    kind = next(kind for kind in HEADS if kind in name)
    names = {i: label.name for i, label in enumerate(found.labels) if label.name}
    tiny_classifiers.save(tmp_path, kind, len(found.labels), names or None)
    settings = BackendSettings(device="cpu", dtype="float32")
    judge = ClassifierJudge(str(tmp_path), settings, ClassifierOptions(spec=model))
    assert judge.info.protocol == model
    [[first, filler, last]] = verdicts(judge, f"{ONE} What now? {TWO_}", reference=FACTS[:2])
    assert filler.label is Label.NO_FACT
    for verdict in (first, last):
        assert verdict.scores is not None
        assert set(verdict.scores) == {label.label for label in found.labels}
        assert sum(verdict.scores.values()) == pytest.approx(1)
        assert verdict.evidence == "\n\n".join(FACTS[:2])
    assert first.scores != last.scores


def test_a_model_without_a_spec(folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"(?s)spec=FILE.*labels: \[.*Presets: .*MiniCheck"):
        ClassifierJudge(str(folders["roberta"]), BackendSettings(), ClassifierOptions())


# --- the command ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_folder_with_a_spec_is_a_judge_of_the_command(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(words: list[str]) -> int:
        monkeypatch.setattr(sys, "argv", ["maskdpo", *words])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    model = tiny_classifiers.save(tmp_path / "judge", "roberta")
    write_spec(spec(), model)
    files = {name: tmp_path / f"{name}.jsonl" for name in ("prompts", "responses", "out")}
    files["prompts"].write_text(json.dumps({"id": "p", "prompt": "Which?", "reference": REFERENCE}) + "\n")
    files["responses"].write_text(json.dumps({"id": "r", "prompt_id": "p", "response": ANSWER}) + "\n")
    line = ["annotate", str(files["prompts"]), str(files["responses"]), "--out", str(files["out"]), "--judge"]
    assert run([*line, "classifier", "--model", str(model), "--device", "cpu"]) == 0
    [annotation] = read_records(files["out"], Annotation)
    assert annotation.sentences[0].label is Label.NO_FACT  # the heading
    judged = [sentence for sentence in annotation.sentences if sentence.scores]
    assert len(judged) == 3
    assert annotation.judge.name == "classifier"
    by_people = annotation.model_dump(mode="json", include={"id", "prompt_id", "response", "sentences"})
    for sentence in by_people["sentences"]:
        sentence |= {
            "scores": None,
            "confidence": None,
            "label": "no_fact" if sentence["start"] < 10 else "hallucination",
        }
    files["gold"] = tmp_path / "gold.jsonl"
    files["gold"].write_text(json.dumps(by_people) + "\n")
    assert run(["evaluate", str(files["out"]), "--gold", str(files["gold"])]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "gold sentences │ 5" in shown
    assert "of them judged │ 5" in shown
    for words, message in [
        (["classifier"], "--judge classifier needs --model"),
        (["classifier", "--model", str(model), "--votes", "3"], "--votes goes with --judge llm, not with classifier"),
        (
            ["classifier", "--model", str(model), "--concurrency", "3"],
            "--concurrency goes with --judge llm, not with cl",
        ),
        (["classifier", "--model", str(model), "--backend", "vllm"], "--backend goes with --judge llm, not with cl"),
        (["lexical", "--batch-size", "3"], "--batch-size goes with --judge llm or classifier, not with lexical"),
        (["lexical", "--model", str(model)], "--model goes with --judge llm or classifier"),
        (["classifier", "--model", str(folders["t5"])], "spec=FILE"),
        (["classifier", "--model", str(model), "--judge-option", "chunks=0"], "chunks"),
        (["classifier", "--model", str(model), "--judge-option", "context=1"], "is of another judge|--out|another"),
    ]:
        capsys.readouterr()
        assert run([*line, *words]) == 2, words
        error = capsys.readouterr().err
        assert any(part in error for part in message.split("|")), error
