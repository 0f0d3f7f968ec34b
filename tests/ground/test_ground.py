"""Prompts grounded in small corpora of real files: what is found, what is not, and what a run leaves behind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import exit_code
from conftest import WriteJsonl

import maskdpo
from maskdpo.errors import InputError, UserError
from maskdpo.ground.bm25 import BM25, BM25Options
from maskdpo.ground.corpus import Document, corpus_files, documents
from maskdpo.ground.ground import GroundStats, ground
from maskdpo.ground.settings import GroundSettings
from maskdpo.ground.store import PassageStore, made_once, write_store
from maskdpo.io import read_records
from maskdpo.lineage import trace
from maskdpo.run_record import meta_file, read_meta
from maskdpo.schemas import Prompt
from maskdpo.stage_run import OtherSettings

RIVERS = """# Rivers of Europe

The Seine rises in Burgundy and flows through Paris. It reaches the English Channel at Le Havre.

The Tiber is the third longest river of Italy. It flows through Rome.
"""
CURIE = {
    "id": "curie",
    "title": "Marie Curie",
    "text": "She was born in Warsaw in 1867. She discovered radium in 1898.",
}
BRIDGE = {"title": "那座古桥", "text": "那座古桥全长1250米。古桥建于清代，横跨两岸。"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("MASKDPO_CACHE", str(folder))
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder with a Markdown file, and lines in a folder below it."""
    folder = tmp_path / "docs"
    (folder / "people").mkdir(parents=True)
    (folder / "rivers.md").write_text(RIVERS)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (CURIE, BRIDGE))
    (folder / "people" / "rows.jsonl").write_text(lines)
    return folder


Run = Callable[..., tuple[GroundStats, list[Prompt]]]


@pytest.fixture
def run(tmp_path: Path, jsonl: WriteJsonl, corpus: Path) -> Run:
    """Ground questions, or whole prompts, in the corpus."""

    def run(*asked: str | dict[str, Any], **more: Any) -> tuple[GroundStats, list[Prompt]]:
        rows = [{"prompt": one} if isinstance(one, str) else one for one in asked]
        prompts = jsonl("prompts.jsonl", [{"id": f"p{i}"} | row for i, row in enumerate(rows)])
        settings = {"prompts": prompts, "corpus": corpus, "out": tmp_path / "out.jsonl", **more}
        stats = ground(GroundSettings(**settings))
        return stats, list(read_records(settings["out"], Prompt))

    return run


# --- what is found -------------------------------------------------------------------------------------


def test_a_question_gets_the_passages_that_bear_on_it_with_their_sources(run: Run, corpus: Path) -> None:
    stats, (rivers, curie, bridge) = run(
        "Which river flows through Rome?",
        "When was radium discovered?",
        "那座古桥有多长？",
        passages=1,
        passage_words=20,
    )
    assert (stats.grounded, stats.nothing_found, stats.passages) == (3, 0, 3)
    assert rivers.sources and curie.sources and bridge.sources
    text = (corpus / "rivers.md").read_text()
    (found,) = rivers.sources
    assert found is not None
    assert (found.document, found.title) == ("rivers.md", "Rivers of Europe")
    assert text[found.start : found.end] == "The Tiber is the third longest river of Italy. It flows through Rome."
    assert rivers.passages == [f"Rivers of Europe\n{text[found.start : found.end]}"]  # "It" says nothing alone
    assert curie.passages == [f"Marie Curie\n{CURIE['text']}"]
    assert curie.sources[0] is not None
    assert (curie.sources[0].document, curie.sources[0].score) == ("curie", pytest.approx(0.5, abs=0.4))
    assert bridge.passages == [BRIDGE["text"]]  # it names the title itself
    assert bridge.sources[0] is not None
    assert bridge.sources[0].document == "people/rows.jsonl:2"


def test_what_nothing_bears_on_gets_no_passage_and_is_counted(run: Run) -> None:
    stats, (unknown, empty, own, known) = run(
        "Tell me about Zorblaxia, please.",
        "...",
        {"prompt": "What about Qwxyzia?", "reference": "It is made up."},
        "Tell me about the Seine.",
    )
    assert unknown.reference is None and unknown.sources is None and empty.reference is None
    assert own.reference == "It is made up." and own.sources is None
    assert known.sources
    assert (stats.grounded, stats.nothing_found, stats.without_reference) == (1, 3, 2)


def test_a_reference_of_its_own_stays_and_stands_first(run: Run) -> None:
    own = {"prompt": "Where does the Seine flow?", "reference": ["My own note.", "And another."], "topic": "Seine"}
    _, (prompt,) = run(own, passages=1)
    assert prompt.passages[:2] == ["My own note.", "And another."]
    assert prompt.sources is not None and prompt.sources[:2] == [None, None] and len(prompt.sources) == 3
    assert prompt.own_passages == ["My own note.", "And another."]
    assert prompt.topic == "Seine"


def test_a_passage_that_the_reference_holds_already_is_not_repeated(run: Run) -> None:
    _, (prompt,) = run({"prompt": "Where does the Seine flow?", "reference": RIVERS}, passages=1)
    assert prompt.reference == RIVERS and prompt.sources is None


def test_passages_of_an_earlier_grounding_are_replaced(run: Run, tmp_path: Path) -> None:
    own = {"id": "a", "prompt": "Which river flows through Rome?", "reference": "Mine."}
    run(own, passages=3)
    first = next(read_records(tmp_path / "out.jsonl", Prompt))
    again = {"prompts": tmp_path / "out.jsonl", "out": tmp_path / "again.jsonl"}
    _, (prompt,) = run(own, passages=3, **again)
    assert prompt == first
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.txt").write_text("Nothing of the kind stands here.")
    _, (prompt,) = run(own, **{**again, "out": tmp_path / "third.jsonl", "corpus": other})
    assert prompt == Prompt(id="a", prompt=own["prompt"], reference=["Mine."])


def test_the_first_line_does_not_decide_what_the_columns_are(run: Run, corpus: Path) -> None:
    rows = corpus / "people" / "rows.jsonl"
    rows.write_text('{"text": null, "title": "Empty"}\n{"text": "Nobody knows."}\n' + json.dumps(CURIE) + "\n")
    _, (curie,) = run("When was radium discovered?", passages=1)
    assert curie.passages == [f"Marie Curie\n{CURIE['text']}"]
    assert curie.sources is not None and curie.sources[0] is not None
    assert curie.sources[0].document == "curie"


def test_sentences_of_answers_find_passages_too(run: Run, jsonl: WriteJsonl) -> None:
    responses = jsonl(
        "responses.jsonl",
        [
            {"id": "1", "prompt_id": "p1", "response": "It is a river. Radium was discovered by Marie Curie."},
            {"id": "2", "prompt_id": "p0", "response": "# Radium\n\nI do not know."},
            "",
            {"id": "3", "prompt_id": "p1", "response": "The Seine reaches the English Channel."},
        ],
    )
    asked = ("Where is Rome?", "Which river flows through Rome?")
    _, (other, plain) = run(*asked, passages=1, passage_words=20)
    assert len(other.passages) == len(plain.passages) == 1
    _, (other, more) = run(
        *asked, passages=1, passage_words=20, responses=responses, out=responses.with_name("o.jsonl")
    )
    assert len(other.passages) == 1  # a heading is not judged, so it is not looked up
    assert more.sources is not None
    assert [source.document for source in more.sources if source] == ["rivers.md", "curie", "rivers.md"]
    assert more.passages[0] == plain.passages[0]
    assert "Le Havre" in more.passages[2]


def test_chat_prompts_are_looked_up_by_their_last_question(run: Run) -> None:
    turns = [
        {"role": "user", "content": "Who discovered radium?"},
        {"role": "assistant", "content": "Marie Curie."},
        {"role": "user", "content": "And which river flows through Rome?"},
    ]
    _, (prompt,) = run({"prompt": turns}, passages=1, passage_words=20)
    assert "Tiber" in prompt.passages[0]


# --- what a run leaves behind --------------------------------------------------------------------------


def test_a_run_goes_on_where_it_was_killed_and_is_then_complete(run: Run, tmp_path: Path) -> None:
    asked = [f"Tell me about {name}." for name in ("Rome", "Paris", "radium")]
    run(*asked)
    out = tmp_path / "out.jsonl"
    whole, record = out.read_bytes(), meta_file(out)
    out.write_bytes(whole[: len(whole) * 2 // 3])  # torn inside a line
    record.write_text(record.read_text().replace('"complete"', '"running"'))
    stats, _ = run(*asked)
    assert stats.prompts == 3 and 0 < stats.already_there < 3
    assert out.read_bytes() == whole
    stats, _ = run(*asked)
    assert (stats.already_there, stats.corpus) == (3, None)
    node = trace(out)
    assert {child.role: child.state for child in node.inputs} == {"prompts": "unchanged", "corpus": "unchanged"}


def test_a_first_try_goes_on_without_the_limit(run: Run) -> None:
    asked = [f"Tell me about {name}." for name in ("Rome", "Paris", "radium")]
    _, first = run(*asked, limit=2)
    stats, whole = run(*asked)
    assert stats.already_there == 2
    assert whole[:2] == first and len(whole) == 3


def test_prompts_that_were_added_are_looked_up_and_nothing_is_lost(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    _, first = run("Tell me about the Loire.", "Tell me about Rome.")
    whole, begun = out.read_bytes(), _begun(out)
    stats, grown = run("Tell me about the Loire.", "Tell me about Rome.", "Tell me about Paris.")
    assert (stats.already_there, grown[:2], len(grown)) == (0, first, 3)
    assert _begun(out) == begun
    assert "prompts changed since it was made: all are looked up anew" in capsys.readouterr().err
    assert out.with_name("out.jsonl.bak").read_bytes() == whole


def _begun(out: Path) -> str:
    meta = read_meta(meta_file(out))
    assert meta is not None
    return meta.begun


def test_documents_that_have_changed_are_another_corpus(run: Run, corpus: Path, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    asked = ("Tell me about the Loire.", "Tell me about Rome.")
    run(*asked)
    whole, begun = out.read_bytes(), _begun(out)
    assert len([folder for folder in (cache / "ground").iterdir() if folder.is_dir()]) == 2  # passages and index
    (corpus / "more.txt").write_text("The Loire is the longest river in France.")
    assert trace(out).inputs[1].state == "changed"
    with pytest.raises(OtherSettings, match=r"the corpus file has changed.*`restart` to set it aside"):
        run(*asked)
    assert out.read_bytes() == whole
    _, (loire, *_) = run(*asked, restart=True)
    assert loire.passages == ["The Loire is the longest river in France."]
    assert trace(out).inputs[1].state == "unchanged"
    assert _begun(out) > begun
    assert out.with_name("out.jsonl.bak").read_bytes() == whole
    (corpus / "more.txt").write_bytes(b"a\0")
    with pytest.raises(InputError, match="is a binary file"):
        run(*asked, restart=True)
    assert next(read_records(out, Prompt)) == loire  # what was there stays


def test_a_corpus_that_is_left_out_is_another_corpus(run: Run, corpus: Path) -> None:
    run("Tell me about Rome.", corpus=(corpus / "rivers.md", corpus / "people"))
    with pytest.raises(OtherSettings, match="the corpus-2 file has changed"):
        run("Tell me about Rome.", corpus=corpus / "rivers.md")


def test_other_options_never_replace_what_is_finished(
    run: Run, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    run(*(f"Tell me about {name}." for name in ("Rome", "Paris", "radium")))
    whole = out.read_bytes()
    words = ("ground", tmp_path / "prompts.jsonl", "--corpus", corpus, "--out", out, "--limit", 1, "--passages", 3)
    assert exit_code(*words) == 2
    assert "(passages: 5 -> 3). Use another --out, or --restart" in " ".join(capsys.readouterr().err.split())
    assert out.read_bytes() == whole
    assert exit_code(*words, "--restart") == 0
    assert len(list(read_records(out, Prompt))) == 1
    assert out.with_name("out.jsonl.bak").read_bytes() == whole


def test_what_an_interrupted_run_keeps_is_counted(
    run: Run, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    run("Tell me about Rome.", "Tell me about Paris.", limit=1)

    def interrupted(self: BM25, queries: list[str], most: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BM25, "search", interrupted)
    assert exit_code("ground", tmp_path / "prompts.jsonl", "--corpus", corpus, "--out", out) == 130
    assert "interrupted; 1 record is kept in" in " ".join(capsys.readouterr().err.split())


def test_an_index_that_was_not_finished_is_made_anew(run: Run, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: BM25, passages: PassageStore, folder: Path) -> None:
        (folder / "data.csc.index.npy").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BM25, "build", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("Tell me about Rome.")
    (left_over,) = (cache / "ground").glob("*")  # the passages, which were finished
    unfinished = left_over.with_name(f".{left_over.name}-killed")
    unfinished.mkdir()  # what a killed run leaves
    shutil.rmtree(left_over)
    assert run("Tell me about Rome.")[0].grounded == 1
    assert not unfinished.exists()


def test_an_output_of_another_kind_and_an_input_are_never_replaced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"id": "a", "prompt": "?"}\n')
    with pytest.raises(InputError, match="no record says that maskdpo made it"):
        run("Tell me about Rome.", out=tmp_path / "mine.jsonl")
    with pytest.raises(InputError, match="lies among the documents"):
        run("Tell me about Rome.", out=tmp_path / "docs" / "out.jsonl")
    with pytest.raises(InputError, match="is an input"):
        run("Tell me about Rome.", out=tmp_path / "prompts.jsonl")


# --- what cannot be looked up --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "more", "message"),
    [
        ({}, {}, r"docs: holds no files; what is read: \.txt, \.md"),
        ({"a.pdf": b"%PDF", "b.PDF": b"", ".hidden.txt": b"x"}, {}, r"docs: holds no documents, but 2 \.pdf"),
        ({"a.txt": b"ab\0c"}, {}, r"a\.txt: is a binary file"),
        ({"a.md": "Köln".encode("latin-1")}, {}, r"a\.md: is no text in UTF-8 \(byte 0xf6 at 1\)"),
        ({"a.txt": b" \n", "b.html": b"<script>x</script>"}, {}, r"docs: holds no text \(2 documents\)"),
        ({"a.jsonl": b'{"x": "a", "y": "b", "n": 1}'}, {}, r"a\.jsonl: no column .* its columns: x, y, n"),
        ({"a.jsonl": b'{"x": "a"}'}, {"text_column": "z"}, r"a\.jsonl: has no column 'z'.* its columns: x$"),
        ({"a.jsonl": b'{"text": "a"}\n{"text": ["b"]}'}, {}, r"a\.jsonl:2: text: must be a text, not list"),
        ({"a.jsonl": b'{"text": "a"}\n[1]'}, {}, r"a\.jsonl:2: not a JSON object"),
        ({"a.jsonl": b'{"text": "a"'}, {}, r"a\.jsonl:1: not a JSON object"),
        ({"a.parquet": b"PAR1 and no more"}, {}, r"a\.parquet: cannot be read as Parquet"),
        ({"prompts/a.txt": b"Text."}, {}, r"docs: has the shape of a maskdpo dataset"),
    ],
)
def test_a_corpus_that_cannot_be_read_is_said_in_words(
    files: dict[str, bytes], more: dict[str, Any], message: str, run: Run, corpus: Path
) -> None:
    shutil.rmtree(corpus)
    corpus.mkdir()
    for name, content in files.items():
        (corpus / name).parent.mkdir(exist_ok=True)
        (corpus / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        run("Tell me about Rome.", **more)


def test_files_that_are_not_read_are_named(run: Run, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (corpus / "scan.pdf").write_bytes(b"%PDF")
    run("Tell me about Rome.")
    assert "files that are not read: 1 .pdf" in capsys.readouterr().err


def test_the_command_says_what_it_found_and_ends_with_2_for_bad_input(
    jsonl: WriteJsonl, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = jsonl(
        "prompts.jsonl", [{"id": "a", "prompt": "Tell me about Rome."}, {"id": "b", "prompt": "Zorblaxia?"}]
    )
    words = ("ground", prompts, "--corpus", corpus / "rivers.md", "--corpus", corpus / "people", "--out")
    assert exit_code(*words, tmp_path / "o.jsonl") == 0
    printed = capsys.readouterr()
    assert "prompts for which nothing was found" in printed.out
    assert "1 prompt got no passage" in printed.err
    meta = read_meta(meta_file(tmp_path / "o.jsonl"))
    assert meta is not None and list(meta.inputs) == ["prompts", "corpus", "corpus-2"]
    assert exit_code("validate", tmp_path / "o.jsonl") == 0
    assert exit_code(*words, tmp_path / "p.jsonl", "--corpus", tmp_path / "none") == 2
    assert "none: no such file" in capsys.readouterr().err
    assert exit_code("ground", prompts, "--corpus", corpus, "--out", tmp_path / "p.jsonl", "--retriever", "x") == 2
    assert "unknown retriever 'x'; known: bm25" in capsys.readouterr().err


def test_the_retriever_of_the_page(run: Run, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "ground.md").read_text()
    file = tmp_path / "mine.py"
    file.write_text(page.partition("```python\n")[2].partition("```")[0])
    mine = {"retriever": f"{file}:ByWord", "retriever_options": {"word": "radium"}}
    _, (prompt,) = run("Anything?", **mine)
    assert prompt.sources is not None and [source.document for source in prompt.sources if source] == ["curie"]
    with pytest.raises(UserError, match="no retriever: it has no 'version'"):
        run("Anything?", retriever="collections:Counter", out=tmp_path / "o.jsonl")


# --- the parts -----------------------------------------------------------------------------------------


def read(folder: Path, **more: Any) -> list[Document]:
    return list(documents(corpus_files([folder])[0], **more))


def test_rows_of_tables_are_documents(tmp_path: Path) -> None:
    table = pa.table(
        {"_id": [7, 8, None], "content": ["Eins.", None, "Drei."], "title": ["A", None, "C"], "n": [1, 2, 3]}
    )
    pq.write_table(table, tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet") == [
        Document("7", "A", "Eins."), Document("8", None, ""), Document("t.parquet:3", "C", "Drei."),
    ]  # fmt: skip
    assert [one.text for one in read(tmp_path / "t.parquet", text_column="title")] == ["A", "", "C"]
    only = pa.table({"n": [1], "words": pa.array(["Ein Satz."], pa.large_string())})
    pq.write_table(only, tmp_path / "u.parquet")  # the only column of texts
    assert [one.text for one in read(tmp_path / "u.parquet")] == ["Ein Satz."]


def test_passages_end_at_sentences_and_stand_where_they_say(tmp_path: Path) -> None:
    sentences = [f"Sentence number {i} says that Zürich has {i} 😀 bridges. " for i in range(60)]
    chinese = "第一座桥建于清代。" * 40
    given = [Document("a", "T", "".join(sentences)), Document("b", None, chinese), Document("c", None, " \n*** \n")]
    given.append(Document("d", None, "".join(sentences)))  # the same again

    store = PassageStore(made_once(tmp_path / "store", lambda folder: write_store(folder, given, 50)))
    passages = list(store)
    assert (store.counts.documents, store.counts.without_text, store.counts.passages) == (4, 1, len(store))
    assert {one.document for one in passages} == {"a", "b"}
    texts = {one.name: one.text for one in given}
    for one in passages:
        assert one.text == texts[one.document][one.start : one.end]
        assert one.text.endswith((".", "。")) and len(one.text.encode()) <= 300
    assert store.counts.repeated >= len([one for one in passages if one.document == "a"])
    again = made_once(tmp_path / "store", lambda folder: pytest.fail("is there already"))
    assert PassageStore(again)[1] == passages[1]


def test_rare_words_count_most_and_equal_passages_stay_in_order(tmp_path: Path) -> None:
    texts = ["The cat sat.", "The dog sat.", "A bird flew.", "The dog sat on it."] + [
        f"Stone {i} sat." for i in range(30)
    ]
    given = [Document(str(i), None, text) for i, text in enumerate(texts)]
    store = PassageStore(made_once(tmp_path / "store", lambda folder: write_store(folder, given, 50)))
    retriever = BM25(BM25Options())
    retriever.load(store, made_once(tmp_path / "index", lambda folder: retriever.build(store, folder)))
    dogs, sitting, none = retriever.search(["Where did the dog sit?", "sat", "Who?"], 3)
    assert [one.passage for one in dogs] == [1, 3]
    assert [one.passage for one in sitting] == [0, 1, 3]
    assert none == []
    assert all(0 < one.score < 1 for one in dogs)
    strict = BM25(BM25Options(least=0.9))
    strict.load(store, tmp_path / "index")
    assert strict.search(["dog"], 3) == [[]]


def test_prompts_in_memory(corpus: Path) -> None:
    asked = [Prompt(id="a", prompt="Which river flows through Rome?"), Prompt(id="b", prompt="Zorblaxia?")]
    rome, none = maskdpo.ground_prompts(asked, corpus=corpus, passages=1)
    assert "Tiber" in rome.passages[0]
    assert none == asked[1]
