"""`dan`: alignment of the domains' features by minimising their maximum mean discrepancy."""

from torch import Tensor

from scale_ray.losses import multi_kernel_mmd
from scale_ray.methods.baseline import Transfer
from scale_ray.models import Outputs


class Dan(Transfer):
    """MK-MMD between the hidden layers of source and target.

    The paper adapts the last three layers of an AlexNet. This class adapts one layer, as TLLib does for ResNets. The
    kernel bandwidths scale with the features, so the loss does not limit their size; BatchNorm does. With frozen
    BatchNorm (`model.batch_norm=frozen`) the learning rate must be lower.
    """

    paper = "Long et al., Deep Adaptation Networks, ICML 2015, https://arxiv.org/abs/1502.02791"
    defaults = "weight 1 and bandwidths 2^-3 to 2^1 from TLLib, examples/domain_adaptation/image_classification/dan.py"
    reads = frozenset({"weight", "transfer_from"})
    term = "mmd"

    def transfer(self, step: int, source: Outputs, target: Outputs) -> Tensor:
        assert source.hidden is not None
        assert target.hidden is not None
        return multi_kernel_mmd(source.hidden, target.hidden)
