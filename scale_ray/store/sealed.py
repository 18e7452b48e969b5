"""JSON files that hold the sha256 of all that is before it, so that a changed byte is noticed.

It is the last member of the last object: of a plan, or of a record's provenance, which may differ between two runs.

    "versions": {…},
    "sha256": "…"
   }
  }

Files of earlier versions have no such member, and where a person's tool wrote the file again, it no longer fits. Both
are read as they are.
"""

import hashlib
import re
from typing import NamedTuple

# The member as another tool writes it.
_REWRITTEN = re.compile(rb',\s*"sha256"\s*:\s*"[0-9a-f]{64}"(?=[\s}]*\Z)')
_LONGEST_END = 256


class Seal(NamedTuple):
    """Where the digest is: between `before` and `after`, in place of `end`."""

    before: bytes
    after: bytes
    end: bytes

    @classmethod
    def at(cls, depth: int) -> "Seal":
        """Of a text with an indentation of 1, in the object at that depth, with which the text ends."""
        end = "".join(f"\n{' ' * level}}}" for level in reversed(range(depth))) + "\n"
        return cls(f',\n{" " * depth}"sha256": "'.encode(), f'"{end}'.encode(), end.encode())


PLAN, RECORD = Seal.at(1), Seal.at(2)


def seal(text: str, kind: Seal) -> bytes:
    """The text with its digest."""
    content = text.encode()
    assert content.endswith(kind.end)
    head = memoryview(content)[: -len(kind.end)]  # no copy: plans may be large
    return b"".join([head, kind.before, hashlib.sha256(head).hexdigest().encode(), kind.after])


def unseal(content: bytes, kind: Seal) -> tuple[bytes, bool]:
    """The text without its digest, and whether it had one that fits.

    Raises:
        ValueError: the content is not what was written.
    """
    length = len(kind.before) + 64 + len(kind.after)
    head, member = content[:-length], content[-length:]
    if not (member.startswith(kind.before) and member.endswith(kind.after)):
        return content[:-_LONGEST_END] + _REWRITTEN.sub(b"", content[-_LONGEST_END:]), False
    if hashlib.sha256(head).hexdigest().encode() != member[len(kind.before) : -len(kind.after)]:
        raise ValueError("its bytes are not those that were written")
    return head + kind.end, True
