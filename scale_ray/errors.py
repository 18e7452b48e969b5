"""The one base class of every error that a user can cause and a user can mend, and how messages show names."""

import os
import unicodedata

# Control characters, bytes that are not UTF-8 (Python holds them as surrogates) and line breaks.
_ESCAPED = ("Cc", "Cs", "Zl", "Zp")


class UserError(ValueError):
    """A mistake in what the user asked for or provided; the message names the thing, the place and the remedy.

    The command line prints the message and exits with status 2. Any other exception is a fault of the program: it keeps
    its traceback.
    """


def shown(name: str | os.PathLike[str]) -> str:
    r"""A name or path as messages print it, in one line: `caf\xe9.png` where that byte is not UTF-8."""
    return "".join(map(_shown, str(name)))


def _shown(character: str) -> str:
    if unicodedata.category(character) not in _ESCAPED:
        return character
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
