"""`ad_clip`: prompts made from the style and content of images, on a frozen CLIP. A re-implementation.

Singha et al., AD-CLIP: Adapting Domains in Prompt Space Using CLIP, ICCV-W 2023, https://arxiv.org/abs/2308.05659.
The style of an image is the mean and standard deviation of the feature map after every stage of the image encoder; its
content is the mean. The prompt of an image consists of style tokens of a source image, style tokens of a target image,
content tokens of the image itself, and the name of the class. Training pairs the i-th source image of a batch with the
i-th target image. For prediction there is no source image: a mapper computes source style tokens from the image's own
style.

Written from the paper's abstract and the released code (https://github.com/mainaksingha01/AD-CLIP,
trainers/adclip_rn50.py). It differs from that code where the code seems to do something else than intended:
- The code keeps the layers of its projectors in a plain list, which hides them from the optimiser. Here all layers are
  registered and learn.
- The code's style token is the average of mean and deviation. Here two layers project both to the token.
- The code's content tokens are copies of one token. Here each is a mixture of the stages with weights of its own.
- The code trains the mapper to give the source style from the source's own statistics. Here its input is the target's
  statistics, as in prediction, and the style tokens that it is trained to give are detached.
- The code takes the entropy of probabilities that were normalised over the batch. Here it is the entropy of each
  prediction.
- Optimiser, views and length of training are those of all methods in this package.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scale_ray.config import Precision, TrialConfig
from scale_ray.data.batches import SourceBatch, TargetBatch
from scale_ray.losses import cross_entropy, mapping_error, prediction_entropy, prompt_divergence
from scale_ray.methods.base import MethodContext, Passes, StepOutput
from scale_ray.methods.clip import ClipMethod
from scale_ray.models.clip import ClassPrompts, ClipStudent, FrozenClip
from scale_ray.models.student import DomainRole

_STYLE_WIDTH, _MAPPER_WIDTH = 256, 384
# The most texts that are encoded at once in prediction, where every image has K prompts of its own.
_TEXTS = 2048


class StyleProjector(nn.Module):
    """One style token for each of S stages, from the mean and standard deviation of the stage's feature map.

    Args:
        channels: C of every stage.
        width: width of the hidden layer.
        token_dim: W, the dimension of a token.
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
    """M content tokens, each a learnt mixture of the projected means of S stages.

    Args:
        channels: C of every stage.
        tokens: M.
        token_dim: W, the dimension of a token.
    """

    def __init__(self, channels: Sequence[int], tokens: int, token_dim: int):
        super().__init__()
        self.stages = nn.ModuleList(nn.Linear(each, token_dim) for each in channels)
        self.mixture = nn.Linear(len(channels), tokens)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Tokens (B, M, W) of S feature maps (B, C, H', W')."""
        projected = [stage(each.mean(dim=(2, 3))) for stage, each in zip(self.stages, maps, strict=True)]
        return self.mixture(torch.stack(projected, dim=2)).transpose(1, 2)


class StylePromptStudent(ClipStudent):
    """Classifies each image with prompts made for that image.

    Args:
        encoder, classes, precision: as in ClipStudent.
        content_tokens: M, the number of content tokens.
    """

    def __init__(self, encoder: FrozenClip, classes: Sequence[str], precision: Precision, *, content_tokens: int):
        super().__init__(encoder, classes, precision)
        channels, width = encoder.stage_channels, encoder.token_dim
        self.style = StyleProjector(channels, _STYLE_WIDTH, width)
        self.mapper = StyleProjector(channels, _MAPPER_WIDTH, width)
        self.content = ContentProjector(channels, content_tokens, width)
        self.prompts = ClassPrompts(encoder, self.classes, 2 * len(channels) + content_tokens)

    def class_features(self, source_style: Tensor, target_style: Tensor, content: Tensor) -> Tensor:
        """Features (B, K, E) of the class prompts of B images, from style (B, S, W) twice and content (B, M, W)."""
        context = torch.cat([source_style, target_style, content], dim=1)
        return self.encoder.encode_prompts(*self.prompts(context)).unflatten(0, (len(context), -1))

    def predict_with_features(self, images: Tensor, domain: DomainRole = "target") -> tuple[Tensor, Tensor]:
        """Predict images of either domain as images of the target."""
        logits, features = [], []
        for part in images.split(max(1, _TEXTS // len(self.classes))):
            with self.autocast(part.device):
                image_features, maps = self.encoder(part, stages=True)
                class_features = self.class_features(self.mapper(maps), self.style(maps), self.content(maps))
            logits.append(self.logits(image_features, class_features))
            features.append(image_features)
        return torch.cat(logits), torch.cat(features)


class AdClip(ClipMethod):
    """Prompts made from images, trained with four loss terms.

    `ce` on the source; `entropy` of the predictions on the target; `alignment`, the KL divergence between the features
    of the two domains' prompts; `mapping`, the squared error of the mapper. The weight of ce is 1.

    A step encodes the images of both domains without gradients and K texts per image with gradients, which makes it by
    far the most expensive method.
    """

    paper = "Singha et al., AD-CLIP: Adapting Domains in Prompt Space Using CLIP, https://arxiv.org/abs/2308.05659"
    defaults = (
        "the weights, 4 content tokens and the widths of the projectors from the released code, trainers/adclip_rn50.py"
    )
    reads = frozenset({"content_tokens", "entropy_weight", "alignment_weight", "mapping_weight"})

    student: StylePromptStudent

    def __init__(self, student: StylePromptStudent, context: MethodContext):
        super().__init__(student, context)
        baseline = context.config.baseline
        self._weights = {
            "entropy": baseline.entropy_weight,
            "alignment": baseline.alignment_weight,
            "mapping": baseline.mapping_weight,
        }

    @classmethod
    def student_on(cls, encoder: FrozenClip, context: MethodContext) -> StylePromptStudent:
        config = context.config
        return StylePromptStudent(
            encoder, context.classes, config.optim.precision, content_tokens=config.baseline.content_tokens
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
