"""Other tools' formats: what goes out can be read there, what comes back is the same, what does not fit is named."""

import json
import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import WriteJsonl
from hypothesis import given, settings
from hypothesis import strategies as st

from maskdpo.cli import main
from maskdpo.errors import InputError, UserError
from maskdpo.formats.align import align
from maskdpo.formats.exporting import config_file, export_file
from maskdpo.formats.importing import import_file
from maskdpo.formats.paper import PaperRow, from_paper, to_paper
from maskdpo.io import read_records, write_records
from maskdpo.run_record import meta_file, read_meta
from maskdpo.schemas import SIDES, Annotation, Label, Message, Pair, PairSentence, Prompt, Record, Response, Status

TEXT = st.text(st.sampled_from("ab1. \n\t-é😀中\u3000"), min_size=0, max_size=40)
LABELS = st.sampled_from([*Label, None])
SCORES = st.none() | st.floats(allow_nan=False, allow_infinity=False)
FINISH = st.sampled_from([None, "stop", "length"])


@st.composite
def sentences(draw: st.DrawFn, text: str) -> list[PairSentence]:
    """Any spans that a record may have: with gaps, touching, of white space only."""
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
    spans = [(a, b) for a, b in pairwise(cuts) if draw(st.booleans())]
    return [
        PairSentence(start=a, end=b, label=draw(LABELS), confidence=draw(st.none() | st.floats(0, 1))) for a, b in spans
    ]


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    chosen, rejected = draw(TEXT), draw(TEXT)
    plain = draw(st.booleans())
    return Pair(
        id=draw(st.text("ab中", min_size=1, max_size=3)),
        prompt_id="q",
        topic="t",
        prompt="Why?" if plain else [Message(role="system", content="Be brief."), Message(role="user", content="Why?")],
        chosen=chosen if plain else [Message(role="assistant", content=chosen)],
        rejected=rejected if plain else [Message(role="assistant", content=rejected)],
        chosen_sentences=draw(sentences(chosen)),
        rejected_sentences=draw(sentences(rejected)),
        chosen_score=draw(SCORES),
        rejected_score=draw(SCORES),
        chosen_finish_reason=draw(FINISH),
        rejected_finish_reason=draw(FINISH),
        chosen_reasoning=draw(st.none() | TEXT),
        rejected_reasoning=draw(st.none() | TEXT),
        template_options=draw(st.none() | st.just({"enable_thinking": True, "effort": {"level": 2}})),
        prompt_date=draw(st.none() | st.dates()),
        weight=draw(st.floats(1e-6, 1e6)),
    )


def through_json(row: dict[str, Any]) -> PaperRow:
    return PaperRow.model_validate(json.loads(json.dumps(row)))


# --- the paper's data ------------------------------------------------------------------------------


@given(pairs())
def test_a_pair_comes_back_the_same_from_the_papers_format(pair: Pair) -> None:
    assert from_paper(through_json(to_paper(pair)), 1) == pair


@given(pairs())
def test_the_papers_sentences_tile_the_answer(pair: Pair) -> None:
    row = to_paper(pair)
    for side in SIDES:
        item = row[f"{side}_item"]
        assert len(item["sents"]) == len(item["type"]) == len(pair.sentences(side))
        assert "".join(item["sents"]) == (pair.response(side) if item["sents"] else "")


@given(pairs())
def test_the_papers_code_leaves_out_the_same_sentences(pair: Pair) -> None:
    """It compares with these two strings; only what was not judged it trains and we do not."""
    row = to_paper(pair)
    out = {"chosen": "hallucination", "rejected": "no_hallucination"}
    ours: dict[str, set[Label | None]] = {
        "chosen": {Label.CONTRADICTORY, Label.UNVERIFIABLE, Label.HALLUCINATION},
        "rejected": {Label.NO_HALLUCINATION},
    }
    for side in SIDES:
        left_out = [name == out[side] for name in row[f"{side}_item"]["type"]]
        assert left_out == [sentence.label in ours[side] for sentence in pair.sentences(side)]


PARTS = st.lists(st.tuples(st.text("abc.é中😀", min_size=1, max_size=6), LABELS), min_size=1, max_size=6)


@given(PARTS, st.lists(st.sampled_from(["", " ", "\n\n", "\u3000"]), min_size=7, max_size=7), st.booleans())
def test_foreign_sentences_find_their_spans(
    parts: list[tuple[str, Label | None]], blanks: list[str], stripped: bool
) -> None:
    """Sentences that cover the answer, as the paper's splitter makes them, with other white space than the answer."""
    text, spans = blanks[0], []
    for (part, _), blank in zip(parts, blanks[1:], strict=False):
        spans.append((len(text), len(text) + len(part)))
        text += part + blank
    names = [None if label is None else label.value for _, label in parts]
    item = {"sents": [part if stripped else f" {part}\n" for part, _ in parts], "type": names}
    empty = {"sents": [], "type": []}
    row = {"prompt": "Q", "chosen": text, "rejected": "", "chosen_item": item, "rejected_item": empty}
    found = from_paper(through_json(row), 1).chosen_sentences
    assert [(s.start, s.end, s.label) for s in found] == [
        (start, end, label) for (start, end), (_, label) in zip(spans, parts, strict=True)
    ]


@pytest.mark.parametrize(
    ("text", "parts", "spans"),
    [
        ("A b.  C d.", ["A b.", "C d."], [(0, 4), (6, 10)]),
        ("A\nb. C", ["A b.", "C"], [(0, 4), (5, 6)]),
        ("J. K. Rowling wrote.", ["J.K.Rowling wrote."], [(0, 20)]),
        ("- one\n- two", ["one", "two"], [(2, 5), (8, 11)]),
        ("same same", ["same", "same"], [(0, 4), (5, 9)]),
        ("a b", ["a", " ", "b"], [(0, 1), None, (2, 3)]),
        ("", [], []),
    ],
)
def test_align(text: str, parts: list[str], spans: list[tuple[int, int] | None]) -> None:
    assert align(text, parts) == spans


@pytest.mark.parametrize(
    ("text", "parts", "message"),
    [
        ("One. Two.", ["One.", "Three."], "sentence 1, 'Three.', does not follow in the answer"),
        ("One. Two.", ["Two.", "One."], "sentence 1, 'One.', does not follow in the answer"),
        ("x yes yes", ["yes"], "sentence 0, 'yes', may be one of several places in the answer"),
        ("One.", ["One.", "One."], "sentence 1, 'One.', does not follow"),
    ],
)
def test_sentences_that_cannot_be_placed(text: str, parts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        align(text, parts)


def paper_row(**changes: Any) -> dict[str, Any]:
    row = {
        "prompt": [{"role": "user", "content": "Who?"}],
        "chosen": [{"role": "assistant", "content": "She did. Or not."}],
        "chosen_item": {"sents": ["She did.", "Or not."], "type": ["no_hallucination", "hallucination"]},
        "rejected": [{"role": "assistant", "content": "He did."}],
        "rejected_item": {"sents": ["He did."], "type": ["hallucination"]},
    }
    return row | changes


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("nofact", Label.NO_FACT),
        ("No_Fact", Label.NO_FACT),
        ("<No Facts>", Label.NO_FACT),
        ("ok", Label.NO_HALLUCINATION),
        ("No Hallucination", Label.NO_HALLUCINATION),
        ("CONTRADICTORY", Label.CONTRADICTORY),
        ("Unverifiable", Label.UNVERIFIABLE),
        ("hallucination", Label.HALLUCINATION),
        ("not_judged", None),
        ("", None),
        (None, None),
    ],
)
def test_names_of_types(name: str | None, label: Label | None) -> None:
    row = paper_row(rejected_item={"sents": ["He did."], "type": [name]})
    assert from_paper(through_json(row), 1).rejected_sentences[0].label is label


def test_an_edited_row_loses_the_labels_and_spans_that_no_longer_hold() -> None:
    pair = from_paper(through_json(paper_row()), 1)
    row = to_paper(pair) | {"chosen_score": 0.5, "rejected_score": 0.0, "weight": 2.0}
    row["chosen_item"]["confidence"] = [0.75, 1.0]
    row["rejected_item"]["confidence"] = [0.25]
    row["chosen_item"]["type"] = ["hallucination", "ok"]  # a person has turned the verdicts round
    row["rejected"] = [{"role": "assistant", "content": "Well, he did."}]
    row["rejected_item"]["sents"] = ["he did."]
    row["chosen_item"]["span"] = [[0, 8], [2, 99]]
    again = from_paper(through_json(row), 1)
    assert [(s.start, s.end) for s in again.chosen_sentences] == [(0, 8), (9, 16)]
    assert [s.label for s in again.chosen_sentences] == [Label.HALLUCINATION, Label.NO_HALLUCINATION]
    assert [(s.start, s.end) for s in again.rejected_sentences] == [(6, 13)]
    assert [s.confidence for s in (*again.chosen_sentences, *again.rejected_sentences)] == [None, None, 0.25]
    assert (again.chosen_score, again.rejected_score, again.weight) == (None, 0.0, 2.0)


def test_rows_that_do_not_fit_are_named_and_counted(jsonl: WriteJsonl, tmp_path: Path) -> None:
    good = paper_row()
    file = jsonl(
        "paper.jsonl",
        [
            good,
            paper_row(rejected_item={"sents": ["She did."], "type": ["ok"]}),
            paper_row(rejected_item={"sents": ["He did."], "type": []}),
            paper_row(rejected_item={"sents": ["He did."], "type": ["wrong"]}),
            {key: value for key, value in good.items() if key != "prompt"},
            "{",
            "[1]",
            "",
            paper_row(chosen="She did. Or not."),
            paper_row(prompt=[{"role": "user", "content": "Who else?"}]),
            paper_row(id="a"),
            paper_row(id="a"),
        ],
    )
    stats = import_file(file, tmp_path / "pairs.jsonl", "mask-dpo-paper", max_errors=99)
    assert (stats.kind, stats.records, stats.rejected, stats.sentences) == ("pair", 3, 8, 9)
    assert [str(error).removeprefix(f"{file}:") for error in stats.errors] == [
        "2: rejected_item: sentence 0, 'She did.', does not follow in the answer",
        "3: rejected_item: 1 sentences, but 0 types",
        "4: rejected_item: unknown type 'wrong'; known: no_hallucination, contradictory, unverifiable, hallucination, "
        "no_fact, ok, nofact, not_judged",
        "5: prompt: Field required",
        "6: not a JSON object (EOF while parsing an object at column 1); is the line torn?",
        "7: not a JSON object",
        "9: chosen: prompt and answers must all be strings or all be lists of messages",
        "12: the same as line 11: both would get the id a",
    ]
    made = list(read_records(tmp_path / "pairs.jsonl", Pair))
    assert [pair.id[-2:] for pair in made[:2]] == ["-1", "10"]
    assert made[0].prompt_id == made[2].prompt_id != made[1].prompt_id  # the same question is the same prompt
    few = import_file(file, tmp_path / "few.jsonl", "mask-dpo-paper", max_errors=2)
    assert (len(few.errors), few.rejected) == (2, 8)


def test_nothing_to_import_writes_nothing(jsonl: WriteJsonl, tmp_path: Path) -> None:
    file = jsonl("rows.jsonl", [{"text": "x"}, {"text": "y"}])
    with pytest.raises(
        InputError, match=r"no row is anah data \(2 rejected\); the first: .*rows.jsonl:1: the format anah needs"
    ):
        import_file(file, tmp_path / "out.jsonl", "anah")
    assert not (tmp_path / "out.jsonl").exists()
    with pytest.raises(InputError, match=r"no row is anah data \(0 rejected\)"):
        import_file(jsonl("empty.jsonl", []), tmp_path / "out.jsonl", "anah")


def test_files_of_pairs_come_back_the_same(jsonl: WriteJsonl, tmp_path: Path) -> None:
    @settings(max_examples=20)
    @given(st.lists(pairs(), min_size=1, max_size=4, unique_by=lambda pair: pair.id))
    def check(made: list[Pair]) -> None:
        file = jsonl("pairs.jsonl", [pair.model_dump(mode="json") for pair in made])
        export_file(file, tmp_path / "paper.jsonl", "mask-dpo-paper")
        import_file(tmp_path / "paper.jsonl", tmp_path / "again.jsonl", "mask-dpo-paper")
        assert list(read_records(tmp_path / "again.jsonl", Pair)) == made

    check()


# --- ANAH's raw inputs -----------------------------------------------------------------------------


def test_anahs_questions_and_answers_find_each_other(jsonl: WriteJsonl, tmp_path: Path) -> None:
    documents = [
        {"question": "Who?", "document": "She.", "language": "en", "topic": "x"},
        {"question": "谁？", "document": ["她。", "她们。"], "language": "zh"},
        {"question": "Who?", "document": "He.", "language": "en"},
        {"question": "Qui ?", "document": "Elle.", "language": "French"},
    ]
    answers = [{"question": "谁？", "response": "他。"}, {"question": "Who?", "response": "A."}, documents[0]]
    stats = import_file(jsonl("documents.jsonl", documents), tmp_path / "prompts.jsonl", "anah")
    assert (stats.kind, stats.records) == ("prompt", 2)
    assert [str(error).split(":", 2)[2] for error in stats.errors] == [
        f" the same as line 1: both would get the id {next(read_records(tmp_path / 'prompts.jsonl', Prompt)).id}",
        " language: 'French' is no language tag (BCP 47), such as en, fr, pt-BR or zh-Hant",
    ]
    stats = import_file(jsonl("answers.jsonl", answers), tmp_path / "responses.jsonl", "anah")
    assert (stats.kind, stats.records, stats.rejected) == ("response", 2, 1)
    prompts = {prompt.id: prompt for prompt in read_records(tmp_path / "prompts.jsonl", Prompt)}
    responses = list(read_records(tmp_path / "responses.jsonl", Response))
    assert [(prompts[r.prompt_id].prompt, r.response) for r in responses] == [("谁？", "他。"), ("Who?", "A.")]
    assert [prompt.passages for prompt in prompts.values()] == [["She."], ["她。", "她们。"]]


# --- TRL and annotation tools ----------------------------------------------------------------------

PAIR = from_paper(through_json(paper_row()), 1)
PROMPT = Prompt(id="q", prompt="Wer?", reference=["Sie.", "Er nicht."], topic="t")
ANSWER = "😀 Sie war es. Er auch. Hm."
ANNOTATION = Annotation.model_validate(
    {
        "id": "q-0",
        "prompt_id": "q",
        "response": ANSWER,
        "sentences": [
            {
                "start": 2,
                "end": 13,
                "label": "no_hallucination",
                "confidence": 0.75,
                "evidence": "Sie.",
                "reason": "so",
            },
            {"start": 14, "end": 22, "label": "contradictory", "confidence": 1.0},
            {"start": 23, "end": 26, "status": "refused"},
        ],
        "judge": {"name": "llm", "model": "judge-7b", "version": "1"},
    }
)


def test_trl_rows_hold_three_columns_that_datasets_loads(jsonl: WriteJsonl, tmp_path: Path) -> None:
    file = jsonl("pairs.jsonl", [PAIR.model_dump(mode="json"), PAIR.model_dump(mode="json") | {"id": "b"}])
    stats = export_file(file, tmp_path / "trl.jsonl", "trl")
    assert (stats.records, stats.plain) == (2, 0)
    rows = [json.loads(line) for line in (tmp_path / "trl.jsonl").read_text().splitlines()]
    assert rows[0] == {
        "prompt": [{"role": "user", "content": "Who?"}],
        "chosen": [{"role": "assistant", "content": "She did. Or not."}],
        "rejected": [{"role": "assistant", "content": "He did."}],
    }
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        "json", data_files=str(tmp_path / "trl.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.column_names == ["prompt", "chosen", "rejected"]
    assert loaded[1] == rows[1]


def test_trl_rows_hold_reasoning_and_template_options_where_chat_templates_look_for_them(
    jsonl: WriteJsonl, tmp_path: Path
) -> None:
    more = {"chosen_reasoning": "Hm.", "template_options": {"effort": "low"}, "prompt_date": "2026-01-31"}
    file = jsonl("pairs.jsonl", [PAIR.model_dump(mode="json") | more])
    export_file(file, tmp_path / "trl.jsonl", "trl")
    row = json.loads((tmp_path / "trl.jsonl").read_text())
    assert row["chosen"] == [{"role": "assistant", "content": "She did. Or not.", "reasoning_content": "Hm."}]
    assert row["rejected"] == [{"role": "assistant", "content": "He did."}]
    assert row["chat_template_kwargs"] == {"effort": "low"}
    assert set(row) == {"prompt", "chosen", "rejected", "chat_template_kwargs"}


def test_annotation_tools_show_the_answer_and_keep_the_reasoning_in_meta(jsonl: WriteJsonl, tmp_path: Path) -> None:
    thought = "Sie war es? Er auch? Hm."
    file = jsonl("annotations.jsonl", [ANNOTATION.model_dump(mode="json") | {"reasoning": thought}])
    prompts = jsonl("prompts.jsonl", [PROMPT.model_dump(mode="json")])
    export_file(file, tmp_path / "tasks.json", "label-studio", prompts)
    [task] = json.loads((tmp_path / "tasks.json").read_text())
    assert task["data"]["response"] == ANSWER
    assert thought not in task["data"].values()
    assert task["meta"] == {"reasoning": thought}
    export_file(file, tmp_path / "records.json", "argilla", prompts)
    [record] = json.loads((tmp_path / "records.json").read_text())
    assert record["fields"]["response"] == ANSWER
    assert record["metadata"] == {"prompt_id": "q", "topic": "t", "reasoning": thought}


def test_label_studio_tasks_fit_their_interface(jsonl: WriteJsonl, tmp_path: Path) -> None:
    file = jsonl("annotations.jsonl", [ANNOTATION.model_dump(mode="json")])
    prompts = jsonl("prompts.jsonl", [PROMPT.model_dump(mode="json")])
    stats = export_file(file, tmp_path / "tasks.json", "label-studio", prompts)
    assert (stats.records, stats.not_judged) == (1, 1)
    [task] = json.loads((tmp_path / "tasks.json").read_text())
    assert task["data"]["reference"] == "Sie.\n\nEr nicht."
    [prediction] = task["predictions"]
    assert prediction["model_version"] == "judge-7b"
    interface = ElementTree.fromstring(config_file(tmp_path / "tasks.json").read_text())
    names = {label.get("value") for label in interface.iter("Label")}
    shown = {element.get("value") for element in interface.iter("Text")}
    assert shown <= {f"${key}" for key in task["data"]}
    for region in prediction["result"]:
        value = region["value"]
        assert value["text"] == ANSWER[value["start"] : value["end"]]  # code points, also behind an emoji
        assert set(value["labels"]) <= names
        labels = interface.find(f"Labels[@name='{region['from_name']}']")
        assert labels is not None
        assert labels.get("toName") == region["to_name"]
        assert interface.find(f"Text[@name='{region['to_name']}']") is not None
    assert [region["value"]["labels"] for region in prediction["result"]] == [
        ["no_hallucination"],
        ["contradictory"],
        ["not_judged"],
    ]
    assert [region.get("score") for region in prediction["result"]] == [0.75, 1.0, None]
    assert [region.get("meta") for region in prediction["result"]] == [{"text": ["Sie.", "so"]}, None, None]


def test_label_studio_regions_carry_the_probabilities_of_labels(jsonl: WriteJsonl, tmp_path: Path) -> None:
    first, *rest = ANNOTATION.sentences
    scored = first.model_copy(update={"scores": {Label.NO_HALLUCINATION: 0.75, Label.NO_FACT: 0.25}})
    weak = rest[-1].model_copy(update={"status": Status.UNSURE, "scores": {Label.CONTRADICTORY: 0.5}})
    judged = ANNOTATION.model_copy(update={"sentences": [scored, *rest[:-1], weak]})
    file = jsonl("annotations.jsonl", [judged.model_dump(mode="json")])
    export_file(file, tmp_path / "tasks.json", "label-studio", jsonl("prompts.jsonl", [PROMPT.model_dump(mode="json")]))
    [task] = json.loads((tmp_path / "tasks.json").read_text())
    regions = task["predictions"][0]["result"]
    assert regions[0]["meta"]["scores"] == {"no_hallucination": 0.75, "no_fact": 0.25}
    assert regions[-1]["meta"] == {"scores": {"contradictory": 0.5}}
    assert regions[-1]["value"]["labels"] == ["not_judged"]


def test_argilla_records_have_span_suggestions(jsonl: WriteJsonl, tmp_path: Path) -> None:
    judged = ANNOTATION.model_copy(update={"id": "q-1", "sentences": ANNOTATION.sentences[:2]})
    file = jsonl("annotations.jsonl", [a.model_dump(mode="json") for a in (ANNOTATION, judged)])
    prompts = jsonl("prompts.jsonl", [PROMPT.model_dump(mode="json")])
    export_file(file, tmp_path / "records.json", "argilla", prompts)
    first, second = json.loads((tmp_path / "records.json").read_text())
    assert first["fields"] == {"prompt": "Wer?", "response": ANSWER, "reference": "Sie.\n\nEr nicht."}
    assert first["metadata"] == {"prompt_id": "q", "topic": "t"}
    suggestion = first["suggestions"]["sentences"]
    assert [(ANSWER[s["start"] : s["end"]], s["label"]) for s in suggestion["value"]] == [
        ("Sie war es.", "no_hallucination"),
        ("Er auch.", "contradictory"),
        ("Hm.", "not_judged"),
    ]
    assert suggestion["agent"] == "judge-7b"
    assert "score" not in suggestion  # one confidence is missing, and the list must fit the spans
    assert second["suggestions"]["sentences"]["score"] == [0.75, 1.0]


# --- files -----------------------------------------------------------------------------------------


def test_what_an_export_needs(jsonl: WriteJsonl, tmp_path: Path) -> None:
    pairs_file = jsonl("pairs.jsonl", [PAIR.model_dump(mode="json")])
    annotations = jsonl("annotations.jsonl", [ANNOTATION.model_dump(mode="json")])
    out = tmp_path / "out"
    with pytest.raises(UserError, match="`format` argilla needs `prompts`"):
        export_file(annotations, out, "argilla")
    with pytest.raises(InputError, match="holds annotation records, but `format` trl is made of pair records"):
        export_file(annotations, out, "trl")
    with pytest.raises(InputError, match="holds pair records, but `format` label-studio is made of annotation records"):
        export_file(pairs_file, out, "label-studio", pairs_file)
    with pytest.raises(InputError, match="is an input of this command"):
        export_file(pairs_file, pairs_file, "trl")
    other = jsonl("prompts.jsonl", [{"id": "other", "prompt": "?"}])
    with pytest.raises(InputError, match=r"annotations.jsonl:1: prompt_id: no prompt has the id 'q'"):
        export_file(annotations, out, "argilla", other)
    assert not out.exists()


def test_no_output_of_an_export_destroys_another_file(jsonl: WriteJsonl, tmp_path: Path) -> None:
    pairs_file = jsonl("pairs.jsonl", [PAIR.model_dump(mode="json")])
    annotations = jsonl("annotations.jsonl", [ANNOTATION.model_dump(mode="json")])
    prompts = jsonl("pr.xml", [PROMPT.model_dump(mode="json")])
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"tasks\.xml: is where the labelling interface goes"):
        export_file(annotations, tmp_path / "tasks.xml", "label-studio", prompts)
    with pytest.raises(InputError, match=r"pr\.xml: is an input of this command"):
        export_file(annotations, tmp_path / "pr.json", "label-studio", prompts)
    with pytest.raises(InputError, match=r"t\.parquet: is named as Parquet, but export writes JSON"):
        export_file(pairs_file, tmp_path / "t.parquet", "trl")
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_an_import_named_parquet_is_parquet(jsonl: WriteJsonl, tmp_path: Path) -> None:
    out = tmp_path / "pairs.parquet"
    assert import_file(jsonl("paper.jsonl", [paper_row()]), out, "mask-dpo-paper").records == 1
    assert out.read_bytes()[:4] == b"PAR1"
    assert list(read_records(out, Pair)) == [PAIR]


def test_the_format_says_which_part_of_a_dataset_is_exported(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    parts: dict[str, Record] = {"pairs": PAIR, "annotations": ANNOTATION, "prompts": PROMPT}
    for config, record in parts.items():
        write_records(folder / config / "train-00000.parquet", [record])
    assert export_file(folder, tmp_path / "a.json", "argilla", folder).records == 1
    assert export_file(folder, tmp_path / "t.jsonl", "trl").records == 1
    with pytest.raises(InputError, match="holds annotation records, but `format` trl"):
        export_file(Path(f"{folder}:annotations"), tmp_path / "t.jsonl", "trl")


def test_an_import_leaves_a_test_file_alone_and_does_not_replace_pairs_that_were_built(
    jsonl: WriteJsonl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, test = tmp_path / "x.jsonl", tmp_path / "x.test.jsonl"
    file = jsonl("paper.jsonl", [paper_row()])

    def imported() -> int:
        arguments = ["import", str(file), "--format", "mask-dpo-paper", "--out", str(out)]
        monkeypatch.setattr("sys.argv", ["maskdpo", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    test.write_text("mine")  # no record says that it belongs to x.jsonl
    assert imported() == 0
    meta = json.loads(meta_file(out).read_text())
    meta_file(out).write_text(json.dumps(meta | {"command": "build-pairs"}))
    before = out.read_bytes()
    assert imported() == 2
    assert "x.jsonl: is an output of `maskdpo build-pairs`" in " ".join(capsys.readouterr().err.split())
    assert (out.read_bytes(), test.read_text()) == (before, "mine")


def test_exports_and_imports_leave_a_record_for_lineage(jsonl: WriteJsonl, tmp_path: Path) -> None:
    file = jsonl("pairs.jsonl", [PAIR.model_dump(mode="json")])
    for to in ("mask-dpo-paper", "trl", "mask-dpo-paper"):  # other settings replace the output, as its record says
        export_file(file, tmp_path / "out.jsonl", to)  # type: ignore[arg-type]
        meta = read_meta(meta_file(tmp_path / "out.jsonl"))
        assert meta is not None
        assert (meta.command, meta.options, meta.paths) == ("export", {"format": to}, {"records": "pairs.jsonl"})
    import_file(tmp_path / "out.jsonl", tmp_path / "again.jsonl", "mask-dpo-paper")
    again = read_meta(meta_file(tmp_path / "again.jsonl"))
    assert again is not None
    assert (again.status, again.counts["records"]) == ("complete", 1)


CLAIM = {"id": "c/1", "reference": "The mill is old.", "sentence": "The mill is new.", "label": "contradictory"}


def test_claims_become_annotations_with_their_prompts(jsonl: WriteJsonl, tmp_path: Path) -> None:
    more = {"context": "Look at it.", "question": "How old?", "doc_id": "mills", "lang": "en", "split": "train"}
    rows = [CLAIM, CLAIM | {"id": "c/2", "sentence": "It is old 😀.", "label": "no_hallucination"} | more]
    rows += [CLAIM | {"id": "c/3", "reference": ["The mill", "is old."], "scores": {"contradictory": 0.75}}]
    out = tmp_path / "labelled.jsonl"
    import_file(jsonl("rows.jsonl", rows), out, "claims")
    annotations = list(read_records(out, Annotation))
    prompts = {prompt.id: prompt for prompt in read_records(tmp_path / "labelled.prompts.jsonl", Prompt)}
    said = [(a.response[s.start : s.end], s.label) for a in annotations for s in a.sentences]
    assert said == [
        ("The mill is new.", Label.CONTRADICTORY), ("It is old 😀.", Label.NO_HALLUCINATION),
        ("The mill is new.", Label.CONTRADICTORY),
    ]  # fmt: skip
    assert [prompts[a.prompt_id].passages for a in annotations] == [["The mill is old."]] * 2 + [
        ["The mill", "is old."]
    ]
    assert annotations[1].response == "Look at it.\nIt is old 😀."
    assert (prompts["c/2"].question, prompts["c/2"].topic, prompts["c/2"].language) == ("How old?", "mills", "en")
    assert annotations[2].sentences[0].scores == {Label.CONTRADICTORY: 0.75}
    assert prompts["c/1"].topic != prompts["c/3"].topic
    assert read_meta(meta_file(out)) is not None


def test_claims_about_one_reference_share_a_topic(jsonl: WriteJsonl, tmp_path: Path) -> None:
    rows = jsonl("rows.jsonl", [CLAIM, CLAIM | {"id": "c/2", "sentence": "It is old."}])
    import_file(rows, tmp_path / "a.parquet", "claims")
    topics = [prompt.topic for prompt in read_records(tmp_path / "a.prompts.parquet", Prompt)]
    assert len(topics) == 2
    assert len(set(topics)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "true"}, "label: Input should be"),
        ({"sentence": ""}, "sentence: String should have at least 1 character"),
        ({"reference": []}, "reference"),
        ({"scores": {"contradictory": 1.5}}, "scores.contradictory: Input should be less than or equal to 1"),
    ],
)
def test_claims_that_are_none_are_rejected_with_the_reason(
    change: dict[str, Any], message: str, jsonl: WriteJsonl, tmp_path: Path
) -> None:
    stats = import_file(jsonl("rows.jsonl", [CLAIM | change, CLAIM | {"id": "c/2"}]), tmp_path / "a.jsonl", "claims")
    assert (stats.records, stats.rejected) == (1, 1)
    assert message in str(stats.errors[0])


def test_prompts_of_claims_replace_no_input(jsonl: WriteJsonl, tmp_path: Path) -> None:
    rows = jsonl("a.prompts.jsonl", [CLAIM])
    with pytest.raises(InputError, match="is an input of this command"):
        import_file(rows, tmp_path / "a.jsonl", "claims")
    assert not (tmp_path / "a.jsonl").exists()
