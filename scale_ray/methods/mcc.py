"""`mcc`: minimum class confusion on the target."""

from torch import Tensor

from scale_ray.losses import class_confusion
from scale_ray.methods.baseline import Transfer
from scale_ray.models import Outputs


class Mcc(Transfer):
    """Minimises the confusion between classes in the predictions on the target; no features are aligned."""

    paper = "Jin et al., Minimum Class Confusion, ECCV 2020, https://arxiv.org/abs/1912.03699"
    defaults = "weight 1 and temperature 2.5 from the paper and TLLib"
    reads = frozenset({"weight", "transfer_from", "mcc_temperature"})
    term = "confusion"

    def transfer(self, step: int, source: Outputs, target: Outputs) -> Tensor:
        return class_confusion(target.logits, self.config.baseline.mcc_temperature)
