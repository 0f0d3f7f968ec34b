"""What the presets have their models read, letter by letter, beside what their authors' code writes."""

import re
from pathlib import Path
from typing import Any

import pytest
import tiny_classifiers
from huggingface_hub.errors import LocalEntryNotFoundError
from hypothesis import given
from hypothesis import strategies as st

from maskdpo.classifier.inputs import InputTooLong, Item, encode, measure, render, room
from maskdpo.classifier.spec import ClassifierSpec, load_spec, presets, read_spec, write_spec
from maskdpo.errors import InputError, UserError

DOC, CLAIM = "Rain fell. It {was} cold.", 'He said "no".'
LETTUCE = (
    "Briefly answer the following question:\nWho?\nBear in mind that your response should be strictly based on the "
    "following 2 passages:\npassage 1: One.\npassage 2: Two.\nIn case the passages do not contain the necessary "
    'information to answer the question, please reply with: "Unable to answer based on given passages."\noutput:'
)
TWO = [{"label": "hallucination"}, {"label": "no_hallucination"}]


def spec(**changes: Any) -> ClassifierSpec:
    values = {"head": "sequence-classification", "input": {"text": "{reference}", "pair": "{sentence}"}, "labels": TWO}
    return ClassifierSpec.model_validate(values | changes)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            "yaxili96/FactCG-DeBERTa-v3-Large",
            "Rain fell. It {was} cold.\n\nChoose your answer: based on the paragraph above can we conclude that "
            '"He said "no"."?\n\nOPTIONS:\n- Yes\n- No\nI think the answer is ',
        ),
        ("lytang/MiniCheck-Flan-T5-Large", 'predict: Rain fell. It {was} cold.</s>He said "no".'),
        ("lytang/MiniCheck-DeBERTa-v3-Large", 'Rain fell. It {was} cold.[SEP]He said "no".'),
        ("lytang/MiniCheck-RoBERTa-Large", 'Rain fell. It {was} cold.</s>He said "no".'),
    ],
)
def test_a_preset_writes_one_text(model: str, text: str) -> None:
    assert render(presets()[model], Item(DOC, CLAIM)) == (text, None)


def test_an_nli_preset_writes_a_pair() -> None:
    found = presets()["MoritzLaurer/mDeBERTa-v3-base-xnli-multilingual-nli-2mil7"]
    assert render(found, Item(DOC, CLAIM)) == (DOC, CLAIM)


@pytest.mark.parametrize("size", ["base", "large"])
def test_lettucedetect_reads_question_passages_and_answer(size: str) -> None:
    found = presets()[f"KRLabsOrg/lettucedect-{size}-modernbert-en-v1"]
    item = Item("", question="Who?", answer="He did. {count}", passages=("One.", "Two."))
    assert render(found, item) == (LETTUCE, "He did. {count}")


@pytest.mark.parametrize(
    ("kind", "template", "ids"),
    [
        ("deberta", {"text": "{reference}[SEP]{sentence}"}, "[CLS]ab[SEP]cd[SEP]"),
        ("deberta", {"text": "{reference}", "pair": "{sentence}"}, "[CLS]ab[SEP]cd[SEP]"),
        ("roberta", {"text": "{reference}</s>{sentence}"}, "<s>ab</s>cd</s>"),
        ("llama", {"text": "{context}|{reference}|{question}|{sentence}"}, "|ab||cd"),
    ],
)
def test_templates_write_special_tokens_and_judged_text_does_not(kind: str, template: dict[str, str], ids: str) -> None:
    words, made = tiny_classifiers.words_of(kind), spec(input=template)
    plain = encode(made, words, Item("ab", "cd")).ids
    assert words.decode(plain) == ids
    hostile = encode(made, words, Item("a</s>[SEP]<s>b[CLS]", "c<pad>[SEP]d</s>")).ids
    special = set(words.all_special_ids)
    assert [i for i in hostile if i in special] == [i for i in plain if i in special]


def test_types_of_a_pair_and_places_in_the_answer() -> None:
    words = tiny_classifiers.words_of("deberta")
    encoded = encode(spec(), words, Item("ab", "cd"))
    assert encoded.type_ids == [0, 0, 0, 0, 1, 1, 1]  # [CLS] a b [SEP] c d [SEP]
    answer = "Die Straße 😀 ist."
    made = spec(
        head="token-classification", input={"text": "{reference}\n{question}", "pair": "{answer}"}, labels=TWO[::-1]
    )
    found = encode(made, tiny_classifiers.words_of("modernbert"), Item("Köln 😀", question="Wo?", answer=answer))
    assert found.answer_offsets is not None
    places = [place for place in found.answer_offsets if place]
    assert places[0][0] == 0
    assert places[-1][1] == len(answer)
    assert found.answer_offsets[0] is None
    assert len(found.answer_offsets) == len(found.ids)


@given(st.integers(40, 200), st.integers(0, 400), st.integers(0, 60))
def test_what_is_too_long_loses_the_end_of_the_reference(most: int, chunk: int, claim: int) -> None:
    words = tiny_classifiers.words_of("roberta")
    made = spec(input={"text": "{reference}</s>{sentence}"}, max_length=most)
    item = Item("xy " * chunk, "zq " * claim)
    whole = encode(made.model_copy(update={"max_length": 10_000}), words, item)
    try:
        found = encode(made, words, item)
    except InputTooLong:
        assert (
            len(encode(made.model_copy(update={"max_length": 10_000}), words, Item("", "zq " * claim)).ids) >= most - 1
        )
        return
    assert len(found.ids) <= most
    assert found.cut == (len(whole.ids) > most)
    text = words.decode(found.ids)
    assert text.endswith("</s>" + "zq " * claim + "</s>")
    if found.cut:
        assert len(found.ids) >= most - 3


def test_passages_that_do_not_fit_are_left_out_from_the_end() -> None:
    words = tiny_classifiers.words_of("modernbert")
    made = spec(
        head="token-classification",
        labels=TWO[::-1],
        input={"text": "{count}: {passages}", "pair": "{answer}", "passage": "{number}) {reference}"},
        max_length=60,
    )
    item = Item("", answer="yes", passages=("aq " * 10, "bq " * 200, "cq " * 200))
    found = encode(made, words, item)
    assert found.cut
    assert len(found.ids) <= 60
    assert words.decode(found.ids).startswith("[CLS]2: 1) aq aq")
    assert room(made, words, Item("", answer="yes")) == 60 - len(encode(made, words, Item("", answer="yes")).ids)


def test_sizes_of_chunks() -> None:
    words = tiny_classifiers.words_of("roberta")
    assert measure(spec(chunk={"size": 20, "unit": "words"}), words)("One, two three.") == 3
    assert measure(spec(chunk={"size": 20, "unit": "words"}), words)("四个汉字") == 2
    assert measure(spec(chunk={"size": 20}), words)("abc") == len(words("abc", add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": {"text": "{reference} {claim}"}}, "input: .*{claim} is not given to templates"),
        ({"input": {"text": "{sentence}"}}, "input: .*the templates need {reference}"),
        ({"input": {"text": "{reference}{sentence}", "system": "x"}}, "`system` goes with `chat`"),
        ({"input": {"text": "{reference}", "pair": "{sentence}", "chat": True}}, "`chat` goes with one text"),
        ({"input": {"text": "{reference}{answer}"}}, "shows {sentence}"),
        ({"head": "token-classification"}, "shows {answer}"),
        (
            {"head": "token-classification", "input": {"text": "{reference}", "pair": "{answer}"}}
            | {"chunk": {"size": 40, "unit": "words"}},
            "with token-classification `chunk` is in tokens",
        ),
        ({"head": "likelihood"}, "every label needs `token`"),
        ({"labels": [{"label": "hallucination", "token": "x"}, *TWO[1:]]}, "`token` does not go with"),
        ({"labels": [{"label": "no_fact"}, {"label": "no_hallucination"}]}, "at least one label that means wrong"),
        ({"labels": TWO[:1]}, "labels"),
        ({"treshold": 0.3}, "treshold"),
    ],
)
def test_a_spec_that_cannot_be(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    import yaml

    values = {"head": "sequence-classification", "input": {"text": "{reference}", "pair": "{sentence}"}, "labels": TWO}
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(values | changes))
    with pytest.raises(InputError, match=message):
        read_spec(file)


def test_where_a_spec_comes_from(tmp_path: Path) -> None:
    made = spec(max_length=300, chunk={"size": 100, "unit": "words"})
    write_spec(made, tmp_path)
    assert load_spec(str(tmp_path)) == ("classifier.yaml", made)
    (tmp_path / "classifier.yaml").rename(tmp_path / "mine.yaml")
    assert load_spec("anything", tmp_path / "mine.yaml") == ("mine", made)
    roberta = "lytang/MiniCheck-RoBERTa-Large"
    assert load_spec(roberta) == load_spec(str(tmp_path), roberta) == (roberta, presets()[roberta])
    with pytest.raises(UserError, match=r"(?s)no preset has this id.*spec=FILE.*head: sequence-classification"):
        load_spec(str(tmp_path))
    with pytest.raises(UserError, match=r"^judgee: there is no such folder, and no preset has this id"):
        load_spec("judgee")


def test_a_judge_on_the_hub_brings_its_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(model: str, file: str) -> str:
        asked.append(model)
        if model == "me/judge":
            return str(tmp_path / file)
        raise LocalEntryNotFoundError("no such file, and no connection")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    write_spec(spec(max_length=300), tmp_path)
    assert load_spec("me/judge") == ("classifier.yaml", spec(max_length=300))
    for other in ("me/other", "no/such/folder", "lytang/MiniCheck-RoBERTa-Large"):
        if other in presets():
            assert load_spec(other)[0] == other
        else:
            with pytest.raises(UserError, match="no preset has this id"):
                load_spec(other)
    assert asked == ["me/judge", "me/other"]


def test_the_hash_is_that_of_what_decides_scores() -> None:
    made = spec()
    assert made.hash == spec(licence="MIT", notes="x", published=[{"figure": "x", "source": "y"}]).hash
    assert made.hash != spec(max_length=256).hash
    assert len({each.hash for each in presets().values()}) == len(presets()) - 1  # the two of LettuceDetect ask alike


def test_the_docs_have_every_preset_with_its_licence_and_figures() -> None:
    page = (Path(__file__).parents[2] / "docs" / "classifiers.md").read_text(encoding="utf-8")
    rows = {row[1].strip(" `"): row for line in page.splitlines() if len(row := line.split("|")) == 7}
    for model, found in presets().items():
        _, _, _, licence, figure, weights, _ = (cell.strip() for cell in rows[model])
        assert licence == found.licence
        assert weights == ("safetensors" if found.safetensors else "to convert")
        assert len(found.published) == 1
        assert found.published[0].source in page
        numbers = re.findall(r"0\.\d{3}", found.published[0].figure)
        assert numbers
        assert re.findall(r"0\.\d{3}", figure) == numbers
