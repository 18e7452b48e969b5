"""`daprompt`: each domain's own prompt, learnt, on a frozen CLIP. A re-implementation of DAPL.

Ge et al., Domain Adaptation via Prompt Learning, https://arxiv.org/abs/2202.06687. A prompt is 16 vectors that both
domains share, 16 of the image's domain, and the class's name. Of the 2 K prompts of both domains, an image's own
domain and class should fit it best: source images by their label, target images by what CLIP with "a photo of a
{class}." is sure of. The target's K prompts classify.

Written from the paper's abstract, accounts of it and the released code (https://github.com/LeapLabTHU/DAPrompt), from
which it differs:
- the softmax goes over both domains' prompts: by the paper's contrast an image and a text are a pair where domain and
  class agree, and no other is; the code's goes over the prompts of the image's own domain;
- prompts end with the class's name, the last of the paper's three parts; the code adds ", a {domain} image.";
- the target's loss is divided by the batch, as in FixMatch, and is 0 where CLIP is sure of no image; the code divides
  by the number of sure images, and by zero there;
- optimiser, views and length of training are those of every method here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scale_ray.config import Precision, TrialConfig
from scale_ray.data.batches import SourceBatch, TargetBatch
from scale_ray.losses import cross_entropy, self_training
from scale_ray.methods.base import Passes, Setting, StepOutput
from scale_ray.methods.clip import ClipMethod
from scale_ray.models.clip import ClassPrompts, ClipStudent, FrozenClip
from scale_ray.models.student import DomainRole


class DomainPromptStudent(ClipStudent):
    """Learnt prompts of two domains.

    Args:
        encoder, classes, precision: as in ClipStudent.
        shared: tokens of context that both domains have in common.
        specific: further tokens of each domain.
    """

    naive_features: Tensor

    def __init__(
        self, encoder: FrozenClip, classes: Sequence[str], precision: Precision, *, shared: int, specific: int
    ):
        super().__init__(encoder, classes, precision)
        self.prompts = ClassPrompts(encoder, self.classes, shared + specific)
        self.shared, self.source, self.target = (
            nn.Parameter(0.02 * torch.randn(tokens, encoder.token_dim)) for tokens in (shared, specific, specific)
        )
        self.register_buffer("naive_features", encoder.class_features(self.classes), persistent=False)

    def class_features(self, domains: Sequence[Tensor]) -> Tensor:
        """Features (D * K, E) of the classes' prompts in D domains, given as their tokens; domain by domain."""
        contexts = torch.stack([torch.cat([self.shared, domain]) for domain in domains])
        return self.encoder.encode_prompts(*self.prompts(contexts))

    def predict_with_features(self, images: Tensor, domain: DomainRole = "target") -> tuple[Tensor, Tensor]:
        """With the target's prompts, whatever domain the images are of."""
        with self.autocast(images.device):
            features, class_features = self.encoder(images).features, self.class_features([self.target])
        return self.logits(features, class_features), features


class DaPrompt(ClipMethod):
    """Loss terms: `ce` on the source, `prompt` on target images of which CLIP is sure; both weigh 1.

    A step encodes both domains' images without gradient, and 2 K texts with it.
    """

    paper = "Ge et al., Domain Adaptation via Prompt Learning, https://arxiv.org/abs/2202.06687"
    defaults = "16 + 16 tokens, weight 1 and threshold 0.5: the released code's configs/trainers/DAPL"
    reads = frozenset({"shared_tokens", "domain_tokens", "prompt_threshold"})

    labels_target = True

    student: DomainPromptStudent

    def __init__(self, student: DomainPromptStudent, setting: Setting):
        super().__init__()
        self.student = student
        self.workers = setting.workers
        self._threshold = setting.config.baseline.prompt_threshold

    @classmethod
    def beside(cls, encoder: FrozenClip, setting: Setting) -> DomainPromptStudent:
        config = setting.config
        return DomainPromptStudent(
            encoder,
            setting.classes,
            config.optim.precision,
            shared=config.baseline.shared_tokens,
            specific=config.baseline.domain_tokens,
        )

    @classmethod
    def passes(cls, config: TrialConfig) -> Passes:
        return Passes(student=0, teacher=2)

    def needs_target(self, step: int) -> bool:
        return True

    def step(self, step: int, source: SourceBatch, target: TargetBatch | None) -> StepOutput:
        assert target is not None
        student = self.student
        with student.autocast(source.images.device):
            of_source, of_target = (student.encoder(images).features for images in (source.images, target.weak))
            class_features = student.class_features([student.source, student.target])
        source_logits, target_logits, naive_logits = (
            self.workers.gather(student.logits(features, classes))
            for features, classes in (
                (of_source, class_features),
                (of_target, class_features),
                (of_target, student.naive_features),
            )
        )
        confidence, labels = naive_logits.softmax(dim=1).max(dim=1)
        of_target_domain = labels + len(student.classes)
        losses = {
            "ce": cross_entropy(source_logits, source.labels),
            "prompt": self_training(target_logits, of_target_domain, confidence, self._threshold),
        }
        return StepOutput(losses, labels, confidence > self._threshold, weights={"prompt": 1.0})
