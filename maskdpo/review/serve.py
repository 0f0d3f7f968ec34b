"""``maskdpo review``: reads the inputs, chooses the sentences and serves the page until it is ended."""

import hashlib
import json
import secrets
import signal
import socket
import webbrowser
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from urllib.parse import quote

from maskdpo import extras
from maskdpo.console import say, warn
from maskdpo.errors import UserError
from maskdpo.io import read_answers, read_prompts, refuse_overwriting
from maskdpo.io.lock import sole_writer
from maskdpo.review.addresses import LOOPBACK_NAMES, in_url, is_loopback, names_of
from maskdpo.review.others import Others
from maskdpo.review.queue import ReviewQueue, candidates, make_queue
from maskdpo.review.session import Session
from maskdpo.review.settings import ReviewSettings
from maskdpo.run_record import meta_file, refuse_replacing
from maskdpo.schemas import Annotation, Decision, group_of
from maskdpo.stage_run import Run
from maskdpo.verdicts.people import standing

PORTS = range(20_000, 45_000)
"""Ports that no system hands out by itself."""
INSTALL = "'maskdpo[review]'"


def review(settings: ReviewSettings) -> dict[str, int]:
    """Serve the page until Ctrl-C. Returns how many sentences of the queue are decided, by group, skipped, and left.

    Raises:
        UserError: bad input; an output of another queue, or one to which the same reviewer writes already; the port is
            taken; or Starlette or uvicorn are not installed.
    """
    for package in ("starlette", "uvicorn"):
        extras.require(package, install=INSTALL, purpose="maskdpo review")
    from maskdpo.review.server import make_app

    if (settings.queue == "disagreement") != bool(settings.against):
        raise UserError("`queue` disagreement and `against` go together: it says with whose labels to compare")
    refuse_overwriting(settings.out, settings.annotations, settings.prompts, *settings.against)
    refuse_replacing(settings.out, "review", only_own=True)
    with _sole_reviewer(settings), _listening(settings) as listener:
        session, run = open_session(settings)
        run.begin()
        token = secrets.token_urlsafe(24)
        port = listener.getsockname()[1]
        names, any_address = names_of(settings.host), not is_loopback(settings.host)
        url = f"http://{in_url(names[0])}:{port}/#{token}"
        _say_where(settings, session.queue, url)
        app = make_app(session, token, LOOPBACK_NAMES.union(names), any_address=any_address)
        _serve(app, listener, (lambda: webbrowser.open(url)) if settings.browser else None)
        run.finish(counts_of_file(session), outputs=())  # the file goes on growing, under the hands of others too
    return counts_of(session, session.acts)


def open_session(settings: ReviewSettings) -> tuple[Session, Run]:
    """The queue that the settings ask for, with what the reviewer has decided of it so far."""
    prompts = read_prompts(settings.prompts)
    inputs = {"annotations": settings.annotations, "prompts": settings.prompts}
    inputs |= {f"against{i or ''}": file for i, file in enumerate(settings.against)}
    options = {name: getattr(settings, name) for name in ("queue", "limit", "seed")} | {"blind": settings.blind_share}
    hint = "The probabilities of a queue hold for that queue alone: use another `out` for another one"
    run = Run(meta_file(settings.out), "review", options, inputs, restart=hint)
    others = Others(settings.against) if settings.against else None
    population = candidates(read_answers(settings.annotations, Annotation, prompts), prompts, others)
    queue = make_queue(settings.queue, population, limit=settings.limit, blind=settings.blind_share, seed=settings.seed)
    wanted = {one.answer_id for one in queue.chosen}
    answers = [one for one in read_answers(settings.annotations, Annotation, prompts) if one.id in wanted]
    decides = [run.meta.options, run.meta.inputs, str(settings.out.resolve()), settings.reviewer]
    name = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]
    return Session(name, settings.reviewer, queue, answers, prompts, settings.out, others), run


def counts_of(session: Session, acts: Sequence[Decision]) -> dict[str, int]:
    """The sentences that a reviewer with these acts has decided, by group; those skipped; and those that are left."""
    groups = Counter(group_of(one.label) if one.label else "skipped" for one in standing(acts))
    counts = {name: groups[name] for name in ("right", "wrong", "no_fact", "skipped")}
    return counts | {"left": session.left(acts)}


def counts_of_file(session: Session) -> dict[str, int]:
    """This reviewer and the others in the file: how many they are, and the sums of their counts."""
    by_reviewer: dict[str, list[Decision]] = {session.reviewer: []}
    for one in session.in_file():
        by_reviewer.setdefault(one.reviewer, []).append(one)
    counts = [counts_of(session, acts) for acts in by_reviewer.values()]
    return {"reviewers": len(counts)} | {name: sum(each[name] for each in counts) for name in counts[0]}


@contextmanager
def _sole_reviewer(settings: ReviewSettings) -> Iterator[None]:
    """Others may write to the file at the same time, but not the same reviewer from two servers."""
    name = quote(settings.reviewer, safe=" ")
    if len(name) > 60:  # names of files have their limit
        name = hashlib.sha256(name.encode()).hexdigest()[:16]
    with sole_writer(settings.out.with_name(f"{settings.out.name} of {name}")):
        yield


@contextmanager
def _listening(settings: ReviewSettings) -> Iterator[socket.socket]:
    """A socket at the port. Without one in the settings it is the same for the same file and reviewer, if it is free:
    a page that is still open then finds the server again."""
    place = zlib.crc32(f"{settings.out.resolve()}\n{settings.reviewer}".encode())
    ports = [settings.port] if settings.port else [PORTS[(place + i) % len(PORTS)] for i in range(20)]
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, None, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError(f"`host` {settings.host}: {error.strerror or error}") from None
    problem = ""
    for port in ports:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address[0], port))
        except OSError as error:
            listener.close()
            problem = f"`host` {settings.host}, `port` {port}: {error.strerror}"
            continue
        with listener:
            yield listener
        return
    raise UserError(problem)


def _say_where(settings: ReviewSettings, queue: ReviewQueue, url: str) -> None:
    if not is_loopback(settings.host):
        warn(
            f"`host` {settings.host} opens the page to other machines: whoever can reach it and has the address below "
            f"can read the answers and references of {settings.annotations}, and decide as {settings.reviewer}; the "
            "connection is not encrypted"
        )
    say(f"{len(queue.chosen)} of {queue.population} sentences in the queue {queue.name}, for {settings.reviewer}")
    say(f"open  {url}")
    say(f"every decision is written to {settings.out} at once; Ctrl-C ends the review, the same command goes on")


def _serve(app: object, listener: socket.socket, when_ready: Callable[[], object] | None) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    listener.listen(128)
    if when_ready:  # the socket listens, so the browser waits for the server; a browser in the terminal takes its time
        Thread(target=when_ready, daemon=True).start()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn ends, and raises the signal again
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)
