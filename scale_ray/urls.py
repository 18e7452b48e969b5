"""What is a URL, and what may be shown of it: passwords are not for messages, plans, records or Ray's job table."""

import re

# Up to the last @ of the word before the next URL in it, since a password may hold any other sign.
_PASSWORD = re.compile(
    r"(\b[a-z][\w+.-]*://[^\s:/?#@]*:)(?:(?![,;'\"<>()\[\]{}|]+[a-z][\w+.-]*://)\S)+(?=@)", re.IGNORECASE
)
_QUERY = re.compile(
    r"([?&][\w.-]*(?:password|passwd|pwd|secret|token|signature|credential|access_?key|api_?key)=)[^\s&#]+",
    re.IGNORECASE,
)


def is_url(text: str) -> bool:
    return "://" in text


def redacted(text: str) -> str:
    """The text with *** for the passwords of its URLs: `postgresql://me:***@host/db`."""
    text = _PASSWORD.sub(r"\1***", text)
    return _QUERY.sub(r"\1***", text) if is_url(text) else text
