"""What a trial reads, checked before any compute."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from scale_ray.config import BaselineConfig, ConfigError, TrialConfig, check_name
from scale_ray.data.benchmarks import canonical_domain, check_benchmark
from scale_ray.data.decoded import Domain, domain_digest, open_domains
from scale_ray.data.views import STRONG_VIEWS
from scale_ray.losses import LOSSES
from scale_ray.methods import METHODS
from scale_ray.models.backbones import weights_digest


def check_trial(config: TrialConfig) -> TrialConfig:
    """Refuse every name that does not exist, before any compute; return the config with domains spelt canonically.

    Raises:
        ConfigError: an unknown benchmark, domain, backbone, method, loss term, view, or weights that cannot be; a
            setting of another method, or one that the method cannot honour.
    """
    check_benchmark(config.data.benchmark)
    check_name("method", config.method, METHODS)
    check_name("views.strong", config.views.strong, STRONG_VIEWS)
    for term in config.losses.terms:
        check_name("loss term", term, LOSSES)
    METHODS[config.method].check_backbone(config)
    _check_baseline(config)
    METHODS[config.method].check(config)
    domains = {
        role: canonical_domain(config.data.benchmark, config.value(f"data.{role}")) for role in ("source", "target")
    }
    changes = {f"data.{role}": name for role, name in domains.items() if name != config.value(f"data.{role}")}
    return config.replace(changes) if changes else config


def _check_baseline(config: TrialConfig) -> None:
    """Refuse a setting that the method would silently pass over."""
    usual, reads = BaselineConfig(), METHODS[config.method].reads
    for name in BaselineConfig.model_fields:
        given = getattr(config.baseline, name)
        if name not in reads and given != getattr(usual, name):
            readers = ", ".join(method for method, entry in METHODS.items() if name in entry.reads)
            raise ConfigError(
                f"baseline.{name} is {given}, which method {config.method!r} does not read ({readers} do): leave it at "
                f"{getattr(usual, name)}"
            )


def trial_inputs(config: TrialConfig, root: Path | None) -> dict[str, str]:
    """Digests of the files that a trial reads, by role: what `identity` needs besides the config."""
    inputs = {
        role: content_digest(config.data.benchmark, config.value(f"data.{role}"), root) for role in ("source", "target")
    }
    weights = weights_digest(config.model.weights)
    return inputs if weights is None else {**inputs, "weights": weights}


@cache
def content_digest(benchmark: str, domain: str, root: Path | None) -> str:
    """`domain_digest`, asked once a process: a study of many cells has few domains."""
    return domain_digest(benchmark, domain, root=root)


def open_data(config: TrialConfig, targets: Sequence[str], root: Path | None) -> tuple[Domain, dict[str, Domain]]:
    """The source, and targets by name, decoded; the first call decodes and later ones, anywhere, map the same file.

    Args:
        config: names the benchmark, the source and how images are decoded.
        targets: canonical names.
        root: folder of an image benchmark.

    Raises:
        ValueError: folders, classes or images are not as they must be.
    """
    data = config.data
    source, *opened = open_domains(
        data.benchmark, [data.source, *targets], root=root, resize=data.resize, corrupt=data.corrupt
    )
    return source, dict(zip(targets, opened, strict=True))
