"""What the nodes of a cluster cost, which they say themselves, by a label."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scale_ray.config import ConfigError, Resources

# The label of a node with its price in US dollars an hour. Cluster files give it to their node types.
PRICE_LABEL = "scale-ray/usd-per-hour"

# The cluster file on the head of a cluster, as `ray up` has completed it.
_CLUSTER_FILE = Path("~/ray_bootstrap_config.yaml")


def together(prices: Sequence[float | None]) -> float:
    """Dollars an hour of these nodes together. One without a price counts as the dearest of the others."""
    known = [price for price in prices if price is not None]
    return sum(known) + (len(prices) - len(known)) * max(known, default=0.0)


def node_labels() -> list[Mapping[str, str]]:
    """The labels of each living node of this Ray."""
    import ray

    return [node["Labels"] for node in ray.nodes() if node["Alive"]]


def price_in(labels: Mapping[str, str]) -> float | None:
    """The price among a node's labels; None where it has none, or one that is no number of dollars."""
    try:
        price = float(labels.get(PRICE_LABEL, "nan"))
    except ValueError:
        return None
    return price if 0 <= price < math.inf else None


def refuse_no_price(nodes: Sequence[Mapping[str, str]], budget: str) -> None:
    """Refuse nodes of which nobody can say what they cost.

    Args:
        nodes: the labels of each.
        budget: in words, for the message.

    Raises:
        ConfigError: a label is no price, or no node has one.
    """
    for labels in nodes:
        if PRICE_LABEL in labels and price_in(labels) is None:
            raise ConfigError(
                f"the label {PRICE_LABEL} of a node is {labels[PRICE_LABEL]!r}: write dollars an hour, as in 0.98"
            )
    if not any(PRICE_LABEL in labels for labels in nodes):
        raise ConfigError(
            f"--budget of {budget}: no node of this Ray tells its price: give each the label {PRICE_LABEL}, the head "
            "too (docs/cluster.md), or give a time, as in --budget 40m"
        )


def slot_price(resources: Resources, device: str) -> float | None:
    """Dollars an hour of one training on the cheapest node type of this cluster that holds it, without the head.

    Known on the head of a cluster that `ray up` has started. None elsewhere, and where no such node type has a price.

    Args:
        resources, device: of a training.
    """
    import yaml

    from scale_ray.sweep.cluster import bundle_of, fitting

    path = _CLUSTER_FILE.expanduser()
    if not path.is_file():
        return None
    file = yaml.safe_load(path.read_text())
    types: dict[str, Any] = file["available_node_types"]
    workers = [kind for name, kind in types.items() if name != file["head_node_type"]]
    gpus = max((kind["resources"].get("GPU", 0) for kind in workers), default=0)
    bundle = bundle_of(resources, device, gpus)
    slots = [(price_in(kind.get("labels", {})), fitting([kind["resources"]], bundle)) for kind in workers]
    each = [price / number for price, number in slots if price is not None and number]
    return min(each) * resources.workers if each else None
