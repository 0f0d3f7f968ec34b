"""Errors for people: one line that says what, where, why and what to do. Commands print the line and exit with 2."""


class UserError(Exception):
    """An error that the user can correct: bad input, a wrong option, a missing package. Never a bug of maskdpo."""


class Interrupted(UserError):
    """Ctrl-C or SIGTERM, after the work has been saved. The command line exits with 128 + the number of the signal."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


class InputError(UserError):
    """A bad record or file, with a message of the form ``file:line: field: message``."""

    def __init__(self, message: str, *, path: object, line: int | None = None, field: str | None = None) -> None:
        where = f"{path}:{line}" if line is not None else f"{path}"
        super().__init__(f"{where}: {field}: {message}" if field else f"{where}: {message}")
