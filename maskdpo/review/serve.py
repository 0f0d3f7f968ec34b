"""``maskdpo review``: reads the inputs, chooses the sentences and serves the page until it is ended."""

import hashlib
import json
import secrets
import signal
import socket
import webbrowser
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from threading import Thread
from urllib.parse import quote

from maskdpo import extras
from maskdpo.console import say, warn
from maskdpo.errors import UserError
from maskdpo.io import read_answers, read_prompts, refuse_overwriting
from maskdpo.io.append import sole_writer
from maskdpo.review.others import Others
from maskdpo.review.queue import ReviewQueue, candidates, make_queue
from maskdpo.review.session import Session
from maskdpo.review.settings import ReviewSettings
from maskdpo.run_record import Run, meta_file, refuse_replacing
from maskdpo.schemas import Annotation, group_of
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
    from maskdpo.review.server import LOOPBACK_NAMES, make_app

    if (settings.queue == "disagreement") != bool(settings.against):
        raise UserError("`queue` disagreement and `against` go together: it says with whose labels to compare")
    refuse_overwriting(settings.out, settings.annotations, settings.prompts, *settings.against)
    refuse_replacing(settings.out, "review", only_own=True)
    with _sole_reviewer(settings), _listening(settings) as listener:
        session, run = open_session(settings)
        run.begin()
        token = secrets.token_urlsafe(24)
        port = listener.getsockname()[1]
        url = f"http://{_in_url(settings.host)}:{port}/#{token}"
        _say_where(settings, session.queue, url)
        names = (
            LOOPBACK_NAMES
            if _is_loopback(settings.host)
            else LOOPBACK_NAMES | {settings.host.lower(), socket.gethostname().lower()}
        )
        app = make_app(session, token, names)
        _serve(app, listener, (lambda: webbrowser.open(url)) if settings.browser else None)
        counts = counts_of(session)
        run.finish(counts)
    return counts


def open_session(settings: ReviewSettings) -> tuple[Session, Run]:
    """The queue that the settings ask for, with what the reviewer has decided of it so far."""
    prompts = read_prompts(settings.prompts)
    inputs = {"annotations": settings.annotations, "prompts": settings.prompts}
    inputs |= {f"against{i or ''}": file for i, file in enumerate(settings.against)}
    options = {name: getattr(settings, name) for name in ("queue", "limit", "seed")} | {"blind": settings.blind_share}
    hint = "The probabilities of a queue hold for that queue alone: use another `out` for another one"
    run = Run(meta_file(settings.out), "review", options, inputs, restart=hint, fixed_inputs=True)
    others = Others(settings.against) if settings.against else None
    population = candidates(read_answers(settings.annotations, Annotation, prompts), prompts, others)
    queue = make_queue(settings.queue, population, limit=settings.limit, blind=settings.blind_share, seed=settings.seed)
    wanted = {one.answer_id for one in queue.chosen}
    answers = [one for one in read_answers(settings.annotations, Annotation, prompts) if one.id in wanted]
    decides = [run.meta.options, run.meta.inputs, str(settings.out.resolve()), settings.reviewer]
    name = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]
    return Session(name, settings.reviewer, queue, answers, prompts, settings.out, others), run


def counts_of(session: Session) -> dict[str, int]:
    """The sentences that the reviewer has decided, by group; those that were skipped; and those that are left."""
    stands = standing(session.acts)
    groups = Counter(group_of(one.label) if one.label else "skipped" for one in stands)
    counts = {name: groups[name] for name in ("right", "wrong", "no_fact", "skipped")}
    return counts | {"left": session.left()}


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
    if not _is_loopback(settings.host):
        warn(
            f"`host` {settings.host} opens the page to other machines: whoever can reach it and has the address below "
            f"can read the answers and references of {settings.annotations}, and decide as {settings.reviewer}; the "
            "connection is not encrypted"
        )
    say(f"{len(queue.chosen)} of {queue.population} sentences in the queue {queue.name}, for {settings.reviewer}")
    say(f"open  {url}")
    say(f"every decision is written to {settings.out} at once; Ctrl-C ends the review, the same command goes on")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


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
