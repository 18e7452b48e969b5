"""The outcome of a search: its settings, what each validator would have chosen, and the chosen config.

Accuracies are percent of the target domain at the last iterate, regrets are points of it. They need target labels (the
oracle) and are shown beside the validator, which chose without any.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from scale_ray.config import Root, TrialConfig, TuningBudget, field_paths
from scale_ray.records import ORACLE, SET_VALIDATOR_NAMES, VALIDATOR_NAMES
from scale_ray.report.read.labels import count
from scale_ray.report.selection.text import ORACLE_COLUMN, as_text
from scale_ray.report.tables.csv import frame_to_csv
from scale_ray.report.tables.markdown import table_lines
from scale_ray.tuning.decision import Decision, highest
from scale_ray.tuning.setting import Setting, describe_values

# With fewer settings, a rank correlation means nothing.
_FEWEST_RANKS = 3

# Fields that the options of a study decide. A config file for one contains them only if they were tuned.
_OF_THE_GRID = ("method", "seed", "data.source", "data.target", "losses.terms", "tuning")

# Those of them that a single training needs, under the key `train`, which studies do not read.
_OF_A_TRAINING = ("method", "losses.terms", "data.source", "data.target")


def chosen_config(
    setting: Setting, base: TrialConfig, usual: TrialConfig, budget: TuningBudget, root: Root | None = None
) -> dict[str, Any]:
    """What a config file holds that `ablate --config` takes, and `train --config` without any further option.

    Args:
        base: what all settings of the search share.
        usual: the benchmark's defaults; fields of `base` that equal them are not written.
        budget: what the search spent.
        root: folder of the images; a catalogue is not written, and --root must name it again.
    """
    of_base = {
        path: base.value(path)
        for path in field_paths()
        if path not in _OF_THE_GRID and base.value(path) != usual.value(path)
    }
    return {
        "data.benchmark": base.data.benchmark,
        **of_base,
        **setting.values,
        "tuning": budget.model_dump(mode="json"),
        "train": {path: base.value(path) for path in _OF_A_TRAINING if path not in setting.values},
        **({"root": str(root.absolute())} if isinstance(root, Path) else {}),
    }


def settings_frame(settings: Sequence[Setting], validator: str) -> pd.DataFrame:
    """One row per setting: the finished ones first, from best to worst, then the others.

    | column | unit, meaning |
    |---|---|
    | setting | its number |
    | a dotted path | the value of that field |
    | state | done, stopped (on its first repeat's curve), pruned (over its repeats), failed, open; (default) |
    | the validator's name | mean score over the repeats that are done; higher is better |
    | repeats | number of finished repeats |
    | oracle (target labels) | percent, mean target accuracy over the same repeats |
    | steps | training steps of all repeats; a warm-up that settings share counts for the first of them |
    | reason | why it ended early or failed |
    """
    name = ORACLE_COLUMN if validator == ORACLE else validator
    rows = [
        {
            "setting": setting.number,
            **setting.values,
            "state": f"{setting.state} (default)" if setting.default else setting.state,
            name: setting.validators.get(validator),
            "repeats": setting.repeats,
            ORACLE_COLUMN: setting.validators.get(ORACLE),
            "steps": setting.steps,
            "reason": setting.reason,
        }
        for setting in sorted(settings, key=lambda setting: _rank(setting, validator))
    ]
    return pd.DataFrame(rows)


def validators_frame(settings: Sequence[Setting], validator: str) -> pd.DataFrame:
    """What each validator would choose among the finished settings, how it ranks them, and its regret.

    | column | unit, meaning |
    |---|---|
    | validator | its name; the oracle chooses by the target labels |
    | choice | the number of the setting with the highest score |
    | setting | its values |
    | spearman with NAME | rank correlation with the scores of the validator that chooses: how much the two agree |
    | oracle (target labels) | percent: the chosen setting's mean target accuracy |
    | regret | points below the best setting's; 0 for the oracle |
    | spearman | rank correlation with the target accuracy |
    | settings | number of settings that are compared |

    Correlations are empty with fewer than 3 settings or constant values. The columns that need target labels lack where
    the target has none.
    """
    done = _done(settings)
    names = [
        name
        for name in (*VALIDATOR_NAMES, *SET_VALIDATOR_NAMES, ORACLE)
        if done and all(name in each.validators for each in done)
    ]
    best = highest(done, ORACLE) if ORACLE in names else None
    rows = []
    for name in names:
        choice = highest(done, name)
        assert choice is not None
        row = {
            "validator": ORACLE_COLUMN if name == ORACLE else name,
            "choice": choice.number,
            "setting": describe_values(choice.values),
        }
        if validator != ORACLE and validator in names:
            row[f"spearman with {validator}"] = _between(done, name, validator)
        if best is not None:
            row[ORACLE_COLUMN] = choice.validators[ORACLE]
            row["regret"] = best.validators[ORACLE] - choice.validators[ORACLE]
            row["spearman"] = _between(done, name, ORACLE)
        rows.append({**row, "settings": len(done)})
    return pd.DataFrame(rows)


def agreement_note(settings: Sequence[Setting], validator: str, decision: Decision) -> str | None:
    """How many other validators would choose what was chosen; None where there is no other.

    Accuracy on the source has no vote: it says nothing of the target.
    """
    table = validators_frame(settings, validator)
    if table.empty:
        return None
    others = table[~table["validator"].isin([ORACLE_COLUMN, validator, "source_val"])].set_index("validator")
    if others.empty:
        return None
    chosen, best = decision.chosen.number, decision.highest.number
    votes = others["choice"].value_counts()
    agreed = f"{votes.get(chosen, 0)} of {count(len(others), 'other validator')} would choose setting {chosen} too"
    if best != chosen:
        agreed += f", {votes.get(best, 0)} setting {best}, which scores highest"
    correlation = others.get(f"spearman with {validator}", pd.Series(dtype=float)).median()
    ranks = "" if pd.isna(correlation) else f"; their median rank correlation with {validator} is {correlation:.2f}"
    return f"Agreement: {agreed}{ranks}."


def search_files(
    settings: Sequence[Setting], validator: str, importance: Mapping[str, float], notes: Sequence[str]
) -> dict[str, str]:
    """File name -> content: settings and validators as CSV and Markdown, importance as CSV."""
    frames = {"settings": settings_frame(settings, validator), "validators": validators_frame(settings, validator)}
    files = {f"{name}.csv": frame_to_csv(frame) for name, frame in frames.items()}
    below = "".join(f"- {note}\n" for note in notes)
    for name, frame in frames.items():
        lines = table_lines(as_text(frame)) if len(frame) else ["No setting is done."]
        files[f"{name}.md"] = "\n".join(lines) + f"\n\n{below}"
    if importance:
        frame = pd.DataFrame({"field": list(importance), "importance": list(importance.values())})
        files["importance.csv"] = frame_to_csv(frame)
    return files


def decision_notes(
    settings: Sequence[Setting], validator: str, decision: Decision, at_edges: Sequence[str]
) -> list[str]:
    """What was chosen and why, whether the highest is at an edge, and whether other validators agree."""
    by = "the oracle (target labels)" if validator == ORACLE else validator
    usual = ", the default" if decision.chosen.default else ""
    chosen = f"Chosen by {by}: setting {decision.chosen.number}{usual}, {describe_values(decision.chosen.values)}."
    why = f"{decision.why[0].upper()}{decision.why[1:]}."
    agreed = agreement_note(settings, validator, decision)
    return [chosen, why, *(f"{line}." for line in at_edges), *([agreed] if agreed else [])]


def search_notes(settings: Sequence[Setting], validator: str, steps_in_full: int) -> list[str]:
    """What was compared, and how many steps early ends and shared warm-ups saved.

    Args:
        steps_in_full: steps of all settings, if each were trained to the end on every repeat and shared nothing.
    """
    spent = sum(setting.steps for setting in settings)
    saved = f" ({1 - spent / steps_in_full:.0%} fewer)" if steps_in_full and spent < steps_in_full else ""
    chooser = (
        f"{ORACLE_COLUMN} chose: an upper bound, no way to choose" if validator == ORACLE else f"{validator} chose"
    )
    notes = [
        f"{len(settings)} settings: {state_counts(settings)}; {chooser}, among those that are done.",
        f"Steps: {spent:,}; every setting in full, without early ends and shared warm-ups: {steps_in_full:,}{saved}.",
        "Scores: mean over the repeats, last iterate, higher is better. "
        f"{ORACLE_COLUMN}: target accuracy in percent; regret: points below the best setting that is done.",
    ]
    if any(setting.state in ("stopped", "pruned") for setting in settings):
        notes.append(
            f"Which settings are done was steered by {validator}: other validators choose among its survivors."
        )
    return notes


def state_counts(settings: Sequence[Setting]) -> str:
    """`4 done, 1 stopped, 1 failed`."""
    states = pd.Series([setting.state for setting in settings], dtype="str").value_counts()
    return ", ".join(f"{number} {state}" for state, number in states.items())


def write_config(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, indent=1) + "\n"


def _done(settings: Sequence[Setting]) -> list[Setting]:
    return [setting for setting in settings if setting.state == "done"]


def _rank(setting: Setting, validator: str) -> tuple[bool, float, int]:
    return setting.state != "done", -setting.validators.get(validator, float("-inf")), setting.number


def _between(settings: Sequence[Setting], name: str, other: str) -> float | None:
    return _spearman([each.validators[name] for each in settings], [each.validators[other] for each in settings])


def _spearman(scores: Sequence[float], accuracies: Sequence[float]) -> float | None:
    if len(scores) < _FEWEST_RANKS or len(set(scores)) < 2 or len(set(accuracies)) < 2:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(scores, accuracies).statistic)
