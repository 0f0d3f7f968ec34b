"""The card says what is in the data and how it was made, and keeps what people have written."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_files import RecordFiles, make_files
from huggingface_hub import DatasetCard

from maskdpo.cli import main
from maskdpo.dataset.hub.card import BEGIN, END, read_agreement
from maskdpo.dataset.hub.figures import histogram
from maskdpo.dataset.hub.push import write_folder
from maskdpo.dataset.hub.settings import PushSettings
from maskdpo.errors import InputError, UserError
from maskdpo.io import read_records
from maskdpo.run_record import meta_file, sha256_of
from maskdpo.schemas import Annotation, Pair


@pytest.fixture
def files(tmp_path: Path) -> RecordFiles:
    return make_files(tmp_path / "in")


def settings_for(files: RecordFiles, **more: Any) -> PushSettings:
    return PushSettings(**{**files._asdict(), "repo": "me/facts", "license": "cc-by-4.0", **more})


def card_of(files: RecordFiles, folder: Path, **more: Any) -> str:
    write_folder(settings_for(files, **more), folder)
    return (folder / "README.md").read_text()


def head_of(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_where_files_lie_is_not_published(files: RecordFiles, tmp_path: Path) -> None:
    text = files.annotations.read_text()
    text = text.replace("org/model", "/data/me/small").replace("org/judge", "/data/me/big")
    files.annotations.write_text(text)
    record = json.loads(meta_file(files.annotations).read_text())
    record["command_line"] = "maskdpo annotate /data/me/p.jsonl --model /data/me/big --out=/data/me/a.jsonl"
    record["options"] |= {"model": "/data/me/big", "protocol": "/data/me/own"}
    meta_file(files.annotations).write_text(json.dumps(record))
    card = card_of(files, tmp_path / "out")
    assert "/data/me" not in card
    assert str(tmp_path) not in card
    assert "maskdpo annotate p.jsonl --model big --out=a.jsonl" in card
    answers = [a for file in (tmp_path / "out" / "annotations").iterdir() for a in read_records(file, Annotation)]
    assert {(answer.model, answer.judge and answer.judge.model) for answer in answers} == {("small", "big")}


def section(card: str, title: str) -> str:
    return card.split(f"## {title}\n")[1].split("\n## ")[0].strip()


def test_the_head_is_what_the_hub_reads(files: RecordFiles, tmp_path: Path) -> None:
    card = card_of(files, tmp_path / "out")
    head = head_of(card)
    assert DatasetCard(card).data.license == "cc-by-4.0"
    assert head["language"] == ["en", "zh"]
    assert head["size_categories"] == ["n<1K"]
    assert head["task_categories"] == ["text-generation", "text-classification"]
    assert {"dpo", "trl", "hallucination", "factuality", "mask-dpo"} <= set(head["tags"])
    assert [config["config_name"] for config in head["configs"]] == ["pairs", "annotations", "prompts"]
    assert head["configs"][0]["default"] is True
    assert head["configs"][2]["data_files"] == [
        {"split": "train", "path": "prompts/train-*.parquet"},
        {"split": "test", "path": "prompts/test-*.parquet"},
    ]
    rows = {info["config_name"]: sum(s["num_examples"] for s in info["splits"]) for info in head["dataset_info"]}
    assert rows == {"pairs": 20, "annotations": 40, "prompts": 20}


def test_figures_are_those_of_the_data(files: RecordFiles, tmp_path: Path) -> None:
    card = card_of(files, tmp_path / "out")
    labels = section(card, "Labels")
    # 4 Chinese and 16 English prompts, a good and a bad answer each; 0, 3 .. 18 have a sentence that was not judged
    assert "| en | org/model | 16 | 16 | 0 | 0 | 22 | 10 |" in labels
    assert "| zh | org/model | 4 | 4 | 0 | 0 | 4 | 4 |" in labels
    assert "Not judged: 14 of 80 sentences (17.50%): refused 6, unsure 8." in labels
    for label in ("no_hallucination", "contradictory", "unverifiable", "hallucination", "no_fact"):
        assert f"| `{label}` |" in labels
    assert "| llm | org/judge | - | single | abc123 | 1 | - | - | - | 1 | 40 |" in card
    row = json.loads(re.search(r"```json\n(.*?)\n```", card, re.DOTALL)[1])  # type: ignore[index]
    assert Pair.model_validate(row) == next(read_records(files.pairs, Pair))
    made = section(card, "How it was made")
    assert "maskdpo annotate prompts.jsonl --judge llm" in made
    assert '"test_size": 0.3' in made
    assert '{"maskdpo": "0.1.0"}' in made
    assert "not recorded: prompts.jsonl" in made
    assert 'load_dataset("me/facts", split="train")' in card
    assert "maskdpo train hub:me/facts" in card
    assert "arxiv.org/abs/2503.02846" in section(card, "Citation")


def test_what_left_no_pair_is_said_with_its_reason(files: RecordFiles, tmp_path: Path) -> None:
    meta = json.loads(meta_file(files.pairs).read_text())
    meta["counts"]["pairs"]["dropped"] = {"near_equal": 1234}
    meta["counts"]["answers"]["dropped"] = {"coverage": 7}
    meta_file(files.pairs).write_text(json.dumps(meta))
    made = section(card_of(files, tmp_path / "out"), "How it was made")
    assert "| answers | coverage | 7 |" in made
    assert "| pairs | near equal | 1,234 |" in made


def test_scores_are_bars_whose_length_is_their_number() -> None:
    lines = histogram({"chosen": {1.0: 10, 0.3: 5}, "rejected": {0.0: 20}})  # type: ignore[dict-item]
    shown = {tuple(line.split()[-3:]) if "#" in line else None for line in lines} - {None}
    assert shown == {
        ("chosen", "10", "#" * 20), ("chosen", "5", "#" * 10), ("rejected", "20", "#" * 40),
    }  # fmt: skip
    assert lines[6].startswith("0.3 to 0.4")
    assert lines[18].endswith("#" * 20)
    wide = histogram({"chosen": {7.0: 1}, "rejected": {-3.0: 1}})  # type: ignore[dict-item]
    assert wide[0].startswith("-3 to -2")
    assert wide[18].startswith("6 to 7")
    assert histogram({"chosen": {}, "rejected": {}}) == []  # type: ignore[dict-item]


def test_agreement_comes_from_evaluate(files: RecordFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gold = [json.loads(line) for line in files.annotations.read_text().splitlines()]
    for number, row in enumerate(gold):
        row.pop("judge")
        if number % 4 == 0:
            row["sentences"][0]["label"] = "contradictory"
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in gold))
    report = tmp_path / "agreement.json"
    evaluate = ["evaluate", str(files.annotations), "--gold", str(tmp_path / "gold.jsonl"), "--json", str(report)]
    monkeypatch.setattr("sys.argv", ["maskdpo", *evaluate])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    three = json.loads(report.read_text())["agreement"]["three_classes"]
    card = card_of(files, tmp_path / "out", agreement=report)
    kappa = three["figures"]["kappa"]
    assert 0 < kappa["value"] < 1
    assert f"| {kappa['value']:.3f} [{kappa['low']:.3f}, {kappa['high']:.3f}] |" in card
    assert (
        f"Against {three['gold_sentences']} sentences with human labels (gold.jsonl), {three['judged']} of them" in card
    )
    found = json.loads(report.read_text())
    assert found["annotations_sha256"] == sha256_of(files.annotations)
    old = {key: value for key, value in found.items() if key != "annotations_sha256"}
    for other in (old, found | {"annotations_sha256": sha256_of(files.pairs)}):
        report.write_text(json.dumps(other))
        with pytest.raises(
            InputError, match=r"agreement\.json: is not of annotations\.jsonl as it is now; make it with"
        ):
            card_of(files, tmp_path / "out2", agreement=report)
    assert not (tmp_path / "out2").exists()


@pytest.mark.parametrize("text", ["{}", "[]", '{"agreement": null}', "{", '{"agreement": {"three_classes": {}}}'])
def test_a_file_without_agreement_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json: holds no agreement with gold labels"):
        read_agreement(tmp_path / "a.json", tmp_path / "annotations.jsonl")
    with pytest.raises(InputError, match="no such file"):
        read_agreement(tmp_path / "b.json", tmp_path / "annotations.jsonl")


def test_what_people_wrote_and_added_stays(files: RecordFiles, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    card = card_of(files, folder)
    head = head_of(card) | {"annotations_creators": ["expert-generated"], "tags": ["mine"], "license": "mit"}
    head["configs"].append({"config_name": "gold", "data_files": "gold.jsonl"})
    body = "# Our facts\n\nWritten by hand.\n\n" + card[card.index(BEGIN) :] + "\n## Limits\n\nMany, 也很多.\n"
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n{body}")
    (folder / "gold.jsonl").write_text("{}\n")
    smaller = make_files(tmp_path / "smaller", prompts=6, test_size=0)
    again = card_of(smaller, folder)
    assert "# Our facts\n\nWritten by hand.\n\n<!-- maskdpo" in again
    assert again.endswith(f"{END}\n\n## Limits\n\nMany, 也很多.\n")
    assert again.count(BEGIN) == again.count(END) == 1
    found = head_of(again)
    assert found["annotations_creators"] == ["expert-generated"]
    assert found["tags"][:2] == ["mine", "maskdpo"]
    assert found["license"] == "cc-by-4.0"
    assert [config["config_name"] for config in found["configs"]] == ["pairs", "annotations", "prompts", "gold"]
    assert "No topics are held out." in again
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "README.md", "annotations/train-00000.parquet", "gold.jsonl", "pairs/train-00000.parquet",
        "prompts/train-00000.parquet",
    ]  # fmt: skip
    assert card_of(smaller, folder) == again


KEPT = """\
# who may use it
license: other  # ours
version: 1.10
language:
- no
- en
collected: 2024-02-30
codes: [0x1F, 012, 1_000, 12:30:45, ~, yes, .5]
quoted: 'no'

# what it is called
pretty_name: "Fakten: 1.10"
tags: [no, 1.10, 'mask-dpo', 2024-01-01]
configs:
- config_name: no
  version: 1.10
  released: on
folded: >
  one
  # no comment

  two

# the end
"""
"""What YAML 1.1 takes for booleans, numbers and dates; comments; a day that does not exist."""


def test_a_head_stays_to_the_letter(files: RecordFiles, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "README.md").write_text(f"---\n{KEPT}---\n{BEGIN}\n{END}\n")
    card = card_of(files, folder)
    head = card.split("---\n")[1]
    ours = ("license", "language", "- no", "- en", "tags", "configs", "- config_name", "  version", "  released")
    assert [line for line in KEPT.splitlines() if line not in head.splitlines() and not line.startswith(ours)] == []
    assert head.startswith(
        "# who may use it\nlicense: cc-by-4.0\nversion: 1.10\nlanguage:\n- no\n- en\n- zh\ncollected:"
    )
    assert "tags:\n- no\n- 1.10\n- 'mask-dpo'\n- 2024-01-01\n- maskdpo\n- dpo\n" in head
    assert "- config_name: no\n  version: 1.10\n  released: on\n" in head
    assert "  one\n  # no comment\n\n  two\n\n# the end\n" in head
    assert card_of(files, folder) == card


def test_a_head_on_one_line_is_kept_too() -> None:
    from maskdpo.hub.card import join_card, split_card
    from maskdpo.hub.header import set_value

    head, body = split_card("---\n{license: no, version: 1.10, tags: [a, 'b']}\n---\nText.\n")
    set_value(head, "license", "mit")
    assert join_card(head, body) == "---\nlicense: mit\nversion: 1.10\ntags: [a, 'b']\n---\nText.\n"


def test_a_card_without_marks_gets_the_generated_part_at_its_end(files: RecordFiles, tmp_path: Path) -> None:
    from maskdpo.dataset.hub.card import _place
    from maskdpo.hub.card import split_card

    head, body = split_card("---\r\nlicense: mit\r\n---\r\n# Mine\r\n\r\nText.\r\n")
    assert {key: part.text for key, part in head.items()} == {"license": "license: mit\n"}
    assert _place(body, "G\n", title="T") == "# Mine\n\nText.\n\nG\n"
    assert _place("", "G\n", title="T") == "# T\n\nG\n"
    for broken in (f"a {BEGIN} b", f"a {END} b", f"{END} {BEGIN}"):
        with pytest.raises(InputError, match="one of the two marks"):
            _place(broken, "G\n", title="T")
    with pytest.raises(InputError, match="cannot be read"):
        split_card("---\n: [\n---\n")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"configs: [a]", "README.md: configs: must be a list of mappings in the YAML"),
        (b"dataset_info: 3", "README.md: dataset_info: must be a list of mappings in the YAML"),
        (b"tags: [{a: b}]", "README.md: tags: must be a list of texts in the YAML"),
        (
            b"licence: &a mit\ntags: [&b x]\nother: *b",
            "README.md: the YAML cannot be kept as it is (found undefined alias",
        ),
        (b"x: 1\ny: 2\nx: 3", "README.md: x: is there twice in the YAML; delete one of the two"),
        (b"task_categories: {a: b}", "README.md: task_categories: must be a list of texts in the YAML"),
        (b"pretty_name: caf\xe9", "README.md: is not UTF-8 text; save it as UTF-8"),
    ],
)
def test_a_head_that_is_not_what_it_should_be_is_named(
    head: bytes, message: str, files: RecordFiles, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "README.md").write_bytes(b"---\n" + head + f"\n---\n{BEGIN}\n{END}\n".encode())
    with pytest.raises(InputError) as caught:
        card_of(files, folder)
    assert str(caught.value).removeprefix(f"{folder}/").startswith(message)
    assert [path.name for path in folder.iterdir()] == ["README.md"]


def test_a_run_that_is_killed_leaves_no_old_card_beside_new_data(
    files: RecordFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    card = card_of(files, folder).replace("# facts\n", "# Facts\n\nBy hand.\n")
    (folder / "README.md").write_text(card)
    smaller = make_files(tmp_path / "smaller", prompts=6, test_size=0)
    moved = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.name == "annotations":
            raise KeyboardInterrupt
        return moved(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", killed)
        card_of(smaller, folder)
    assert not (folder / "README.md").exists()
    assert "# Facts\n\nBy hand.\n" in card_of(smaller, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "annotations", "pairs", "prompts"]


def test_text_of_the_data_breaks_no_table_and_no_mark(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in")
    for file in (files.annotations, files.pairs):
        text = file.read_text().replace("org/model", "a|b`<b>").replace("Where is", f"``` {END} Where is")
        file.write_text(text.replace('"temperature"', '"x|y"'))
    card = card_of(files, tmp_path / "out")
    assert card.count(END) == 1
    assert r"| en | a\|b\`&lt;b> |" in card
    assert "\n````json\n" in card
    assert card_of(files, tmp_path / "out") == card


def test_an_unfinished_run_is_not_published_and_other_inputs_are_said(
    files: RecordFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with files.prompts.open("a") as prompts:
        prompts.write('{"id": "new", "prompt": "?"}\n')
    card = card_of(files, tmp_path / "out")
    assert "warning: pairs.jsonl was made from other prompts than those in prompts.jsonl" in capsys.readouterr().err
    assert "Note: pairs.jsonl was made from other prompts than those in prompts.jsonl." in card
    meta = json.loads(meta_file(files.annotations).read_text())
    meta_file(files.annotations).write_text(json.dumps(meta | {"status": "running"}))
    with pytest.raises(UserError, match=r"annotations\.jsonl: the run that makes it is not finished"):
        card_of(files, tmp_path / "out2")


def test_a_dry_run_touches_no_folder_of_others(files: RecordFiles, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "README.md").write_text("my project")
    with pytest.raises(InputError, match="no dataset folder of maskdpo"):
        card_of(files, folder)
    assert [path.name for path in folder.iterdir()] == ["README.md"]
    with pytest.raises(UserError, match=r"`repo` a b: Repo id must use alphanumeric"):
        write_folder(settings_for(files, repo="a b"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["datasets", "huggingface_hub"])
def test_a_missing_package_is_named(
    package: str, files: RecordFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(UserError, match=rf"maskdpo push needs the package {package}\. .*pip install 'maskdpo\[hub\]'"):
        card_of(files, tmp_path / "out")
