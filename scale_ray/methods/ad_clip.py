"""`ad_clip`: prompts whose context is read from the image's style and content, on a frozen CLIP. A re-implementation.

Singha et al., AD-CLIP: Adapting Domains in Prompt Space Using CLIP, ICCV-W 2023, https://arxiv.org/abs/2308.05659.
Style is mean and deviation of the feature map after every stage of the image encoder, content its mean. The prompt of
an image is: style tokens of a source image, style tokens of a target image, content tokens of its own, the class's
name. In training, source and target images are paired by their place in the batch. A target image alone is classified
with source style tokens that a mapper makes of its own style.

Written from the paper's abstract and the released code (https://github.com/mainaksingha01/AD-CLIP,
trainers/adclip_rn50.py), from which it differs where that cannot be meant:
- its projectors' layers are built in a plain list, which no optimiser sees; here every layer is registered and learns;
- its style token averages mean and deviation; here it is projected from both, by two layers;
- its content tokens are copies of one; here each is a mixture of the stages of its own;
- its mapper is trained to give source style from the source's own statistics; here from the target's, which is what
  classification asks of it, and the style tokens that it should give are detached;
- its entropy is of probabilities that are first normalised over the batch; here it is each prediction's;
- optimiser, views and length of training are those of every method here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scale_ray.config import Precision, TrialConfig
from scale_ray.data.batches import SourceBatch, TargetBatch
from scale_ray.losses import cross_entropy, mapping_error, prediction_entropy, prompt_divergence
from scale_ray.methods.base import Passes, Setting, StepOutput
from scale_ray.methods.clip import ClipMethod
from scale_ray.models.clip import ClassPrompts, ClipStudent, FrozenClip
from scale_ray.models.student import DomainRole

_STYLE_WIDTH, _MAPPER_WIDTH = 256, 384
# Texts that are encoded at once in prediction, where every image has prompts of its own.
_TEXTS = 2048


class StyleProjector(nn.Module):
    """A token for each of S stages, from the mean and deviation of its feature map.

    Args:
        channels: C of every stage.
        width: of the hidden layer.
        token_dim: W.
    """

    def __init__(self, channels: Sequence[int], width: int, token_dim: int):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * each, width), nn.ReLU(), nn.Linear(width, token_dim)) for each in channels
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Tokens (B, S, W) of S feature maps (B, C, H', W')."""
        statistics = [
            torch.cat([each.mean(dim=(2, 3)), each.var(dim=(2, 3), correction=0).sqrt()], dim=1) for each in maps
        ]
        return torch.stack([stage(each) for stage, each in zip(self.stages, statistics, strict=True)], dim=1)


class ContentProjector(nn.Module):
    """M tokens, each a mixture of the S stages' projected means. Arguments as in StyleProjector."""

    def __init__(self, channels: Sequence[int], tokens: int, token_dim: int):
        super().__init__()
        self.stages = nn.ModuleList(nn.Linear(each, token_dim) for each in channels)
        self.mixture = nn.Linear(len(channels), tokens)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Tokens (B, M, W) of S feature maps (B, C, H', W')."""
        projected = [stage(each.mean(dim=(2, 3))) for stage, each in zip(self.stages, maps, strict=True)]
        return self.mixture(torch.stack(projected, dim=2)).transpose(1, 2)


class StylePromptStudent(ClipStudent):
    """Prompts of every image's own.

    Args:
        encoder, classes, precision: as in ClipStudent.
        content_tokens: M.
    """

    def __init__(self, encoder: FrozenClip, classes: Sequence[str], precision: Precision, *, content_tokens: int):
        super().__init__(encoder, classes, precision)
        channels, width = encoder.stage_channels, encoder.token_dim
        self.style = StyleProjector(channels, _STYLE_WIDTH, width)
        self.mapper = StyleProjector(channels, _MAPPER_WIDTH, width)
        self.content = ContentProjector(channels, content_tokens, width)
        self.prompts = ClassPrompts(encoder, self.classes, 2 * len(channels) + content_tokens)

    def class_features(self, source_style: Tensor, target_style: Tensor, content: Tensor) -> Tensor:
        """Features (B, K, E) of the classes in the prompts of B images; style (B, S, W), content (B, M, W)."""
        context = torch.cat([source_style, target_style, content], dim=1)
        return self.encoder.encode_prompts(*self.prompts(context)).unflatten(0, (len(context), -1))

    def predict_with_features(self, images: Tensor, domain: DomainRole = "target") -> tuple[Tensor, Tensor]:
        """As images of the target, whatever domain they are of."""
        logits, features = [], []
        for some in images.split(max(1, _TEXTS // len(self.classes))):
            with self.autocast(some.device):
                found, maps = self.encoder(some, stages=True)
                class_features = self.class_features(self.mapper(maps), self.style(maps), self.content(maps))
            logits.append(self.logits(found, class_features))
            features.append(found)
        return torch.cat(logits), torch.cat(features)


class AdClip(ClipMethod):
    """Loss terms: `ce` on the source; on the target `entropy` of predictions; `alignment` of both domains' prompts'
    features (KL); `mapping` of target to source style (squared error).

    A step encodes both domains' images without gradient, and K texts an image with it: by far the dearest method.
    """

    paper = "Singha et al., AD-CLIP: Adapting Domains in Prompt Space Using CLIP, https://arxiv.org/abs/2308.05659"
    defaults = "weights, 4 content tokens and the projectors' widths: trainers/adclip_rn50.py of the released code"
    reads = frozenset({"content_tokens", "entropy_weight", "alignment_weight", "mapping_weight"})

    student: StylePromptStudent

    def __init__(self, student: StylePromptStudent, setting: Setting):
        super().__init__()
        self.student = student
        self.workers = setting.workers
        baseline = setting.config.baseline
        self._weights = {
            "entropy": baseline.entropy_weight,
            "alignment": baseline.alignment_weight,
            "mapping": baseline.mapping_weight,
        }

    @classmethod
    def beside(cls, encoder: FrozenClip, setting: Setting) -> StylePromptStudent:
        config = setting.config
        return StylePromptStudent(
            encoder, setting.classes, config.optim.precision, content_tokens=config.baseline.content_tokens
        )

    @classmethod
    def passes(cls, config: TrialConfig) -> Passes:
        return Passes(student=0, teacher=2)

    def needs_target(self, step: int) -> bool:
        return True

    def step(self, step: int, source: SourceBatch, target: TargetBatch | None) -> StepOutput:
        assert target is not None
        student, gather = self.student, self.workers.gather
        with student.autocast(source.images.device):
            of_source, source_maps = student.encoder(source.images, stages=True)
            of_target, target_maps = student.encoder(target.weak, stages=True)
            styles = student.style(source_maps), student.style(target_maps)
            source_classes = student.class_features(*styles, student.content(source_maps))
            target_classes = student.class_features(*styles, student.content(target_maps))
            mapped = student.mapper(target_maps)
        losses = {
            "ce": cross_entropy(gather(student.logits(of_source, source_classes)), source.labels),
            "entropy": prediction_entropy(gather(student.logits(of_target, target_classes))),
            "alignment": gather(prompt_divergence(source_classes, target_classes)).mean(),
            "mapping": gather(mapping_error(mapped, styles[0])).mean(),
        }
        return StepOutput(losses, weights=self._weights)
