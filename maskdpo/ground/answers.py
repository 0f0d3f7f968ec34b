"""The sentences of the answers to each prompt. The texts stay in their files, and are read when they are looked up."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path

from pydantic_core import from_json

from maskdpo.io import open_input, read_answers
from maskdpo.io.text import BOM
from maskdpo.schemas import WITHOUT_CLAIM, Prompt, Response
from maskdpo.text import fragment
from maskdpo.text.language import detect_language
from maskdpo.text.splitters import get_splitter


class AnswerSentences:
    """Where the answers to each prompt lie: in which file, at which byte."""

    def __init__(self, files: Sequence[BufferedReader]) -> None:
        self._files, self._splitter = files, get_splitter("markdown")
        self._places: dict[str, array[int]] = {}

    def add(self, prompt_id: str, file: int, begin: int) -> None:
        self._places.setdefault(prompt_id, array("Q")).extend((file, begin))

    def of(self, prompt: Prompt) -> list[str]:
        """All different sentences of the answers to a prompt that a judge would be asked about, in their order."""
        places = self._places.get(prompt.id, array("Q"))
        found: dict[str, None] = {}
        for file, begin in zip(places[::2], places[1::2], strict=True):
            self._files[file].seek(begin)
            row = from_json(self._files[file].readline().strip().removeprefix(BOM))
            answer = Response.model_validate({name: row[name] for name in Response.model_fields if name in row})
            text = answer.response
            spans = self._splitter.split(text, prompt.language or detect_language(text))
            for span in fragment.set_apart(spans, text, answer.finish_reason):
                if span.kind not in WITHOUT_CLAIM:
                    found.setdefault(text[span.start : span.end])
        return list(found)


@contextmanager
def open_answers(paths: Sequence[Path], prompts: Mapping[str, Prompt]) -> Iterator[AnswerSentences]:
    """The answers in these files, each of which is checked first.

    Raises:
        InputError: a line is no response, or there is no prompt for it.
    """
    with ExitStack() as stack:
        answers = AnswerSentences([stack.enter_context(open_input(path)) for path in paths])
        for number, path in enumerate(paths):
            with open_input(path) as lines:
                begins = _begins(lines)
                for answer in read_answers(path, Response, dict(prompts)):
                    answers.add(answer.prompt_id, number, next(begins))
        yield answers


def _begins(lines: BufferedReader) -> Iterator[int]:
    """Where the lines that are not blank begin."""
    begin = 0
    for line in lines:
        if line.strip():
            yield begin
        begin += len(line)
