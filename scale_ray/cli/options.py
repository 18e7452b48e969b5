"""Options that several commands share, and the base config that they make."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from scale_ray.config import NAMED_WEIGHTS, ConfigError, TrialConfig

# Headings under which --help groups the options.
TRAINED = "What is trained"
EXECUTION = "Where and how it runs"

Benchmark = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="See `scale-ray data list`. Default: digits, drawn on first use.", rich_help_panel=TRAINED
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Images of a benchmark: FOLDER/domain/class/image.",
        rich_help_panel=TRAINED,
        resolve_path=True,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="WEIGHTS",
        help="none, imagenet, of a CLIP openai, or the path of a state dict.",
        rich_help_panel=TRAINED,
    ),
]
Frozen = Annotated[
    bool,
    typer.Option(
        "--frozen",
        metavar="",
        help="Keep the encoder frozen: its features are computed once, and heads on a bottleneck train on them.",
        rich_help_panel=TRAINED,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Training steps; the warm-up changes in proportion.", rich_help_panel=TRAINED
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="JSON of fields, nested or by dotted path; the options here go over it.",
        rich_help_panel=TRAINED,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Any config field by dotted path, as in losses.threshold=0.9. Repeat it. Goes over all else.",
        rich_help_panel=TRAINED,
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1.", rich_help_panel=EXECUTION)]
CheckpointEvery = Annotated[
    int, typer.Option(min=1, metavar="N", help="Steps between checkpoints.", rich_help_panel=EXECUTION)
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        metavar="",
        help="torch.compile the encoders: minutes of warm-up, faster steps on GPUs. May change last bits.",
        rich_help_panel=EXECUTION,
    ),
]
ChannelsLast = Annotated[
    bool,
    typer.Option(
        "--channels-last/--no-channels-last",
        metavar="",
        help="Memory layout of images. May change last bits.",
        rich_help_panel=EXECUTION,
    ),
]
KeepModel = Annotated[
    bool,
    typer.Option(
        "--keep-model",
        metavar="",
        help="Store trained models (safetensors) beside the records.",
        rich_help_panel=EXECUTION,
    ),
]
Storage = Annotated[
    str,
    typer.Option(
        "--storage",
        "--store",
        metavar="FOLDER|URL",
        help="Keeps records and checkpoints: a folder or s3://… that every node reaches.",
        rich_help_panel=EXECUTION,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        metavar="",
        help="Show what would run, what is done and the cost; run nothing.",
        rich_help_panel=EXECUTION,
    ),
]
CpusPerTrial = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="CPUs, and so torch threads, of one trial.", rich_help_panel=EXECUTION),
]
GpusPerTrial = Annotated[
    float | None,
    typer.Option(
        min=0, metavar="N", help="0.5: two share one. Default: 1 where there are any.", rich_help_panel=EXECUTION
    ),
]
WorkersPerTrial = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Processes that share each batch, by Ray Train. Default: 1; on this machine alone, without Ray Train.",
        rich_help_panel=EXECUTION,
    ),
]
Local = Annotated[
    bool,
    typer.Option(
        "--local",
        metavar="",
        help="Start Ray on this machine, even if a cluster is there.",
        rich_help_panel=EXECUTION,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_ADDRESS",
        metavar="ADDRESS",
        help="Ray cluster to join. Default: this machine's if it belongs to one, else as --local.",
        rich_help_panel=EXECUTION,
    ),
]


def base_config(
    options: Mapping[str, Any], *, steps: int | None, file: Path | None, settings: dict[str, Any]
) -> TrialConfig:
    """The benchmark's defaults, those of a frozen encoder, then the file's fields, the options' and the settings'.

    Args:
        options: dotted path -> value, or None where the option was not given.
        steps: training steps; the warm-up keeps its share of them.
        file: JSON of fields.
        settings: what `read_settings` returned.

    Raises:
        ConfigError: a field or value that cannot be, or a benchmark without usual domain pairs and no pair given.
    """
    from scale_ray.data.benchmarks import FROZEN_DEFAULTS, check_benchmark

    of_file = read_config(file)
    given = {path: value for path, value in options.items() if value is not None}
    named = of_file | given | settings
    benchmark = str(named.get("data.benchmark", "digits"))
    entry = check_benchmark(benchmark)
    changes: dict[str, Any] = {"data.benchmark": benchmark, **entry.defaults}
    if entry.pairs:
        changes["data.source"], changes["data.target"] = entry.pairs[0]
    elif not {"data.source", "data.target"} <= named.keys():
        raise ConfigError(
            f"{benchmark} has no usual domain pair: name one (train: --source, --target; ablate: --pairs)"
        )
    if named.get("model.encoder") == "frozen":
        changes |= FROZEN_DEFAULTS
    changes |= of_file
    if steps is not None:
        # Of the schedule alone: the whole config may be possible only with what goes over it.
        of_schedule = {path: value for path, value in changes.items() if path.startswith("optim.")}
        usual = TrialConfig().replace(of_schedule).optim
        changes |= {"optim.steps": steps, "optim.warmup_steps": usual.warmup_steps * steps // usual.steps}
    config = TrialConfig().replace(changes | given | settings)
    if config.model.weights in NAMED_WEIGHTS:
        return config
    # Absolute, because trials may run elsewhere; the identity knows the file by its content.
    return config.replace({"model.weights": str(Path(config.model.weights).expanduser().absolute())})


def read_settings(texts: Sequence[str] | None) -> dict[str, Any]:
    """What --set was given, as path -> value."""
    return read_values("--set", texts or (), example="losses.threshold=0.9")


def read_values(option: str, texts: Sequence[str], *, example: str) -> dict[str, Any]:
    """`PATH=VALUE` texts as path -> value; a value that is no JSON is a string."""
    settings = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{option} {text!r}: write PATH=VALUE, as in {example}")
        try:
            settings[path] = json.loads(value)
        except json.JSONDecodeError:
            settings[path] = value
    return settings


def split_list(text: str) -> list[str]:
    """The parts between commas, without spaces around them."""
    return [part.strip() for part in text.split(",") if part.strip()]


def read_config(path: Path | None) -> dict[str, Any]:
    """The file's fields by dotted path; none without a file."""
    if path is None:
        return {}
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"--config {path}: cannot be read as JSON ({error}): give a JSON file of fields") from None
    if not isinstance(values, dict):
        raise ConfigError(f"--config {path}: holds a {type(values).__name__}: write an object of fields")
    return _flatten(values)


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects to dotted paths; losses.terms and tuning are values, not parts."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        path = prefix + key
        if isinstance(value, dict) and path not in ("losses.terms", "tuning"):
            flat |= _flatten(value, path + ".")
        else:
            flat[path] = value
    return flat


def typed() -> str:
    """The command line that is being run, as one can type it again."""
    program, *arguments = sys.argv
    script = Path(program)
    start = ["python", program] if script.suffix == ".py" and script.name != "__main__.py" else ["scale-ray"]
    return shlex.join([*start, *arguments])


def read_pairs(text: str) -> list[tuple[str, str]]:
    pairs = []
    for part in split_list(text):
        source, _, target = (name.strip() for name in part.replace(">", ":").partition(":"))
        if not (source and target):
            raise ConfigError(f"--pairs: {part!r} is no domain pair: write source:target, as in mnist:mnistm")
        pairs.append((source, target))
    return pairs


def read_seeds(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in split_list(text)]
    except ValueError:
        numbers = []
    if not numbers:
        raise ConfigError(f"--seeds {text!r}: write how many (3), or the seeds themselves (7,8)")
    return numbers if "," in text else list(range(numbers[0]))
