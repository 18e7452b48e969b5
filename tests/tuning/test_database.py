"""The database of a search: nobody sees its password."""

import pytest

from scale_ray.config import ConfigError
from scale_ray.tuning.database import open_database

SECRET = "correct-horse"


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "",
        f"postgresql://ann:{SECRET}@host:port/",
        f"postgresql://ann:{SECRET}@[::1/x",
        f"nothing://ann:{SECRET}@host/x",
        f"postgresql+nothing://ann:{SECRET}@host/x",
        f"sqlite:////no/such/folder/{SECRET}?password={SECRET}",
        f"redis://:{SECRET}@host/0",
    ],
)
def test_a_database_that_cannot_be_used_is_one_line_without_the_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^--study-url") as raised:
        open_database(url)
    assert "\n" not in str(raised.value)
    assert SECRET not in str(raised.value) or url.startswith("sqlite")
