"""A config's domains, opened without a plan."""

from collections.abc import Mapping, Sequence

from scale_ray.config import Root, TrialConfig
from scale_ray.data.decoded import Domain, open_domains


def open_data(config: TrialConfig, targets: Sequence[str], root: Root | None) -> tuple[Domain, Mapping[str, Domain]]:
    """The source of a config, and target domains by name."""
    data = config.data
    source, *opened = open_domains(
        data.benchmark,
        [data.source, *targets],
        root=root,
        resize=data.resize,
        corrupt=data.corrupt,
        fit=data.fit,
    )
    return source, dict(zip(targets, opened, strict=True))
