"""Passwords of URLs are shown nowhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scale_ray.urls import redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql+psycopg2://me:p@ss/w:rd@host/db", "postgresql+psycopg2://me:***@host/db"),
        ("mysql://:secret@host/db", "mysql://:***@host/db"),
        (
            'Could not connect to the endpoint URL: "https://me:secret@minio:9000/a", then\n  https://me:secret@b/c.',
            'Could not connect to the endpoint URL: "https://me:***@minio:9000/a", then\n  https://me:***@b/c.',
        ),
        ("['s3://a:secret@b','s3://c:secret@d']", "['s3://a:***@b','s3://c:***@d']"),
        ("--study-url=postgresql://me:secret@host/db --trials 3", "--study-url=postgresql://me:***@host/db --trials 3"),
        ("s3://AKIA:secret@bucket/prefix", "s3://AKIA:***@bucket/prefix"),
        ("postgresql://host/db?user=me&password=secret#x", "postgresql://host/db?user=me&password=***#x"),
        (
            "https://host/x?X-Amz-Signature=abc&X-Amz-Security-Token=d",
            "https://host/x?X-Amz-Signature=***&X-Amz-Security-Token=***",
        ),
    ],
)
def test_passwords_are_starred(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        *("sqlite:///runs/search.db", "postgresql://me@host/db", "host:6379", "s3://bucket/a@b", "mnist:mnistm"),
        *(
            "postgresql://me@host/db?sslkey=/etc/key.pem",
            "losses.threshold=0.9",
            "http://127.0.0.1:8265",
            "a?password=b",
        ),
    ],
)
def test_other_texts_stay(text: str) -> None:
    assert redacted(text) == text


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1))
def test_no_password_remains(password: str) -> None:
    assert redacted(f"postgresql://me:{password}@host/db") == "postgresql://me:***@host/db"
