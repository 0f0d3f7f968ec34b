"""An OpenAI-compatible server that misbehaves on command and records what it was asked.

``python -m tests.backends.fault_server`` is one in a process of its own, which can be killed: it prints its URL, and
answers after a moment with texts that depend on the prompt and the seed alone.
"""

import functools
import json
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

read_certificates = functools.cache(ssl.create_default_context)
"""Every client reads them anew, which takes longer than most answers of the server here."""


@dataclass
class Asked:
    """One request as it arrived."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    at: float = field(default_factory=time.monotonic)


@dataclass
class Answer:
    """What the server does with one request."""

    body: Any = None
    """Sent as JSON; a string or bytes are sent as they are."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drop: bool = False
    """Close the connection without a word."""
    cut: int | None = None
    """Send so many bytes of the body, then close the connection."""
    trickle_s: float = 0.0
    """The wait after every byte of the body."""


Script = Callable[[Asked], Answer]


def chat(
    *texts: Any,
    finish_reason: str | None = "stop",
    refusal: str | None = None,
    thoughts: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A chat completion with one choice a text.

    Args:
        texts: strings, or what a server may send in place of one.
        thoughts: further fields of every message: reasoning, by the name that a server has for it.
    """
    logprobs = more.pop("logprobs", None)
    message = {"role": "assistant", "refusal": refusal, **(thoughts or {})}
    choices = [
        {
            "index": i,
            "finish_reason": finish_reason,
            "logprobs": logprobs,
            "message": {**message, "content": text},
        }
        for i, text in enumerate(texts)
    ]
    return {"id": "x", "object": "chat.completion", "model": "m", "choices": choices, **more}


def text(*texts: str, finish_reason: str = "stop", logprobs: Any = None) -> dict[str, Any]:
    """A completion of a raw string."""
    choices = [
        {"index": i, "finish_reason": finish_reason, "logprobs": logprobs, "text": each} for i, each in enumerate(texts)
    ]
    return {"id": "x", "object": "text_completion", "model": "m", "choices": choices}


def problem(status: int, message: str, *, headers: dict[str, str] | None = None, **more: Any) -> Answer:
    """An error in OpenAI's form."""
    return Answer({"error": {"message": message, "type": "x", **more}}, status, headers or {})


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class FaultServer:
    """Answers with the queued answers in turn, then with ``script``."""

    def __init__(self, port: int = 0) -> None:
        self.asked: list[Asked] = []
        self.queue: deque[Answer] = deque()
        self.script: Script = lambda asked: Answer(chat("fine"))
        self.open = self.most_open = 0
        self._lock = threading.Lock()
        self._http = _Http(("127.0.0.1", port), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def take(self, asked: Asked) -> Answer:
        with self._lock:
            self.asked.append(asked)
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            return self.queue.popleft() if self.queue else self.script(asked)

    def leave(self) -> None:
        with self._lock:
            self.open -= 1

    def start(self) -> None:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def _answer(self, body: dict[str, Any]) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = server.take(Asked(self.path, body, headers))
                try:
                    time.sleep(answer.delay_s)
                    self._send(answer)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client has gone, as some tests mean it to
                finally:
                    server.leave()

            def _send(self, answer: Answer) -> None:
                if answer.drop:
                    self.close_connection = True
                    return
                whole = answer.body if isinstance(answer.body, str | bytes) else json.dumps(answer.body)
                data = whole.encode() if isinstance(whole, str) else whole
                self.send_response(answer.status)
                for name, value in {"content-type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                sent = data if answer.cut is None else data[: answer.cut]
                for piece in [sent[i : i + 1] for i in range(len(sent))] if answer.trickle_s else [sent]:
                    self.wfile.write(piece)
                    self.wfile.flush()
                    time.sleep(answer.trickle_s)
                self.close_connection = self.close_connection or answer.cut is not None

            def log_message(self, *args: object) -> None:
                pass

        return Handler


@contextmanager
def running(port: int = 0) -> Iterator[FaultServer]:
    server = FaultServer(port)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def echo(asked: Asked) -> Answer:
    """Texts that depend on the prompt and the seed alone, and the tokens that they take."""
    prompt, n = asked.body["messages"][-1]["content"], asked.body.get("n", 1)
    texts = [f"{prompt} {asked.body['seed']} {i}" for i in range(n)]
    usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": sum(len(each.split()) for each in texts)}
    return Answer(chat(*texts, usage=usage), delay_s=0.02)


if __name__ == "__main__":
    alone = FaultServer()
    alone.script = echo
    alone.start()
    print(alone.url, flush=True)
    threading.Event().wait()
