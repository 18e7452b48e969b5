"""Checks whether a store's records belong in one table, and names what is missing, duplicated or mixed.

Only records that would be averaged or compared are checked. An old record that no study plans any more is listed in
the frame, but is not counted and causes no refusal.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import pandas as pd

from scale_ray.report.read.errors import ReportError
from scale_ray.report.read.labels import count

KINDS = {
    "recipe": "planned cells whose records are of several recipe versions",
    "duplicates": "several cells of one config, which differ in data, weights or recipe",
    "code": "records of several versions of the code",
    "data": "records of several versions of the data or weights",
}
_MOST_SHOWN = 8  # lines of one kind in a message


@dataclass(frozen=True)
class Mix:
    """Several versions of something that should have one. `kind` is a key of KINDS.

    `found` has two texts for each version: a short description, and where it occurs.
    """

    kind: str
    benchmark: str
    found: list[tuple[str, str]]


def check(cells: pd.DataFrame, allow: Collection[str] = ()) -> tuple[pd.DataFrame, list[str]]:
    """Return the cells that tables may count, and the notes to show under every table.

    Args:
        cells: as `load` returns them.
        allow: keys of KINDS to accept. With `recipe`, planned records of another recipe count as done. With
            `duplicates`, one cell of each config counts: a done one before any other, then the latest; the others
            become superseded.

    Raises:
        ReportError: the records are mixed in a way that is not accepted (the message lists what and where), or
            `allow` has an unknown kind.
    """
    unknown = sorted(set(allow) - KINDS.keys())
    if unknown:
        raise ReportError(f"--allow {','.join(unknown)}: no such kind: choose from {', '.join(KINDS)}")
    found: list[Mix] = []
    for kind, mixes in (("recipe", _recipes), ("duplicates", _duplicates)):
        found += mixes(cells)
        if kind in allow:
            cells = {"recipe": _count_old_recipes, "duplicates": _keep_one}[kind](cells)
    found += [*_codes(cells), *_data(cells)]
    refused = [mix for mix in found if mix.kind not in allow]
    if refused:
        raise ReportError(_refusal(refused))
    return cells, [_override(mix) for mix in found] + _remarks(cells)


def holes(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per planned cell without a result that counts, with its status and error."""
    wanted = cells[~cells["superseded"] & (cells["status"] != "done")]
    columns = ["cell", "study", "benchmark", "pair", "method", "losses", "backbone", "seed", "status", "error"]
    return wanted[columns].reset_index(drop=True)


def _counted(cells: pd.DataFrame) -> pd.DataFrame:
    return cells[~cells["superseded"] & (cells["status"] == "done")]


def _old(cells: pd.DataFrame) -> pd.Series:
    """Mark planned records of another recipe that hold a result."""
    planned = ~cells["superseded"] & cells["study"].notna()
    return planned & (cells["status"] == "stale") & cells["target_accuracy"].notna()


def _recipes(cells: pd.DataFrame) -> Iterable[Mix]:
    made = cells[_old(cells) | (~cells["superseded"] & (cells["status"] == "done"))]
    for benchmark, part in made.groupby("benchmark"):
        if part["recipe_version"].nunique() > 1:
            yield Mix("recipe", str(benchmark), _groups(part, "recipe " + part["recipe_version"].astype("str")))


def _count_old_recipes(cells: pd.DataFrame) -> pd.DataFrame:
    return cells.assign(status=cells["status"].mask(_old(cells), "done"))


def _duplicates(cells: pd.DataFrame) -> Iterable[Mix]:
    standing = cells[~cells["superseded"]]
    doubled = standing[standing.duplicated("config", keep=False)]
    for benchmark, part in doubled.groupby("benchmark"):
        found = []
        for _, alike in part.groupby("config", sort=False):
            which = [f"{row['cell']} ({_origin(row)})" for _, row in alike.iterrows()]
            found.append((_name(alike.iloc[0]), "; ".join(which)))
        yield Mix("duplicates", str(benchmark), found)


def _origin(row: pd.Series) -> str:
    """The facts in which duplicates can differ."""
    facts = [row.status]
    for name in ("recipe_version", "source_digest", "target_digest", "weights_digest"):
        value = row[name]
        if not pd.isna(value):
            facts.append(f"{name.removesuffix('_version').removesuffix('_digest')} {str(value)[:12]}")
    return ", ".join(facts)


def _keep_one(cells: pd.DataFrame) -> pd.DataFrame:
    standing = cells[~cells["superseded"]]
    ranked = standing.assign(open=standing["status"] != "done", started=standing["started"].fillna(""))
    ranked = ranked.sort_values(["open", "started", "cell"], ascending=[True, False, True], kind="stable")
    dropped = set(ranked.loc[ranked.duplicated("config"), "cell"])
    return cells.assign(superseded=cells["superseded"] | cells["cell"].isin(dropped))


def _codes(cells: pd.DataFrame) -> Iterable[Mix]:
    for benchmark, part in _counted(cells).groupby("benchmark"):
        names = code_names(part)
        if names.nunique() > 1:
            yield Mix("code", str(benchmark), _groups(part, names))


def code_names(cells: pd.DataFrame) -> pd.Series:
    """`commit 0123abc…`, `commit 0123abc… and uncommitted changes`, or `scale-ray 0.1.0` for an installed wheel."""
    names = []
    for commit, changed, version in zip(
        *(cells[name] for name in ("git_commit", "git_dirty", "package_version")), strict=True
    ):
        if pd.isna(commit):
            names.append(f"scale-ray {'of an unknown version' if pd.isna(version) else version}")
        else:
            dirty = not pd.isna(changed) and bool(changed)
            names.append(f"commit {commit[:12]}{' and uncommitted changes' * dirty}")
    return pd.Series(names, index=cells.index, dtype="object")


_DIGESTS = ("source_digest", "target_digest", "weights_digest")


def _data(cells: pd.DataFrame) -> Iterable[Mix]:
    for benchmark, part in _counted(cells).groupby("benchmark"):
        found = []
        roles = [part[[role, f"{role}_digest", "cell"]].set_axis(["what", "digest", "cell"], axis=1)
                 for role in ("source", "target")]  # fmt: skip
        named = part["backbone"] + (" from " + part["model.weights"] if "model.weights" in part else "")
        weights = pd.DataFrame({"what": "weights of " + named, "digest": part["weights_digest"], "cell": part["cell"]})
        code = [
            pd.DataFrame(
                {"what": f"code of {column.removesuffix('_digest')}", "digest": part[column], "cell": part["cell"]}
            )
            for column in part.columns
            if column.endswith("_digest") and column not in _DIGESTS
        ]
        read = pd.concat([*roles, weights, *code]).dropna()
        versions = read.groupby("what")["digest"].nunique()
        for what in versions.index[versions > 1]:
            share = read[read["what"] == what].drop_duplicates(["cell", "digest"])
            rows = part.set_index("cell").loc[share["cell"]].reset_index()
            found += _groups(rows, f"{what} of digest " + share["digest"].str[:12])
        if found:
            yield Mix("data", str(benchmark), found)


def _groups(part: pd.DataFrame, names: pd.Series) -> list[tuple[str, str]]:
    """One pair of texts per name.

    For example `commit 0123: 400 records` and `study a; the first is Art>Clipart ce resnet50 seed 0, cell 89ab`.
    """
    lines = []
    for name, share in part.groupby(names.to_numpy()):
        studies = sorted({name for names in share["study"].dropna() for name in names.split(", ")})
        of = f"study {', '.join(studies)}; " if studies else ""
        first = share.iloc[0]
        lines.append(
            (f"{name}: {count(len(share), 'record')}", f"{of}the first is {_name(first)}, cell {first['cell']}")
        )
    return lines


def _name(row: pd.Series) -> str:
    return f"{row['pair']} {row['method']} {row['losses']} {row['backbone']} seed {row['seed']}"


def _shortened(texts: list[str]) -> list[str]:
    return texts if len(texts) <= _MOST_SHOWN else [*texts[:_MOST_SHOWN], f"and {len(texts) - _MOST_SHOWN:,} more"]


def _refusal(mixes: list[Mix]) -> str:
    lines = []
    for mix in mixes:
        lines.append(f"{mix.benchmark}: {KINDS[mix.kind]}:")
        lines += [f"  {line}" for line in _shortened([f"{what} ({where})" for what, where in mix.found])]
    kinds = ",".join(kind for kind in KINDS if any(mix.kind == kind for mix in mixes))
    return "\n".join(
        [
            *lines,
            "these records do not belong in one table: run the study again with one version, report on one study "
            f"(--study), move the other records away, or accept it with --allow {kinds}; every table will say so",
        ]
    )


def _override(mix: Mix) -> str:
    return (
        f"Accepted (--allow {mix.kind}): {KINDS[mix.kind]}: {'; '.join(_shortened([what for what, _ in mix.found]))}."
    )


def _remarks(cells: pd.DataFrame) -> list[str]:
    notes = []
    counted = _counted(cells)
    changed = int(counted["git_dirty"].fillna(False).astype("bool").sum())
    if changed:
        notes.append(f"{changed:,} of {count(len(counted), 'record')} were made by code with uncommitted changes.")
    old = int(cells["superseded"].sum())
    if old:
        notes.append(f"Not counted: {count(old, 'older record')} of configs that have a newer cell.")
    return notes
