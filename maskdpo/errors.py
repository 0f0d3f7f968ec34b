"""Errors meant for people: one line that says what, where, why and what to do. The CLI prints them and exits with 2."""


class UserError(Exception):
    """Something the user can put right: bad input, a wrong option, a missing package. Never a bug of ours."""


class Interrupted(UserError):
    """Ctrl-C or SIGTERM, after what was done has been saved; the CLI exits with 128 + the signal's number."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


class InputError(UserError):
    """A bad record or file. Reads as ``file:line: field: message``."""

    def __init__(self, message: str, *, path: object, line: int | None = None, field: str | None = None) -> None:
        where = f"{path}:{line}" if line is not None else f"{path}"
        super().__init__(f"{where}: {field}: {message}" if field else f"{where}: {message}")
