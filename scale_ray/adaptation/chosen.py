"""For each target, the candidate that a validator chooses, and what all candidates predict."""

from collections.abc import Mapping
from dataclasses import replace

from scale_ray.adaptation.asked import STUDY, Asked
from scale_ray.adaptation.checked import Accuracy, accuracy
from scale_ray.adaptation.outcome import OnTarget
from scale_ray.adaptation.predicted import Predicted, predicted
from scale_ray.records import Record
from scale_ray.report.read.load import load
from scale_ray.report.selection.agreement import agreement, votes
from scale_ray.report.selection.candidates import candidates
from scale_ray.report.selection.choose import choice, choice_scores
from scale_ray.store import Store

BASELINE = "source_only"


def on_targets(asked: Asked, store: Store, known: Mapping[str, Mapping[str, str]]) -> list[OnTarget]:
    """What was found for each target on which a candidate has all of its trainings.

    Args:
        asked: what was adapted.
        store: of its records.
        known: target -> image -> label, for checking.
    """
    cells = load(store.location, study=STUDY)
    done = cells[(cells["status"] == "done") & ~cells["superseded"]]
    found = candidates(done, store)
    table, scores = choice(found, asked.choose), choice_scores(found, asked.choose)
    by_id = {record.id: record for record in store.records(done["cell"])}
    targets = []
    for target in asked.targets:
        rows = found.trainings
        rows = rows[[by_id[cell].config.data.target == target for cell in rows["cell"]]]
        if rows.empty:
            continue
        pair = rows["pair"].iloc[0]
        chosen = str(table.loc[table["pair"] == pair, "choice"].iloc[0])
        # Of several seeds the one with the highest score predicts.
        best = rows.sort_values(asked.choose, ascending=False, kind="stable").drop_duplicates("candidate")
        records = {str(row.candidate): by_id[str(row.cell)] for row in best.itertuples()}
        of_target = predicted(store, records, chosen, _baseline(records), asked.catalogue)
        checked = _checked(of_target, known.get(target, {}))
        of_pair = scores[scores["pair"] == pair]
        voted = votes(agreement(replace(found, trainings=rows)))
        targets.append(OnTarget(target, records[chosen], of_target, of_pair, checked, voted))
    return targets


def _baseline(records: Mapping[str, Record]) -> str | None:
    return next((name for name, each in records.items() if each.config.method == BASELINE), None)


def _checked(of_target: Predicted, known: Mapping[str, str]) -> dict[str, Accuracy]:
    """The accuracy of every candidate on the images with a known label that could be predicted."""
    place = {name: index for index, name in enumerate(of_target.names)}
    labels = [label for name, label in known.items() if name in place]
    if not labels:
        return {}
    places = [place[name] for name in known if name in place]
    return {
        candidate: accuracy([of_target.classes[label] for label in of_class[places]], labels)
        for candidate, of_class in of_target.labels.items()
    }
