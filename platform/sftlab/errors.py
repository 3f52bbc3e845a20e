"""The one exception type that is shown to users without a traceback."""


class UserError(Exception):
    """Something that the user can mend: a wrong file, field, size or address.

    The message names the file, row or field, what was expected and what to do.
    The command line prints it alone and exits with code 2.
    """
