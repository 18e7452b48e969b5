"""Domains whose names pandas reads from a CSV as something else: they are legal folder names."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from report_stores import config_of

from scale_ray.report import load, write_report
from scale_ray.report.build import Asked
from scale_ray.store import Store

MAKE = Callable[..., Store]

NAMES = [
    "nan",
    "NaN",
    "NA",
    "N/A",
    "None",
    "null",
    "True",
    "1e3",
    "007",
    "1.0",
    "-",
    "a,b",
    'say "x"',
    "two\nlines",
    " ",
]


def pairs() -> list[tuple[str, str]]:
    return list(zip(NAMES, NAMES[1:] + NAMES[:1], strict=True))


@pytest.fixture
def odd_store(make_store: MAKE) -> Store:
    configs = [
        config_of("mnist", "mnistm", losses, "lenet", 0).replace(
            {"data.benchmark": "image_folder", "data.source": source, "data.target": target}
        )
        for source, target in pairs()
        for losses in ("ce", "ce+ssl")
    ]
    return make_store([(config, 50.0 + number) for number, config in enumerate(configs[:-1])], planned=configs)


def test_load_gives_names_as_they_are(odd_store: Store) -> None:
    cells = load(odd_store.location)
    assert set(zip(cells["source"], cells["target"], strict=True)) == set(pairs())
    assert set(cells["pair"]) == {f"{source}>{target}" for source, target in pairs()}
    assert cells["status"].value_counts().to_dict() == {"done": 2 * len(NAMES) - 1, "missing": 1}


def test_csv_and_parquet_give_every_name_back(odd_store: Store, tmp_path: Path) -> None:
    paths = write_report(odd_store.location, tmp_path / "out", Asked(most_drawn=0, parquet=True))
    cells = load(odd_store.location)
    frame = pd.read_csv(paths.records, keep_default_na=False, dtype=str)  # as docs/report.md says
    for column in ("cell", "source", "target", "pair", "losses"):
        assert frame[column].tolist() == [_harmless(text) for text in cells[column]], column
        assert pd.read_parquet(paths.parquet[0])[column].tolist() == cells[column].tolist(), column
    (hole,) = pd.read_csv(paths.holes, keep_default_na=False, dtype=str).to_dict("records")
    assert hole["pair"] == " >nan"
    table = next(path for path in paths.tables if path.name == "pairs_by_method.csv")
    entries = pd.read_csv(table, keep_default_na=False, dtype=str)
    assert {_harmless(f"{source}>{target}") for source, target in pairs()} <= {*entries["row"], *entries["column"]} | {
        name.replace("→", ">") for name in (*entries["row"], *entries["column"])
    }


def _harmless(text: str) -> str:
    """As a CSV has it: `->a` would be a formula."""
    return f"'{text}" if text.startswith("-") and len(text) > 1 else text
