"""``maskdpo annotate --dry-run``: what judging the answers would take, without asking a model."""

from collections.abc import Iterator

from maskdpo.annotate.judges.llm import LLMJudge
from maskdpo.annotate.settings import AnnotateSettings
from maskdpo.annotate.tasks import tasks_of
from maskdpo.backends.forecast import Forecast, drawn, forecast
from maskdpo.errors import UserError
from maskdpo.io import files_of, read_answers, read_prompts
from maskdpo.run_inputs import refuse_other_part
from maskdpo.schemas import Prompt, Response
from maskdpo.shard import in_shard


def forecast_annotate(settings: AnnotateSettings) -> Forecast:
    """What ``annotate`` would take for its whole input, whatever its output holds already.

    Every question is counted with all its turns, and without the replies of earlier turns.

    Raises:
        UserError: the judge is not ``llm``, so that nothing is known of what it asks.
    """
    refuse_other_part(files_of(settings.responses), settings.shard)
    settings = settings.but(workers=settings.workers and 1)  # it only says how long the context of its model is
    judge, splitter = settings.make_judge(), settings.make_splitter()
    if not isinstance(judge, LLMJudge):
        raise UserError(f"`dry_run` forecasts the calls of `judge` llm, and {settings.judge} tells of none")
    prompts = read_prompts(settings.prompts)
    total = sum(1 for _ in _answers(settings, prompts))
    wanted = set(drawn(range(total)))
    part = [answer for i, answer in enumerate(_answers(settings, prompts)) if i in wanted]
    asked = [answer for answer in part if any(passage.strip() for passage in prompts[answer.prompt_id].passages)]
    requests = judge.requests(tasks_of(asked, prompts, splitter))
    return forecast(requests, judge.backend, settings, records=total, counted=len(part))


def _answers(settings: AnnotateSettings, prompts: dict[str, Prompt]) -> Iterator[Response]:
    """The answers to label, one by one."""
    shard = settings.shard
    answers = read_answers(settings.responses, Response, prompts, settings.limit, may_be_empty=shard is not None)
    return in_shard(answers, shard, lambda answer: answer.prompt_id)
