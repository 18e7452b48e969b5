"""The page of an adaptation: three sentences first, then the images to look at, then why."""

import base64
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from scale_ray import __version__
from scale_ray.adaptation.outcome import Adaptation, OnTarget
from scale_ray.adaptation.predicted import Predicted
from scale_ray.config import DEFAULTS, Catalogue
from scale_ray.data.domain_files import DomainFiles, domain_files
from scale_ray.data.pixels import upright_rgb
from scale_ray.errors import shown
from scale_ray.report.read.labels import method_label
from scale_ray.report.selection.text import as_text
from scale_ray.study import approaches
from scale_ray.training.candidates import CANDIDATES

_SHOWN_IMAGES = 24
_THUMBNAIL = 176  # pixels
_NAMED = 6  # classes in a sentence


class Disputed(NamedTuple):
    """An image on whose class the candidates disagree.

    Attributes:
        picture: a data URL.
        path: of the image.
        predicted: the chosen candidate's class.
        votes: `cat 3, dog 2`.
    """

    picture: str
    path: str
    predicted: str
    votes: str


def adaptation_page(found: Adaptation, catalogue: Catalogue) -> str:
    """One self-contained HTML page. The same results give the same bytes.

    Args:
        found: what the page tells, of one target at least.
        catalogue: where the images are.
    """
    environment = Environment(
        loader=PackageLoader("scale_ray.adaptation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        parts=[_part(each, found, catalogue) for each in found.targets],
        candidates=_candidates(),
        left_out=found.left_out,
        failed=found.failed,
        lacking=found.lacking,
        out=str(found.out),
        version=__version__,
    )


def _candidates() -> dict[str, str]:
    """What each candidate that may be tried is called in tables, and what it relies on."""
    return {
        method_label(config.method, config.variant, config.combination): relies
        for text, relies in CANDIDATES.items()
        for config in map(DEFAULTS.replace, approaches(text))
    }


def _part(found: OnTarget, whole: Adaptation, catalogue: Catalogue) -> dict[str, Any]:
    predicted = found.predicted
    files = domain_files(found.record.config.data.benchmark, found.target, catalogue)
    counts = np.bincount(predicted.labels[predicted.chosen], minlength=len(predicted.classes))
    scores = found.scores.drop(columns=["benchmark", "backbone", "pair"])
    scores = scores.rename(columns={"estimated accuracy": "predicts as all together"})
    scores["predicts as the choice"] = [
        f"{predicted.agreement(each):.0f} %" if each in predicted.labels else "—" for each in scores["candidate"]
    ]
    if found.checked:
        scores["checked"] = [str(found.checked[each]) if each in found.checked else "—" for each in scores["candidate"]]
    return {
        "source": found.record.config.data.source,
        "target": found.target,
        "sentences": [_chosen(found, whole.validator), _sure(found), _to_do(found, counts, whole.out)],
        "disputed": [_disputed(predicted, place, files) for place in predicted.disputed[:_SHOWN_IMAGES]],
        "images": len(predicted.names),
        "unread": len(predicted.problems),
        "scores": as_text(scores).to_dict("split"),
        "counts": sorted(zip(predicted.classes, counts.tolist(), strict=True), key=lambda item: -item[1]),
        "most": int(counts.max()),
        "checked": {name: str(each) for name, each in found.checked.items()},
    }


def _chosen(found: OnTarget, validator: str) -> str:
    scores, predicted = found.scores, found.predicted
    says = f"{predicted.chosen} predicts {found.target} from {found.record.config.data.source}"
    if len(scores) == 1:
        return f"{says}: the only candidate."
    best, second = scores[validator].iloc[0], scores[validator].iloc[1]
    return (
        f"{says}: the validator {validator}, which reads no target label, ranks it first of {len(scores)} candidates "
        f"({best:.4g}; next {scores['candidate'].iloc[1]}, {second:.4g}).{_toss_up(found, validator)}{_voted(found)}"
    )


def _toss_up(found: OnTarget, validator: str) -> str:
    rivals, error = found.tie(validator)
    if not rivals:
        return ""
    others, they = (f"{', '.join(rivals[:-1])} and {rivals[-1]}", "each") if rivals[1:] else (rivals[0], "it")
    return (
        f" That is a toss-up: the score of {others} is less than one standard error ({error:.2g}) lower, so {they} may "
        "be as good or better."
    )


def _voted(found: OnTarget) -> str:
    """How many validators would choose the same, and what the others would."""
    if not found.votes:
        return ""
    others: dict[str, list[str]] = {}
    for validator, candidate in found.votes.items():
        if candidate != found.predicted.chosen:
            others.setdefault(candidate, []).append(validator)
    told = "".join(f"; {candidate} is that of {', '.join(names)}" for candidate, names in others.items())
    return f" {found.predicted.chosen} is the choice of {found.agreed} that can compare these{told}."


def _sure(found: OnTarget) -> str:
    predicted = found.predicted
    if found.checked:
        others = (
            f"; {predicted.baseline}, without adaptation: {found.checked[predicted.baseline]}"
            if predicted.baseline in found.checked and predicted.baseline != predicted.chosen
            else ""
        )
        return f"On the images that you labelled for checking, {found.checked[predicted.chosen]}{others}."
    alike = 100 * float(np.mean(predicted.votes.max(axis=1) == len(predicted.labels)))
    beside = (
        f". It differs from {predicted.baseline}, without adaptation, on "
        f"{100 - predicted.agreement(predicted.baseline):.0f} %"
        if predicted.baseline is not None and predicted.baseline != predicted.chosen
        else ""
    )
    return (
        f"Its accuracy is not known, as there are no labels: most of the {len(predicted.labels)} candidates predict "
        f"its class on {predicted.majority():.0f} % of the {len(predicted.names):,} images, and all of them agree on "
        f"{alike:.0f} %{beside}. Trust these votes more than its probabilities, which tend to be extreme."
    )


def _to_do(found: OnTarget, counts: np.ndarray, out: Path) -> str:
    advice = ["Look first at the images below, on which the candidates disagree most"]
    missing = [name for name, count in zip(found.predicted.classes, counts, strict=True) if count == 0]
    if missing:
        more = " …" if len(missing) > _NAMED else ""
        advice.append(f"ask whether the target has no {', '.join(missing[:_NAMED])}{more}, which is never predicted")
    if not found.checked:
        advice.append(f"to know the accuracy, fill in labels in {shown(out / 'check.csv')} and run the same command")
    else:
        advice.append(
            "more labels in check.csv narrow the interval; if it is too low, try another --backbone, or more labelled "
            "images of the source"
        )
    return "; ".join(advice) + "."


def _disputed(predicted: Predicted, place: int, files: DomainFiles) -> Disputed:
    votes = predicted.votes[place]
    order = [int(each) for each in np.argsort(-votes, kind="stable") if votes[each]]
    label = predicted.labels[predicted.chosen][place]
    return Disputed(
        picture=_thumbnail(files.read(predicted.names[place])),
        path=predicted.names[place],
        predicted=predicted.classes[label],
        votes=", ".join(f"{predicted.classes[each]} {votes[each]}" for each in order),
    )


def _thumbnail(content: bytes) -> str:
    small = upright_rgb(content, _THUMBNAIL)
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
