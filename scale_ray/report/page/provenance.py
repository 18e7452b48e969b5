"""How the records of a report were made."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pandas as pd

from scale_ray.config import RECIPE_VERSION


def provenance(cells: pd.DataFrame) -> dict[str, str]:
    """Facts about how the records were made; several values of a fact are shown with their counts."""
    made = cells[cells["started"].notna()]
    facts = {
        "recipe version": f"{RECIPE_VERSION} (records: {_values(made['recipe_version'])})",
        "code": _values(_commits(made)),
        "devices": _values(made["device"]),
        "hosts": _values(made["host"]),
        **{name: _values(made[name].dropna()) for name in ("runner", "workers") if name in made},
        "seeds": ", ".join(map(str, sorted(cells["seed"].unique()))),
        "first start": made["started"].min() if len(made) else "—",
        "last start": made["started"].max() if len(made) else "—",
        "wall time, all records": f"{made['wall_seconds'].sum() / 3600:.2f} h",
    }
    if "worker_hours" in made:  # a shared stage's time divided by its cells
        facts["worker hours charged"] = f"{made['worker_hours'].sum():.2f} h"
    versions = [json.loads(text) for text in made["versions"]]
    for package in sorted({name for found in versions for name in found}):
        facts[package] = _values(found.get(package, "absent") for found in versions)
    digests: dict[str, list[str]] = {}
    for role in ("source", "target"):
        for benchmark, domain, digest in made[["benchmark", role, f"{role}_digest"]].dropna().itertuples(index=False):
            digests.setdefault(f"data {benchmark}/{domain}", []).append(digest)
    facts |= {name: _values(found) for name, found in sorted(digests.items())}
    if made["weights_digest"].notna().any():
        facts["weights"] = _values(made["weights_digest"].dropna())
    return facts


def _commits(made: pd.DataFrame) -> Iterable[str]:
    for commit, dirty in zip(made["git_commit"], made["git_dirty"].fillna(False), strict=True):
        yield "not a checkout" if pd.isna(commit) else f"{commit}{', with uncommitted changes' * bool(dirty)}"


def _values(values: Iterable[Any]) -> str:
    counts = Counter(map(str, values))
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({count})" for value, count in sorted(counts.items())) or "—"
