"""The one base class of every error that a user can cause and a user can mend."""


class UserError(ValueError):
    """A mistake in what the user asked for or provided; the message names the thing, the place and the remedy.

    The command line prints the message and exits with status 2. Any other exception is a fault of the program: it keeps
    its traceback.
    """
