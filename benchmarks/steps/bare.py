"""The floor: the forward and backward passes that a step must make, and nothing else."""

import torch
from torch import Tensor, nn

from scale_ray.models import Network
from steps.case import Case, Contender, endless


def _image_network(network: nn.Module) -> Network:
    assert isinstance(network, Network)
    return network


def _project(network: Network, hidden: Tensor) -> Tensor:
    assert network.projector is not None
    return network.projector(hidden)


def floor(case: Case, name: str, *, terms: str = "ce+ssl+dist+reg", batch_norm: str = "separate") -> Contender:
    """Encoder, pooling and those heads whose outputs the loss terms read, called one after the other.

    The backward passes of the student start from fixed gradients. The teacher runs without gradients. There is no loss,
    optimiser, metric or new batch, and no class statistics or moving average: these are the overhead of a step.
    """
    config = case.config(terms, batch_norm)
    method = case.method(config)
    student = _image_network(method.student)
    parameters = list(student.parameters())
    needs_target = method.needs_target(1)
    contrasts = "dist" in config.losses.terms or "reg" in config.losses.terms
    labels = "ssl" in config.losses.terms or "dist" in config.losses.terms
    teacher = None if method.teacher is None else _image_network(method.teacher.module)
    batches = endless(case)
    numbers = torch.Generator().manual_seed(0)
    gradients: dict[tuple[int, ...], Tensor] = {}

    def rows(network: Network, images: Tensor) -> Tensor:
        return network.encoder(images).mean(dim=(2, 3))

    def heads(images: Tensor) -> list[Tensor]:
        hidden = rows(student, images)
        return [student.classifier(hidden), *([_project(student, hidden)] if contrasts else [])]

    def gradient(output: Tensor) -> Tensor:
        if tuple(output.shape) not in gradients:
            gradients[tuple(output.shape)] = torch.randn(output.shape, generator=numbers).to(output)
        return gradients[tuple(output.shape)]

    def step() -> None:
        source, target = next(batches)
        for parameter in parameters:
            parameter.grad = None
        with torch.autocast(case.device.type, torch.bfloat16, enabled=case.precision == "bf16"):
            with torch.no_grad():
                if teacher is not None and contrasts:
                    _project(teacher, rows(teacher, source.images))
                if teacher is not None and labels:
                    teacher.classifier(rows(teacher, target.weak))
            if not needs_target:
                outputs = heads(source.images)
            elif batch_norm == "joint":
                outputs = heads(torch.cat([source.images, target.strong]))
            else:
                outputs = heads(source.images) + heads(target.strong)
        torch.autograd.backward(outputs, [gradient(output) for output in outputs])

    return Contender(name, step)
