"""Studies as tests write them."""

from collections.abc import Sequence

from scale_ray.config import TrialConfig
from scale_ray.study import Change, Study, combinations, pairs


def ablation(
    base: TrialConfig,
    of: Sequence[tuple[str, str]],
    losses: Sequence[str],
    backbones: Sequence[str] = ("lenet",),
    seeds: Sequence[int] = (0,),
) -> Study:
    """Domain pair x loss combination x backbone x seed."""
    axes = {
        "seed": seeds,
        "pair": pairs(*map(":".join, of)),
        "model.backbone": backbones,
        "losses": combinations(*losses),
    }
    return Study("grid", base, axes)


def comparison(base: TrialConfig, of: Sequence[tuple[str, str]], approaches: Sequence[Change]) -> Study:
    """Domain pair x method."""
    return Study("compared", base, {"pair": pairs(*map(":".join, of)), "method": approaches})
