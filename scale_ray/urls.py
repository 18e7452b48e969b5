"""What is a URL, and what may be shown of it: passwords are not for messages, plans, records or Ray's job table."""

import re

# Up to the last @ of the word before the next URL in it, since a password may hold any other sign.
_PASSWORD = re.compile(
    r"(\b[a-z][\w+.-]*://[^\s:/?#@]*:)(?:(?![,;'\"<>()\[\]{}|]+[a-z][\w+.-]*://)\S)+(?=@)", re.IGNORECASE
)
_URL = re.compile(r"([A-Za-z][\w+.-]+):/+(.*)", re.DOTALL)
_QUERY = re.compile(
    r"([?&][\w.-]*(?:password|passwd|pwd|secret|token|signature|credential|access_?key|api_?key|sig)=)[^\s&#]+",
    re.IGNORECASE,
)


def as_url(text: str) -> tuple[str, str] | None:
    """Scheme and the rest of a URL; None of any other text. One slash is enough: pathlib.Path drops the second."""
    found = _URL.fullmatch(text)
    return None if found is None else (found[1].lower(), found[2])


def is_url(text: str) -> bool:
    return "://" in text


def redacted(text: str) -> str:
    """The text with *** for the passwords of its URLs: `postgresql://me:***@host/db`."""
    text = _PASSWORD.sub(r"\1***", text)
    return _QUERY.sub(r"\1***", text) if is_url(text) else text
