"""Languages: tags, what language a text is in, and the sentences of languages other than English and Chinese."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from maskdpo.annotate.judge import Task
from maskdpo.annotate.judges.lexical import LexicalJudge
from maskdpo.annotate.protocol import load_protocol
from maskdpo.evaluate.evaluation import evaluate_files
from maskdpo.evaluate.settings import EvaluateSettings
from maskdpo.io import write_records
from maskdpo.schemas import Annotation, JudgeInfo, Label, Prompt, Response, Sentence, Status
from maskdpo.schemas.language import language_tag, primary
from maskdpo.text.language import detect_language, language_name
from maskdpo.text.language_counts import LanguageCounts
from maskdpo.text.passages import Passages
from maskdpo.text.splitters import get_splitter
from maskdpo.text.splitters.score import score

DATA = Path(__file__).parent / "data"
RIGHT, WRONG = Label.NO_HALLUCINATION, Label.UNVERIFIABLE


@pytest.mark.parametrize(
    "written, tag",
    [
        ("en", "en"),
        ("FR", "fr"),
        ("pt_br", "pt-BR"),
        ("ZH-hant-tw", "zh-Hant-TW"),
        ("es-419", "es-419"),
        ("de-CH-1996", "de-CH-1996"),
        ("zh-yue", "zh-yue"),
        ("en-x-Mine", "en-x-mine"),
        (" fil ", "fil"),
    ],
)
def test_tags_are_written_in_one_way(written: str, tag: str) -> None:
    assert language_tag(written) == tag == language_tag(tag)
    assert Prompt(id="a", prompt="b", language=written).language == tag
    assert primary(tag) == tag[: len(primary(tag))]


@pytest.mark.parametrize("written", ["", "e", "English", "en-", "-en", "en--US", "en US", "français", "1a", "en-x"])
def test_what_is_no_tag(written: str) -> None:
    with pytest.raises(ValidationError, match=r"is no language tag \(BCP 47\), such as en, fr, pt-BR or zh-Hant"):
        Prompt(id="a", prompt="b", language=written)


@pytest.mark.parametrize(
    "text, language",
    [
        ("The tower was built in 1889 and is the tallest in Paris.", "en"),
        ("La tour a été construite en 1889 et elle est la plus haute de Paris.", "fr"),
        ("La torre fue construida en 1889 y es la más alta de la ciudad.", "es"),
        ("Der Turm wurde 1889 gebaut und ist der höchste in der Stadt.", "de"),
        ("De toren werd in 1889 gebouwd en is de hoogste van het land.", "nl"),
        ("東京は日本の首都です。", "ja"),
        ("北京是中国的首都。", "zh"),
        ("NASA于1958年成立，总部位于华盛顿。", "zh"),
        ("서울은 대한민국의 수도이다.", "ko"),
        ("القاهرة هي عاصمة مصر وأكبر مدنها.", "ar"),
        ("تهران پایتخت ایران و بزرگ‌ترین شهر این کشور است.", "fa"),
        ("اسلام آباد پاکستان کا دارالحکومت ہے۔", "ur"),
        ("नई दिल्ली भारत की राजधानी है और यह एक बड़ा शहर है।", "hi"),
        ("Москва — столица России, крупнейший город страны.", "ru"),
        ("Київ — столиця України.", "uk"),
        ("Η Αθήνα είναι η πρωτεύουσα της Ελλάδας.", "el"),
        ("ירושלים היא בירת ישראל.", "he"),
        ("กรุงเทพมหานครเป็นเมืองหลวงของไทย", "th"),
        ("Paris.", "und"),
        ("A. Paris\nB. London\nC. Rome\n\nA.", "und"),
        ("World War I ended in 1918. World War II began in 1939.", "und"),
        ("Бишкек — Кыргызстандын борбору жана эң ири шаары.", "und"),
        ("Roma est caput Italiae et in ea sunt multa templa, sed non omnia.", "und"),
        ("42", "und"),
        ("٣", "und"),
        ("", "und"),
    ],
)
def test_the_language_of_a_text(text: str, language: str) -> None:
    assert detect_language(text) == language


def test_no_language_is_claimed_wrongly() -> None:
    files = ["answers.jsonl", "answers_held_out.jsonl", "answers_today.jsonl", "answers_languages.jsonl"]
    rows = [json.loads(line) for file in files for line in (DATA / file).read_text(encoding="utf-8").splitlines()]
    wrong = [row["id"] for row in rows if detect_language(row["text"]) not in (primary(row["language"]), "und")]
    assert wrong == []
    assert sum(detect_language(row["text"]) == "und" for row in rows) < len(rows) / 3


@pytest.mark.parametrize("name, least", [("markdown", 0.99), ("spacy", 0.7), ("nltk", 0.7)])
def test_marked_answers_in_other_languages(name: str, least: float) -> None:
    rows = [json.loads(line) for line in (DATA / "answers_languages.jsonl").read_text(encoding="utf-8").splitlines()]
    marked = [(row["text"], row["language"], row["sentences"]) for row in rows]
    assert {primary(row["language"]) for row in rows} >= {"fr", "es", "de", "ja", "ar", "hi"}
    splitter = get_splitter(name, lambda: [text for text, _, _ in marked])
    assert score(splitter, marked).f1 > least


@pytest.mark.parametrize(
    "language, text, sentences",
    [
        ("de", "Am 3. Mai kam er. Er ging am 4. Mai. Das war z. B. gut.", 3),
        ("fr", "« Où ? » dit-elle. Mme Roy sourit. Il vécut vers 50 av. J.-C. à Lyon.", 3),
        ("es", "¿Qué es? ¡Nada! El Sr. Ruiz salió.", 3),
        ("ar", "ما هذا؟ هذا كتاب. شكرا!", 3),
        ("hi", "यह क्या है? यह किताब है। ठीक है॥", 3),
        ("ja", "「行くの？」と彼は言った。雨だ。1990年だった。", 3),
        ("zh-TW", "他來了。她走了！", 2),
        ("tlh", "One. Two.", 2),
        ("und", "One. Two.", 2),
    ],
)
def test_ends_of_other_languages(language: str, text: str, sentences: int) -> None:
    assert len(get_splitter("markdown").split(text, language)) == sentences


def test_the_name_of_a_language() -> None:
    assert language_name("fr") == "French"
    assert language_name("pt-BR") == "Portuguese (pt-BR)"
    assert language_name("tlh") == "the language tlh (BCP 47)"


TEXTS = {"reference": "R", "question": "Q", "answer": "A", "sentence": "S", "sentences": [{"id": "1", "text": "S"}]}


@pytest.mark.parametrize("name", ["single", "joint", "staged", "yes-no"])
def test_protocols_name_the_language_they_have_no_words_for(name: str) -> None:
    protocol = load_protocol(name)
    english = protocol.opening("en", TEXTS)
    assert protocol.language("en-GB") == protocol.language("und") == "en"
    assert protocol.language("zh-Hant") == "zh"
    assert protocol.language("fr") == "fr"
    *system, question = protocol.opening("fr", TEXTS)
    assert system == english[:-1]
    assert question.content == "The answer is in French.\n\n" + english[-1].content
    assert "language" not in protocol.opening("zh", TEXTS)[-1].content


@pytest.mark.parametrize(
    "name, hash_",
    [("single", "7e1e7b571876"), ("joint", "3bf2c8d77b39"), ("staged", "ac56720a32f1"), ("yes-no", "2529853cf678")],
)
def test_hashes_of_protocols_stay_so_that_old_labels_stay_of_the_same_judge(name: str, hash_: str) -> None:
    assert load_protocol(name).hash == hash_


def test_a_protocol_of_ones_own_in_another_language(tmp_path: Path) -> None:
    (tmp_path / "protocol.yaml").write_text("turns: [{template: t, words: {ja: no_hallucination, nein: unverifiable}}]")
    for language, text in {"pt-BR": "Em {{ language }}?", "de": "Stimmt es?", "notes": "x"}.items():
        (tmp_path / language).mkdir()
        (tmp_path / language / "t.j2").write_text(text)
    protocol = load_protocol(str(tmp_path))
    assert list(protocol.templates) == ["de", "pt-BR"]
    assert protocol.opening(protocol.language("pt-BR"), TEXTS)[0].content == "Em Portuguese (pt-BR)?"
    assert protocol.opening(protocol.language("fr"), TEXTS)[0].content == "Stimmt es?"


def test_the_lexical_judge_says_that_it_knows_english_only() -> None:
    rows = [json.loads(line) for line in (DATA / "answers_languages.jsonl").read_text(encoding="utf-8").splitlines()]
    judge, splitter = LexicalJudge(), get_splitter("markdown")
    tasks = []
    for row in rows:
        prompt = Prompt(id=row["id"], prompt="?", reference=row["text"], language=row["language"])
        response = Response(id=row["id"], prompt_id=row["id"], response=row["text"])
        tasks.append(Task(prompt, response, splitter.split(row["text"], row["language"])))
    assert all(len(verdicts) == len(task.spans) for task, verdicts in judge.judge(tasks))
    note = judge.notes()[0]
    assert note.startswith("21 answers are in other languages than English (ar, de, es, fr, hi, ja, ko, pt, ru): ")


def test_passages_in_languages_with_and_without_spaces() -> None:
    for text, question, wanted in (
        ("القاهرة عاصمة مصر. باريس عاصمة فرنسا. برلين عاصمة ألمانيا.", "ما عاصمة فرنسا؟", "فرنسا"),
        ("東京は日本の首都です。パリはフランスの首都です。", "フランスの首都", "フランス"),
        ("दिल्ली भारत में है। पेरिस फ्रांस में है।", "फ्रांस कहाँ है", "फ्रांस"),
    ):
        passages = Passages([text], piece_size=60)
        assert len(passages.all()) > 1
        assert wanted in passages.best(question, 1)[0]


def test_sentences_are_counted_by_language_where_there_are_several() -> None:
    counted = LanguageCounts({"f": "fr"})
    records = [
        ("f", "Oui. Non.", [(0, 4, RIGHT), (5, 9, WRONG)]),
        ("e", "It is the capital of the country, and it was founded in 1150.", [(0, 61, RIGHT)]),
        ("e", "Paris.", [(0, 6, None)]),
    ]
    made = []
    for number, (prompt_id, text, spans) in enumerate(records):
        sentences = [
            Sentence(start=start, end=end, label=label, status=Status.OK if label else Status.UNSURE)
            for start, end, label in spans
        ]
        made.append(Annotation(id=str(number), prompt_id=prompt_id, response=text, sentences=sentences))
    counted.add(made[1])
    counted.add(made[2])
    assert counted.of_several() == {}
    counted.add(made[0])
    none = {"right": 0, "wrong": 0, "no_fact": 0, "not_judged": 0}
    assert counted.of_several() == {
        "en": none | {"answers": 1, "right": 1},
        "fr": none | {"answers": 1, "right": 1, "wrong": 1},
        "und": none | {"answers": 1, "not_judged": 1},
    }
    counted.add(made[0], -1)
    assert list(counted.values()) == ["en", "und"]


def test_evaluate_has_a_table_by_language_where_there_are_several(tmp_path: Path) -> None:
    prompts = [Prompt(id=tag, prompt="?", language=tag) for tag in ("en", "pt-BR")]
    answer = {"response": "Sim. X.", "judge": JudgeInfo(name="j")}
    spans = [Sentence(start=0, end=4, label=RIGHT), Sentence(start=5, end=7, label=WRONG)]
    records = [Annotation(id=p.id, prompt_id=p.id, sentences=spans[: i + 1], **answer) for i, p in enumerate(prompts)]
    write_records(tmp_path / "prompts.jsonl", prompts)
    write_records(tmp_path / "a.jsonl", records)
    files = {"annotations": tmp_path / "a.jsonl", "prompts": tmp_path / "prompts.jsonl"}
    found = evaluate_files(EvaluateSettings(**files))
    table = next(table for table in found.tables() if table.title == "a.jsonl: sentences by language")
    assert table.rows == [
        ("en", "1", "1", "0", "0", "0", "1.000", "1.000"),
        ("pt-BR", "1", "1", "1", "0", "0", "0.500", "0.500"),
    ]
    found.write_json(tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text())["languages"][0]["pt-BR"]["wrong"] == 1
