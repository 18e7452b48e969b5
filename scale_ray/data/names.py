"""Names of folders and files: which can be recorded, how messages show them, and which only look the same."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from scale_ray.errors import shown


def is_text(name: str | os.PathLike[str]) -> bool:
    """Whether a name or path is UTF-8: records are, so they cannot hold any other."""
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def quoted(names: Iterable[str]) -> str:
    """Names as a message lists them; quotes show blanks at the ends."""
    return ", ".join(f"'{shown(name)}'" for name in names)


def look_alikes(names: Iterable[str]) -> list[str]:
    """One sentence for each group of different names that look the same, with their spelling in ASCII.

    Names that differ in upper and lower case alone are such a group too.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        groups[_look(name)].append(name)
    return [f"{' and '.join(map(ascii, group))} {_difference(group)}" for group in groups.values() if len(group) > 1]


def _look(name: str) -> str:
    """The name without upper case and what does not show: composition of letters, invisible characters, blanks."""
    composed = unicodedata.normalize("NFC", name)
    shows = "".join(character for character in composed if unicodedata.category(character) != "Cf")
    return " ".join(shows.casefold().split())


def _difference(names: list[str]) -> str:
    composed = {unicodedata.normalize("NFC", name) for name in names}
    if len({name.casefold() for name in composed}) < len(composed):
        return "differ in upper and lower case"
    if len(composed) == 1:
        how = "composed and decomposed letters"
    elif len({name.strip() for name in names}) == 1:
        how = "blanks at an end"
    else:
        how = "characters that do not show"
    return f"look the same: they are spelled differently ({how})"
