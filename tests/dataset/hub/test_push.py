"""Push to a stand-in of the Hub and read back, with the real clients of the Hub in processes of their own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forking import Done, Forks
from hub_files import RecordFiles, make_files
from hub_server import READER, WRITER, Fault, Hub, Repo, serve

from maskdpo.dataset import write
from maskdpo.io import read_records, write_records
from maskdpo.schemas import Pair, Prompt

pytestmark = pytest.mark.slow


class Place:
    """Where all Hubs of these tests are, one after the other, and a process that has imported their clients.

    The clients read the address of the Hub, and where their caches lie, when they are imported.
    """

    def __init__(self, folder: Path) -> None:
        with serve() as hub:
            url = hub.url
        self.port, self.home = int(url.rpartition(":")[2]), folder / "home"
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        self.env = clean | {
            "HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(self.home), "HF_TOKEN": WRITER,
            "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        modules = (
            "maskdpo.application",
            "maskdpo.dataset.hub.push",
            "maskdpo.hub.client",
            "datasets",
            "pyarrow.parquet",
        )
        self.forks = Forks(*modules, env=self.env)


class World:
    """The Hub, a folder, and what a user types."""

    def __init__(self, hub: Hub, folder: Path, place: Place) -> None:
        self.hub, self.folder, self.env, self.forks = hub, folder, place.env, place.forks

    def maskdpo(self, *arguments: str, **env: str | None) -> Done:
        wanted = {key: value for key, value in (self.env | env).items() if value is not None}
        if env.keys() <= {"HF_TOKEN"}:
            done = self.forks.run("maskdpo.cli:main", argv=["maskdpo", *arguments], cwd=self.folder, env=wanted)
        else:
            run = subprocess.run(
                [sys.executable, "-m", "maskdpo", *arguments],
                env=wanted, cwd=self.folder, capture_output=True, text=True, check=False,
            )  # fmt: skip
            done = Done(run.returncode, run.stdout, run.stderr)
        assert WRITER not in done.out + done.err
        return done

    def python(self, code: str) -> None:
        done = self.forks.run("forking:run_code", code, cwd=self.folder, env=self.env)
        assert done.code == 0, done.err

    def push(
        self, files: RecordFiles, *more: str, repo: str = "me/facts", license: str = "cc-by-4.0", **env: str | None
    ) -> Done:
        return self.maskdpo("push", *files.arguments, "--repo", repo, "--license", license, *more, **env)

    def pushes(self, files: RecordFiles, *more: str, repo: str = "me/facts") -> Done:
        done = self.push(files, *more, repo=repo)
        assert done.code == 0, done.err
        return done

    def refuses(self, files: RecordFiles, *more: str, repo: str = "me/facts", **env: str | None) -> str:
        """The one line that says why a push did not happen."""
        done = self.push(files, *more, repo=repo, **env)
        assert done.code == 2, done
        assert "Traceback" not in done.err
        (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
        return line.removeprefix("error: ")

    def check(self, code: str) -> None:
        self.python(f"import datasets\n{code}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("place"))
    yield place
    place.forks.stop()


@pytest.fixture
def world(place: Place, tmp_path: Path) -> Iterator[World]:
    """Nothing is in the caches yet."""
    shutil.rmtree(place.home, ignore_errors=True)
    with serve(place.port) as hub:
        yield World(hub, tmp_path, place)


@pytest.fixture
def files(tmp_path: Path) -> RecordFiles:
    return make_files(tmp_path / "in")


def test_what_was_pushed_loads_everywhere_and_reads_back_the_same(world: World, files: RecordFiles) -> None:
    done = world.pushes(files, repo="facts")
    assert "push -> me/facts (private)" in done.out
    assert world.hub.repos["me/facts"].private
    assert world.hub.commits("me/facts") == 2  # the Hub's own first one, and one with all
    assert sorted(world.hub.files("me/facts")) == [
        ".gitattributes", "README.md", "annotations/test-00000.parquet", "annotations/train-00000.parquet",
        "pairs/test-00000.parquet", "pairs/train-00000.parquet", "prompts/test-00000.parquet",
        "prompts/train-00000.parquet",
    ]  # fmt: skip
    assert not any(WRITER.encode() in content for content in world.hub.files("me/facts").values())
    pairs = [pair.model_dump(mode="json") for pair in read_records(files.pairs, Pair)]
    for pair in pairs:  # as in the column, which is text: it would be another one in each dataset
        pair["template_options"] = pair["template_options"] and json.dumps(
            pair["template_options"], separators=(",", ":")
        )
    prompts = [prompt.model_dump(mode="json") for prompt in read_records(files.prompts, Prompt)]
    (world.folder / "want.json").write_text(json.dumps([pairs, {p["id"]: p["meta"] for p in prompts}]))
    world.check(
        "import json\n"
        "pairs, metas = json.load(open('want.json'))\n"
        "default = datasets.load_dataset('me/facts')\n"
        "assert list(default) == ['train', 'test']\n"
        "assert default['train'].to_list() == pairs\n"
        "text = {'role': datasets.Value('string'), 'content': datasets.Value('string')}\n"
        "assert all(default['train'].features[c] == datasets.List(text) for c in ('prompt', 'chosen', 'rejected'))\n"
        "answers = datasets.load_dataset('me/facts', 'annotations')\n"
        "assert answers['train'].num_rows + answers['test'].num_rows == 40\n"
        "rows = [row for part in datasets.load_dataset('me/facts', 'prompts').values() for row in part]\n"
        "assert {row['id']: json.loads(row['meta']) for row in rows} == metas\n"
        "stream = datasets.load_dataset('me/facts', split='train', streaming=True)\n"
        "assert list(stream) == pairs\n"
    )
    valid = world.maskdpo("validate", "hub:me/facts:annotations:test", "--prompts", "hub:me/facts:test")
    assert valid.code == 0, valid.err
    assert "valid annotation records │    12 │" in valid.out
    figures = world.folder / "figures.json"
    evaluated = world.maskdpo("evaluate", "hub:me/facts", "--prompts", "hub:me/facts", "--json", str(figures))
    assert evaluated.code == 0, evaluated.err
    assert json.loads(figures.read_text())["summary"]["answers"] == 28


def test_reasoning_and_how_an_answer_was_prompted_come_back_from_the_hub(world: World, files: RecordFiles) -> None:
    more = {"chosen_reasoning": "Hm.", "template_options": {"effort": "low"}, "prompt_date": "2026-01-31"}
    for file in (files.pairs, write.test_file(files.pairs)):
        rows = [json.loads(line) | more for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    world.pushes(files, repo="facts")
    world.python(
        "import datetime\n"
        "from pathlib import Path\n"
        "from maskdpo.io import read_records\n"
        "from maskdpo.schemas import Annotation, Pair\n"
        "pairs = list(read_records(Path('hub:me/facts:pairs'), Pair))\n"
        f"assert pairs == list(read_records(Path({str(files.pairs)!r}), Pair))\n"
        "assert {p.prompt_date for p in pairs} == {datetime.date(2026, 1, 31)}\n"
        "answers = list(read_records(Path('hub:me/facts:annotations'), Annotation))\n"
        "assert {a.reasoning is None for a in answers} == {True, False}\n"
    )


def test_commands_read_the_hub_and_record_its_commit(world: World, files: RecordFiles) -> None:
    world.pushes(files)
    sha = world.hub.repos["me/facts"].commits[-1][0]
    old = world.hub.repos["me/facts"].commits[0][0]
    built = world.maskdpo(
        "build-pairs",
        "hub:me/facts",
        "hub:me/facts",
        "--out",
        "again.jsonl",
        "--test-size",
        "0",
        "--min-coverage",
        "0.5",
    )
    assert built.code == 0, built.err
    again = list(read_records(world.folder / "again.jsonl", Pair))
    assert again == list(read_records(files.pairs, Pair))
    assert json.loads((world.folder / "again.jsonl.meta.json").read_text())["inputs"] == {
        "prompts": f"hub:me/facts@{sha}:prompts",
        "annotations": f"hub:me/facts@{sha}:annotations",
    }
    judged = world.maskdpo(
        "annotate", "hub:me/facts", "hub:me/facts", "--judge", "lexical", "--out", "judged.jsonl"
    )  # published answers, judged anew
    assert judged.code == 0, judged.err
    assert len((world.folder / "judged.jsonl").read_text().splitlines()) == 28
    for name, message in (
        ("hub:me/nothing", "hub:me/nothing: no such repository, or it is private and this token may not see it"),
        ("hub:me/facts@v9", "hub:me/facts@v9: no such revision"),
        (f"hub:me/facts@{old}", f"hub:me/facts@{old}: holds no pairs/train-*.parquet"),
    ):
        done = world.maskdpo("validate", name)
        assert (done.code, done.err.strip()) == (2, f"error: {message}")
    hidden = world.maskdpo("validate", "hub:me/facts", HF_TOKEN=READER)
    assert "hub:me/facts: no such repository, or it is private" in hidden.err


def test_a_bad_row_on_the_hub_is_named_by_its_file_and_row(world: World, files: RecordFiles) -> None:
    world.pushes(files)
    sha = world.hub.repos["me/facts"].commits[-1][0]
    bad = world.folder / "bad.parquet"
    write_records(bad, [Prompt(id="a", prompt="?"), Prompt.model_construct(id="", prompt="?")])
    for path in list(world.hub.files("me/facts")):
        if path.startswith("prompts/train"):
            world.hub.files("me/facts")[path] = bad.read_bytes()
    done = world.maskdpo("validate", "hub:me/facts:prompts")
    assert done.code == 2
    where = f"hub:me/facts@{sha[:8]}/prompts/train-00000.parquet:2"
    assert f"error: {where}: id: String should have at least 1 character" in done.err


def test_pushing_again_commits_what_differs_and_nothing_else(world: World, files: RecordFiles) -> None:
    world.pushes(files)
    again = world.pushes(files)
    assert "nothing has changed, so there is no commit" in again.err
    assert world.hub.commits("me/facts") == 2
    world.hub.files("me/facts")["gold.jsonl"] = b"{}\n"
    uploads = world.hub.uploads()
    smaller = make_files(world.folder / "in", prompts=20, test_size=0)
    assert "3 old ones deleted" in world.pushes(smaller).err
    assert world.hub.commits("me/facts") == 3
    assert world.hub.uploads() == uploads + 3
    assert sorted(world.hub.files("me/facts")) == [
        ".gitattributes", "README.md", "annotations/train-00000.parquet", "gold.jsonl", "pairs/train-00000.parquet",
        "prompts/train-00000.parquet",
    ]  # fmt: skip
    world.check("assert datasets.load_dataset('me/facts')['train'].num_rows == 20")


def test_what_people_write_on_the_hub_survives(world: World, files: RecordFiles) -> None:
    world.pushes(files)
    card = world.hub.files("me/facts")["README.md"].decode()
    edited = card.replace("# facts\n", "# Facts\n\nBy hand.\n").replace(
        "license:", "annotations_creators: [me]\nlicense:"
    )
    assert edited != card
    world.hub.files("me/facts")["README.md"] = edited.encode() + b"\nAfter.\n"
    world.pushes(make_files(world.folder / "in", prompts=8))
    card = world.hub.files("me/facts")["README.md"].decode()
    assert "# Facts\n\nBy hand.\n" in card
    assert "annotations_creators: [me]\n" in card
    assert card.endswith("\nAfter.\n")
    assert "8 topics" not in card
    assert "4 topics." in card


def test_a_card_on_the_hub_that_cannot_be_read_is_named(world: World, files: RecordFiles) -> None:
    world.pushes(files)
    there, repo = world.hub.files("me/facts"), world.hub.repos["me/facts"]
    card = there["README.md"]
    repo.commit(there | {"README.md": card + b"caf\xe9\n"})
    assert world.refuses(files) == "hub:me/facts: README.md: is not UTF-8 text; save it as UTF-8"
    repo.commit(there | {"README.md": b"---\nconfigs: [a]\n" + card[card.index(b"---", 3) :]})
    assert world.refuses(files).startswith("README.md: configs: must be a list of mappings in the YAML")


@pytest.mark.parametrize(("status", "message"), [(503, "the Hub answered 503"), (None, "the Hub cannot be reached")])
def test_a_push_that_fails_at_the_commit_changes_nothing_and_can_be_repeated(
    status: int | None, message: str, world: World, files: RecordFiles
) -> None:
    world.hub.faults.append(Fault("POST", "/commit/main", status))
    said = world.refuses(files)
    assert said.startswith(f"pushing to me/facts: {message}")
    assert said.endswith("repeat the command")
    assert sorted(world.hub.files("me/facts")) == [".gitattributes"]
    uploads = world.hub.uploads()
    assert uploads == 6
    world.pushes(files)
    assert world.hub.uploads() == uploads  # what lay there already is not sent again
    assert world.hub.commits("me/facts") == 2
    world.check("assert datasets.load_dataset('me/facts', split='test').num_rows == 6")


def test_passing_faults_are_waited_for(world: World, files: RecordFiles) -> None:
    faults = [Fault("POST", "/preupload/", 429), Fault("POST", "/objects/batch", 503), Fault("PUT", "/lfs/", None)]
    world.hub.faults += faults
    world.pushes(files)
    assert [fault.times for fault in faults] == [0, 0, 0]
    assert world.hub.commits("me/facts") == 2


def test_a_change_in_between_is_not_run_over(world: World, files: RecordFiles) -> None:
    world.pushes(files)
    repo = world.hub.repos["me/facts"]

    def edit() -> None:
        card = repo.commits[-1][1]["README.md"] + b"\nEdited meanwhile.\n"
        repo.commit(repo.commits[-1][1] | {"README.md": card})

    world.hub.faults.append(Fault("POST", "/preupload/", 0, before=edit))
    changed = make_files(world.folder / "in", prompts=8)
    said = world.refuses(changed)
    assert said == "pushing to me/facts: someone has changed the repository meanwhile (412); repeat the command"
    assert len(repo.commits) == 3
    world.pushes(changed)
    assert b"Edited meanwhile." in world.hub.files("me/facts")["README.md"]


def test_who_may_not_push_is_told_so(world: World, files: RecordFiles) -> None:
    nobody = world.refuses(files, HF_TOKEN=None)
    assert nobody == "--repo me/facts: no token; set HF_TOKEN or log in with: hf auth login"
    wrong = world.refuses(files, HF_TOKEN="hf_wrongwrongwrongwrong")
    assert wrong == "--repo me/facts: the token is not valid; set HF_TOKEN or log in with: hf auth login"
    rights = "the token has no right to do this (403); it needs write access to this account or organisation"
    assert world.refuses(files, HF_TOKEN=READER) == f"creating me/facts: {rights}"
    world.pushes(files, "--public")
    assert not world.hub.repos["me/facts"].private
    other = make_files(world.folder / "other", prompts=8)
    assert world.refuses(other, HF_TOKEN=READER) == f"pushing to me/facts: {rights}"
    assert world.hub.commits("me/facts") == 2


def test_what_cannot_be_reached_or_named_is_told_so(world: World, files: RecordFiles) -> None:
    said = world.refuses(files, HF_ENDPOINT="http://127.0.0.1:9")
    assert said.startswith("--repo me/facts: the Hub cannot be reached (")
    offline = world.refuses(files, HF_HUB_OFFLINE="1")
    assert offline == "--repo me/facts: the Hub may not be asked, HF_HUB_OFFLINE is set"
    assert world.refuses(files, repo="me/a b").startswith("--repo me/a b: Repo id must use alphanumeric chars")
    licence = world.push(files, license="cc-by-9.0")
    assert licence.code == 2
    assert 'error: pushing to me/facts: Invalid metadata in README.md. - "license" must be one of' in licence.err


def test_columns_of_a_published_dataset_change_only_if_that_is_meant(world: World, files: RecordFiles) -> None:
    world.pushes(files, "--private")
    raw = make_files(world.folder / "raw", raw=True)
    said = world.refuses(raw)
    assert said == (
        "me/facts has other columns in pairs (chosen has another type, prompt has another type, rejected has another "
        "type); push to another name, or replace them with --overwrite-schema"
    )
    public = world.refuses(files, "--public")
    assert public.startswith("me/facts is private already, and --private is for new datasets only")
    assert world.hub.commits("me/facts") == 2
    world.pushes(raw, "--overwrite-schema")
    world.check("assert datasets.load_dataset('me/facts')['train'].features['chosen'] == datasets.Value('string')")
    repo = world.hub.repos["me/facts"]
    repo.commit({"README.md": b"# Mine\n", "data/train.csv": b"a,b\n"})
    said = world.refuses(files)
    assert said.startswith("me/facts holds data that maskdpo did not push (data/train.csv); push to another name")


def test_a_folder_of_a_dry_run_is_what_is_pushed_and_reads_the_same(world: World, files: RecordFiles) -> None:
    done = world.push(files, "--dry-run", "out", HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN=None)
    assert done.code == 0, done.err
    world.pushes(files)
    pushed = {path: content for path, content in world.hub.files("me/facts").items() if path != ".gitattributes"}
    folder = world.folder / "out"
    written = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert written == pushed
    world.check("assert datasets.load_dataset('out', 'annotations')['test'].num_rows == 12")
    assert list(read_records(folder, Pair)) == list(read_records(files.pairs, Pair))
    valid = world.maskdpo("validate", "out", "--prompts", "out")
    assert "valid pair records │    14 │" in valid.out
    (folder / "annotations" / "train-00000.parquet").write_bytes(b"PAR1 not really")
    broken = world.maskdpo("evaluate", "out")
    assert broken.code == 2
    assert broken.err.startswith("error: out/annotations/train-00000.parquet: cannot be read as Parquet")


def test_help_loads_neither_datasets_nor_pyarrow() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom maskdpo.application import app\n"
        "assert CliRunner().invoke(app, ['push', '--help']).exit_code == 0\n"
        "print([m for m in ('datasets', 'huggingface_hub', 'pyarrow', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done


@pytest.mark.parametrize(("status", "message"), [(410, "the Hub answered 410"), (None, "the Hub cannot be reached")])
def test_a_file_that_cannot_be_fetched_is_named(
    status: int | None, message: str, world: World, files: RecordFiles
) -> None:
    world.pushes(files)
    world.hub.faults.append(Fault("HEAD", "/resolve/", status, times=99))
    done = world.maskdpo("validate", "hub:me/facts")
    assert done.code == 2
    last = done.err.splitlines()[-1]
    assert last.startswith(f"error: hub:me/facts: pairs/train-00000.parquet: {message}")
    world.hub.faults.clear()
    assert world.maskdpo("validate", "hub:me/facts").code == 0
    unreachable = world.maskdpo("validate", "hub:me/facts", HF_ENDPOINT="http://127.0.0.1:9")
    assert unreachable.err.startswith("error: hub:me/facts: the Hub cannot be reached (")


def test_a_dataset_of_somebody_else_becomes_prompts(world: World, tmp_path: Path) -> None:
    rows = b"question,context\nWho?,She.\nWhen?,In 1815.\n"
    repo = Repo(private=False)
    repo.commit({"README.md": b"-", "data/train.csv": rows, "data/validation.jsonl": b'{"question": "Why?"}\n'})
    world.hub.repos["you/quiz"] = repo
    line = ["--format", "prompts", "--columns", "prompt=question", "--out", str(tmp_path / "p.jsonl")]
    assert "prompt records │     2" in world.maskdpo("import", "hub:you/quiz", *line).out
    assert "prompt records │     1" in world.maskdpo("import", "hub:you/quiz:validation", *line).out
    assert [prompt.prompt for prompt in read_records(tmp_path / "p.jsonl", Prompt)] == ["Why?"]
    record = json.loads((tmp_path / "p.jsonl.meta.json").read_text())
    assert record["inputs"]["records"].startswith("hub:you/quiz@")
    refused = world.maskdpo("validate", "hub:you/quiz:prompts")
    assert "holds no prompts/train-*.parquet; `maskdpo import FILE --format prompts" in " ".join(refused.err.split())
    repo.commit({"a/train.csv": rows, "b/train.csv": rows})
    assert "has several tables of the split train: a/train.csv, b/train.csv" in " ".join(
        world.maskdpo("import", "hub:you/quiz", *line).err.split()
    )
    assert "prompt records │     2" in world.maskdpo("import", "hub:you/quiz/b", *line).out
    nothing = world.maskdpo("import", "hub:you/quiz/c", *line)  # not the files of another folder
    assert (nothing.code, "has no file of the split train" in nothing.err) == (2, True)


def test_documents_on_the_hub_are_a_corpus(world: World, tmp_path: Path) -> None:
    repo = Repo(private=False)
    lines = b'{"id": "tiber", "text": "The Tiber flows through Rome."}\n'
    repo.commit({"README.md": b"# Rivers", "en/rivers.jsonl": lines, "fr/a.txt": b"La Seine traverse Paris."})
    world.hub.repos["you/rivers"] = repo
    world.env = world.env | {"MASKDPO_CACHE": str(tmp_path / "cache")}
    (tmp_path / "p.jsonl").write_text('{"id": "a", "prompt": "What flows through Rome?"}\n')
    line = ["ground", "p.jsonl", "--out", "o.jsonl", "--corpus"]
    done = world.maskdpo(*line, "hub:you/rivers")
    assert "passages to look through            │     2" in done.out, done.err  # the card is no document
    assert world.maskdpo(*line, "hub:you/rivers/en", "--restart").code == 0
    (prompt,) = read_records(tmp_path / "o.jsonl", Prompt)
    assert prompt.sources is not None and prompt.sources[0] is not None
    assert (prompt.sources[0].document, prompt.passages) == ("tiber", ["The Tiber flows through Rome."])
    record = json.loads((tmp_path / "o.jsonl.meta.json").read_text())
    assert record["inputs"]["corpus"] == f"hub:you/rivers/en@{repo.commits[-1][0]}"
    assert "holds no files" in world.maskdpo(*line, "hub:you/rivers/de", "--restart").err
    assert "a corpus has no splits" in world.maskdpo(*line, "hub:you/rivers:test", "--restart").err
