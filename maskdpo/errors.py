"""Errors for people: one line that says what, where, why and what to do. Commands print the line and exit with 2."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """An error that the user can correct: bad input, a wrong option, a missing package. Never a bug of maskdpo."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle keeps the finished text, as ``__init__`` would put it together from its parts again."""
        return type(self).__new__, (type(self), *self.args), vars(self)


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


class CannotContinue(InputError):
    """An earlier output that a run may not add to. ``restart`` sets it aside and begins anew; a pipeline says so in its
    own words."""


class NoPairs(InputError):
    """Answers of which no pair could be built: to no prompt does one score higher than another that may be rejected."""


def first_problem(error: "ValidationError") -> tuple[str | None, str]:
    """The field and the message of the first problem that pydantic found."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    return field or None, problem["msg"].removeprefix("Value error, ")


def first_line(error: BaseException) -> str:
    """The first line of an error, or its type where it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
