"""The candidates that are tried on data of one's own, cheapest first, within a budget."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.methods import METHODS
from scale_ray.study import Change, approaches
from scale_ray.training.resolve import check_trial, without_unread

# Kinds that differ in what they rely on, so that one of them fits. Two of a kind would be tried in vain: a validator
# cannot tell them apart.
CANDIDATES = {
    "prototypes": "clusters of the pre-trained encoder's features",
    "source_only": "the source alone: no adaptation",
    "mcc": "classes that can be told apart on the target",
    "cdan": "features of both domains that can be aligned",
    "scale:ce+ssl+mcc/losses.alignment=source/views.source=alternating": "self-training without contrast",
    "scale": "self-training with contrast",
    "scale/losses.pseudo_labels=prototype": "self-training on labels of the encoder's clusters",
}


class Affordable(NamedTuple):
    """What a budget allows.

    Attributes:
        changes: values of a study's axis `method`, cheapest first.
        left_out: the other candidates, as they are written, and why.
    """

    changes: list[Change]
    left_out: dict[str, str]


def affordable(base: TrialConfig, usual: Mapping[str, Mapping[str, Any]], budget: float | None = None) -> Affordable:
    """The candidates that fit a config, cheapest first, as long as the budget lasts.

    Args:
        base: what all candidates share.
        usual: method -> dotted path -> value, as of a Study.
        budget: steps of source_only, for each domain pair and seed; None is no limit. A candidate costs its steps times
            the cost of one (`Passes.cost`); one that takes no steps costs nothing.

    Raises:
        ConfigError: what all candidates share cannot be trained.
    """
    check_trial(without_unread(base.replace({"method": "source_only", "losses.terms": "ce"}), base))
    costs: dict[str, tuple[float, Change]] = {}
    left_out: dict[str, str] = {}
    for text in CANDIDATES:
        (change,) = approaches(text)
        try:
            config = base.replace({**usual.get(str(change["method"]), {}), **change})
            config = check_trial(without_unread(config, base))
        except ConfigError as error:
            left_out[text] = str(error)
            continue
        method = METHODS[config.method]
        costs[text] = (method.passes(config).cost * config.optim.steps if method.learns else 0.0, change)
    kept, dear = cheapest(
        {text: cost for text, (cost, _) in costs.items()},
        budget,
        lambda cost, left: f"it costs {cost:,.0f} steps of source_only, and {left:,.0f} of the budget are left",
    )
    return Affordable([costs[text][1] for text in kept], left_out | dear)


def cheapest(
    costs: Mapping[str, float], budget: float | None, why: Callable[[float, float], str]
) -> tuple[list[str], dict[str, str]]:
    """What fits a budget, cheapest first, and why the others do not.

    Args:
        costs: by name.
        budget: in the same unit; None is no limit.
        why: words of a cost that does not fit and of what is left.
    """
    kept, left_out, spent = [], {}, 0.0
    for name, cost in sorted(costs.items(), key=lambda item: item[1]):
        if budget is not None and spent + cost > budget:
            left_out[name] = why(cost, max(budget - spent, 0.0))
            continue
        spent += cost
        kept.append(name)
    return kept, left_out
