"""`daprompt`: learnt prompts for each domain on a frozen CLIP. A re-implementation of DAPL.

Ge et al., Domain Adaptation via Prompt Learning, https://arxiv.org/abs/2202.06687. A prompt consists of 16 vectors that
both domains share, 16 vectors of the image's domain, and the name of the class. With `baseline.class_tokens` each class
has shared vectors of its own (class-specific contexts, CSC), as in the released configuration ep25-32-csc.yaml; without
it all classes have the same, as in ep25-32.yaml. There are 2 K prompts, one per domain
and class. Training makes the prompt of an image's domain and class the most similar one to the image. Source images
have their true labels; target images have CLIP's zero-shot labels ("a photo of a {class}."), where CLIP is confident.
The K prompts of the target domain classify.

Written from the paper's abstract, descriptions of the paper and the released code
(https://github.com/LeapLabTHU/DAPrompt). Differences from that code:
- The softmax runs over the prompts of both domains: in the paper's contrastive view an image and a text are a pair if
  and only if domain and class agree. The code's softmax runs over the prompts of the image's own domain.
- A prompt ends with the name of the class, the last of the paper's three parts. The code adds ", a {domain} image.".
- The loss on the target is divided by the batch size, as in FixMatch, and is 0 if CLIP is confident about no image. The
  code divides by the number of confident images, which can be zero.
- Optimiser, views and length of training are those of all methods in this package.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scale_ray.config import Precision, TrialConfig
from scale_ray.data.batches import SourceBatch, TargetBatch
from scale_ray.losses import cross_entropy, self_training
from scale_ray.methods.base import MethodContext, Passes, StepOutput
from scale_ray.methods.clip import ClipMethod
from scale_ray.models.clip import ClassPrompts, ClipStudent, FrozenClip
from scale_ray.models.student import DomainRole


class DomainPromptStudent(ClipStudent):
    """Learnt prompts of two domains, source and target.

    Args:
        encoder, classes, precision: as in ClipStudent.
        shared: number of context tokens that both domains share.
        specific: number of further context tokens of each domain.
        by_class: whether each class has shared tokens of its own.

    Attributes:
        zero_shot_features: (K, E), the features of the prompts "a photo of a {class}."
    """

    zero_shot_features: Tensor

    def __init__(
        self,
        encoder: FrozenClip,
        classes: Sequence[str],
        precision: Precision,
        *,
        shared: int,
        specific: int,
        by_class: bool = False,
    ):
        super().__init__(encoder, classes, precision)
        self.prompts = ClassPrompts(encoder, self.classes, shared + specific)
        of_classes = (len(self.classes),) if by_class else ()
        self.shared, self.source, self.target = (
            nn.Parameter(0.02 * torch.randn(*tokens, encoder.token_dim))
            for tokens in ((*of_classes, shared), (specific,), (specific,))
        )
        self.register_buffer("zero_shot_features", encoder.class_features(self.classes), persistent=False)

    def class_features(self, domains: Sequence[Tensor]) -> Tensor:
        """Features (D * K, E) of the class prompts of D domains, domain by domain; a domain is given by its tokens."""
        of_classes = self.shared.shape[:-2]
        contexts = [torch.cat([self.shared, domain.expand(*of_classes, -1, -1)], dim=-2) for domain in domains]
        return self.encoder.encode_prompts(*self.prompts(torch.stack(contexts)))

    def predict_with_features(self, images: Tensor, domain: DomainRole = "target") -> tuple[Tensor, Tensor]:
        """Predict with the target's prompts, for images of either domain."""
        with self.autocast(images.device):
            features, class_features = self.encoder(images).features, self.class_features([self.target])
        return self.logits(features, class_features), features


class DaPrompt(ClipMethod):
    """Loss terms: `ce` on the source and `prompt` on the confident target images, both with weight 1.

    A step encodes the images of both domains without gradients and 2 K texts with gradients.
    """

    paper = "Ge et al., Domain Adaptation via Prompt Learning, https://arxiv.org/abs/2202.06687"
    defaults = "16 + 16 tokens, weight 1 and threshold 0.5 from the released code, configs/trainers/DAPL"
    reads = frozenset({"shared_tokens", "domain_tokens", "class_tokens", "prompt_threshold"})

    labels_target = True

    student: DomainPromptStudent

    def __init__(self, student: DomainPromptStudent, context: MethodContext):
        super().__init__(student, context)
        self._threshold = context.config.baseline.prompt_threshold

    @classmethod
    def student_on(cls, encoder: FrozenClip, context: MethodContext) -> DomainPromptStudent:
        config = context.config
        return DomainPromptStudent(
            encoder,
            context.classes,
            config.optim.precision,
            shared=config.baseline.shared_tokens,
            specific=config.baseline.domain_tokens,
            by_class=config.baseline.class_tokens,
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
        source_logits, target_logits, zero_shot_logits = (
            self.workers.gather(student.logits(features, classes))
            for features, classes in (
                (of_source, class_features),
                (of_target, class_features),
                (of_target, student.zero_shot_features),
            )
        )
        confidence, labels = zero_shot_logits.softmax(dim=1).max(dim=1)
        target_prompts = labels + len(student.classes)  # the target's prompts follow the source's K prompts
        losses = {
            "ce": cross_entropy(source_logits, source.labels),
            "prompt": self_training(target_logits, target_prompts, confidence, self._threshold),
        }
        return StepOutput(losses, labels, confidence > self._threshold, weights={"prompt": 1.0})
