"""JSON files that end with the sha256 of what is before it, so that a changed byte is noticed.

    {
     "id": "…",
     …,
     "sha256": "…"
    }

Files of earlier versions have no such line. They are read as they are.
"""

import hashlib

_END = b"\n}\n"
_BEFORE, _AFTER = b',\n "sha256": "', b'"\n}\n'
_LENGTH = len(_BEFORE) + 64 + len(_AFTER)


def seal(text: str) -> bytes:
    """A JSON object, written with an indentation of 1 and a last line break, with its digest as the last member."""
    content = text.encode()
    assert content.endswith(_END)
    head = content.removesuffix(_END)
    return head + _BEFORE + hashlib.sha256(head).hexdigest().encode() + _AFTER


def unseal(content: bytes) -> tuple[bytes, bool]:
    """The object without its digest, and whether it had one.

    Raises:
        ValueError: the content is not what was written.
    """
    head, line = content[:-_LENGTH], content[-_LENGTH:]
    if not (line.startswith(_BEFORE) and line.endswith(_AFTER)):
        return content, False
    if hashlib.sha256(head).hexdigest().encode() != line[len(_BEFORE) : -len(_AFTER)]:
        raise ValueError("its bytes are not those that were written")
    return head + _END, True
