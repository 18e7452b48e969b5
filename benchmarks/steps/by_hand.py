"""A step of the same algorithm, written out as in many released training scripts.

It has Python loops over parameters and classes, boolean masks, and metrics by `.item()`. It computes the same loss and
uses none of the package's code except for the names of the timed case.
"""

import copy

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from steps.case import CLASSES, Case, Contender, endless


class Net(nn.Module):
    def __init__(self, backbone: str, num_classes: int, hidden: int, dim: int):
        super().__init__()
        resnet = getattr(torchvision.models, backbone)(weights=None)
        width = resnet.fc.in_features
        self.features = nn.Sequential(*list(resnet.children())[:-1])
        self.classifier = self.head(width, hidden, num_classes)
        self.projector = self.head(width, hidden, dim)

    def head(self, width: int, hidden: int, out: int) -> nn.Module:
        return nn.Sequential(nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.features(x).flatten(1)
        return self.classifier(h), F.normalize(self.projector(h), dim=1)


class Trainer:
    def __init__(self, net: Net, num_classes: int, dim: int, *, lr: float, encoder_factor: float, threshold: float):
        self.student = net.train()
        self.teacher = copy.deepcopy(net).train()
        heads = [*net.classifier.parameters(), *net.projector.parameters()]
        self.rates = [lr * encoder_factor, lr]
        self.optimizer = torch.optim.SGD(
            [{"params": net.features.parameters(), "lr": lr * encoder_factor}, {"params": heads, "lr": lr}],
            momentum=0.9,
            nesterov=True,
            weight_decay=1e-3,
        )
        like = next(net.parameters())
        self.num_classes, self.threshold, self.tau, self.alpha = num_classes, threshold, 0.1, 0.99
        self.count = [0] * num_classes
        self.mean = torch.zeros(num_classes, dim, device=like.device, dtype=like.dtype)
        self.cov = torch.zeros(num_classes, dim, device=like.device, dtype=like.dtype)
        self.updates = 0

    def step(self, t: int, x_s: Tensor, y_s: Tensor, x_weak: Tensor, x_strong: Tensor) -> dict[str, float]:
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * (1 + 4e-4 * t) ** -0.75
        with torch.no_grad():
            _, teacher_features = self.teacher(x_s)
            self.update_statistics(teacher_features, y_s)
            teacher_logits, _ = self.teacher(x_weak)
            confidence, pseudo = teacher_logits.softmax(dim=1).max(dim=1)
            mask = confidence > self.threshold

        logits_s, features_s = self.student(x_s)
        logits_t, features_t = self.student(x_strong)
        loss_ce = F.cross_entropy(logits_s, y_s)
        loss_ssl = F.cross_entropy(logits_t[mask], pseudo[mask], reduction="sum") / len(logits_t)
        queries = torch.cat([features_s, features_t[mask]])
        loss_dist = self.dist_cl(queries, torch.cat([y_s, pseudo[mask]]))
        loss_reg = (self.uniformity(features_s.mean(0)) + self.uniformity(features_t.mean(0))) / 2
        loss = loss_ce + loss_ssl + loss_dist + loss_reg

        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.update_teacher()
        return {
            "ce": loss_ce.item(),
            "ssl": loss_ssl.item(),
            "dist": loss_dist.item(),
            "reg": loss_reg.item(),
            "kept": mask.float().mean().item(),
        }

    def update_statistics(self, features: Tensor, labels: Tensor) -> None:
        for k in labels.unique().tolist():
            x = features[labels == k]
            mean, cov = x.mean(dim=0), x.var(dim=0, unbiased=False)
            w = len(x) / (len(x) + self.count[k])
            self.cov[k] = (1 - w) * self.cov[k] + w * cov + w * (1 - w) * (mean - self.mean[k]) ** 2
            self.mean[k] = (1 - w) * self.mean[k] + w * mean
            self.count[k] += len(x)

    def dist_cl(self, queries: Tensor, labels: Tensor) -> Tensor:
        seen = [k for k in range(self.num_classes) if self.count[k] > 0]
        scores = [
            queries @ self.mean[k] / self.tau + (queries**2 * self.cov[k]).sum(dim=1) / (2 * self.tau**2) for k in seen
        ]
        normaliser = torch.stack(scores, dim=1).logsumexp(dim=1)
        losses = []
        for k in seen:
            of_class = labels == k
            if of_class.any():
                losses.append(normaliser[of_class] - queries[of_class] @ self.mean[k] / self.tau)
        return torch.cat(losses).mean()

    def uniformity(self, mean_feature: Tensor) -> Tensor:
        seen = [k for k in range(self.num_classes) if self.count[k] > 0]
        scores = torch.stack([mean_feature @ self.mean[k] / self.tau for k in seen])
        return -scores.log_softmax(dim=0).mean()

    @torch.no_grad()
    def update_teacher(self) -> None:
        a = min(1 - 1 / (self.updates + 1), self.alpha)
        for p_t, p_s in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            p_t.mul_(a).add_(p_s, alpha=1 - a)
        for b_t, b_s in zip(self.teacher.buffers(), self.student.buffers(), strict=True):
            b_t.copy_(b_s)
        self.updates += 1


def by_hand(case: Case, name: str, floor: str) -> Contender:
    """A contender with the weights, the batches and the memory layout of `ours`."""
    config = case.config()
    hidden, dim = config.model.hidden_dim, config.model.projection_dim
    net = Net(case.backbone, CLASSES, hidden, dim)
    ours = case.method(config).student.state_dict()
    net.load_state_dict(dict(zip(net.state_dict(), ours.values(), strict=True)))
    net.to(case.device, case.dtype)
    if case.channels_last:
        net.to(memory_format=torch.channels_last)
    optim = config.optim
    trainer = Trainer(
        net,
        CLASSES,
        dim,
        lr=optim.learning_rate,
        encoder_factor=optim.encoder_factor,
        threshold=config.losses.threshold,
    )
    batches = enumerate(endless(case), start=1)

    def step() -> dict[str, float]:
        t, (source, target) = next(batches)
        return trainer.step(t, source.images, source.labels, target.weak, target.strong)

    return Contender(name, step, floor)
