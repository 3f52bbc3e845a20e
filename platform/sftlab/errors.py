"""The one exception type that is shown to users without a traceback, and the exit codes of the command line."""

import re
from enum import IntEnum

# All up to the last @ of an address, as a password may contain slashes, and a query's secret_key=...
_PASSWORD = re.compile(r"(\w://)[^\s'\"]*@")
# What is in the place of a port and is not a number: a password that contains slashes or lacks its @.
_NO_PORT = re.compile(r"(\w://[^\s/:@\[]+:)(?!\d+\b)[^\s'\"]+")
_QUERY = re.compile(r"([?&][\w.-]*(?:key|secret|token|password|signature)[\w.-]*=)[^&\s'\"]+", re.IGNORECASE)


class ExitCode(IntEnum):
    """How a command ends. `docs/command-line.md` lists the codes."""

    SUCCESS = 0
    DEFECT = 1  # of sftlab or of a library: a traceback
    USER_ERROR = 2
    INTERRUPTED = 130


class UserError(Exception):
    """Something that the user can fix: a wrong file, field, size or address.

    The message names the file, row or field, what was expected and what to do.
    The command line prints it alone and exits with code 2. As it ends in terminals and in logs of jobs, passwords of
    addresses that it repeats are masked.
    """

    def __str__(self) -> str:
        masked = _NO_PORT.sub(r"\1***", _PASSWORD.sub(r"\1***@", super().__str__()))
        return _QUERY.sub(r"\1***", masked)
