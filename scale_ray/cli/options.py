"""Options that several commands share, in groups of which a command takes each as one parameter."""

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scale_ray.cli import complete
from scale_ray.cli.read import root_in_config
from scale_ray.config import Execution, Resources, Root
from scale_ray.data.roots import read_root

if TYPE_CHECKING:
    from scale_ray.track import Tracker

# Headings under which --help lists the options.
TRAINED = "What is trained"
GRID = "The grid"
EXECUTION = "Where and how it runs"

# Of commands that take one of each.
Losses = Annotated[
    str | None,
    typer.Option(
        metavar="TERMS",
        autocompletion=complete.losses,
        help="Loss combination, as in ce+ssl+dist+reg.",
        rich_help_panel=TRAINED,
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=complete.backbone,
        help="Encoder. Default: the benchmark's.",
        rich_help_panel=TRAINED,
    ),
]

TRACKER = "tensorboard=FOLDER, mlflow=URI, wandb=[ENTITY/]PROJECT or trackio=PROJECT. Repeat it."
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="TRACKER",
        autocompletion=complete.tracker,
        help=f"Show the trainings live in a tracker: {TRACKER}",
        rich_help_panel=EXECUTION,
    ),
]


@dataclasses.dataclass(frozen=True)
class TrialOptions:
    """What every training has."""

    benchmark: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.benchmark,
            help="A name that `scale-ray data list` shows. Default: digits, or with --root image_folder.",
            rich_help_panel=TRAINED,
        ),
    ] = None
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="PLACE",
            help="Images: folder or URL of domain/class/image, catalogue (.toml), list (.csv, .parquet) or hf:NAME.",
            rich_help_panel=TRAINED,
        ),
    ] = None
    target_images: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="A target: images without labels. Repeat it.",
            rich_help_panel=TRAINED,
        ),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            autocompletion=complete.of("none", "imagenet", "openai"),
            help="none, imagenet, openai (CLIP), or a file.",
            rich_help_panel=TRAINED,
        ),
    ] = None
    frozen: Annotated[
        bool,
        typer.Option(
            "--frozen",
            help="Train heads on features of a frozen encoder.",
            rich_help_panel=TRAINED,
        ),
    ] = False
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Training steps; the warm-up changes in proportion.", rich_help_panel=TRAINED
        ),
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON of fields, nested or by dotted path, or a record (STORE/records/ID.json), whose config it is "
            "then; options override it.",
            rich_help_panel=TRAINED,
        ),
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            autocompletion=complete.field,
            help="Any field of `scale-ray fields`. Repeat it.",
            rich_help_panel=TRAINED,
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.root is None and self.config is not None:
            object.__setattr__(self, "root", root_in_config(self.config))

    @cached_property
    def images(self) -> Root | None:
        """Where the images are.

        Raises:
            ConfigError, DataError: see `read_root`.
        """
        return read_root(self.root, self.target_images or ())

    def benchmark_or(self, usual: str) -> str:
        """The benchmark where none is named: `digits` reads no folder, so a root means images of one's own."""
        return "image_folder" if usual == "digits" and self.images is not None else usual

    @property
    def fields(self) -> dict[str, Any]:
        """Dotted path -> value of the options that were given."""
        given = {
            "data.benchmark": self.benchmark,
            "model.weights": self.weights,
            "model.encoder": "frozen" if self.frozen else None,
        }
        return {path: value for path, value in given.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class ExecutionOptions:
    """How a training is run."""

    device: Annotated[
        str,
        typer.Option(
            metavar="NAME", autocompletion=complete.device, help="auto, cpu, cuda, cuda:1.", rich_help_panel=EXECUTION
        ),
    ] = "auto"
    checkpoint_every: Annotated[
        int, typer.Option(min=1, metavar="N", help="Steps between checkpoints.", rich_help_panel=EXECUTION)
    ] = 500
    keep_model: Annotated[
        bool | None,
        typer.Option(
            "--keep-model/--no-keep-model",
            help="Store trained models beside the records, for `scale-ray export` and `scale-ray predict`; a finished "
            "cell that lacks its model is trained again. Default: where the encoder is frozen (some MB a cell), of "
            "cells that are trained anyway.",
            rich_help_panel=EXECUTION,
        ),
    ] = None
    keep_predictions: Annotated[
        bool,
        typer.Option(
            "--keep-predictions",
            help="Store class probabilities of every target image beside the records (float16: at most 2 bytes x "
            "images x classes), which --choose ensv reads.",
            rich_help_panel=EXECUTION,
        ),
    ] = False
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="torch.compile the encoders: minutes of warm-up, faster steps on GPUs. May change last bits.",
            rich_help_panel=EXECUTION,
        ),
    ] = False
    channels_last: Annotated[
        bool,
        typer.Option(
            "--channels-last/--no-channels-last",
            help="Memory layout of images. May change last bits.",
            rich_help_panel=EXECUTION,
        ),
    ] = True

    hang_after: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="End a trial on Ray that has made no step for so long, and try it again; 0: never.",
            rich_help_panel=EXECUTION,
        ),
    ] = 1800

    def execution(self, root: Root | None, threads: int = 1) -> Execution:
        return Execution.parse({"root": root, "threads": threads, **dataclasses.asdict(self)})


@dataclasses.dataclass(frozen=True)
class RayOptions:
    """Where trials run on Ray, and what each of them gets."""

    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show what would run and its cost; run nothing.",
            rich_help_panel=EXECUTION,
        ),
    ] = False
    cpus_per_trial: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="CPUs, and so torch threads, of one trial.", rich_help_panel=EXECUTION),
    ] = 1
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="N",
            help="GPUs of one trial; with 0.5, two share one. Default: 1 where there are any.",
            rich_help_panel=EXECUTION,
        ),
    ] = None
    workers_per_trial: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Processes that share each batch, by Ray Train. Default: 1.",
            rich_help_panel=EXECUTION,
        ),
    ] = None
    ray_train: Annotated[
        str,
        typer.Option(
            metavar="WHEN",
            autocompletion=complete.of("auto", "always", "never"),
            help="auto: trials of several workers run under Ray Train; always: the others too; never.",
            rich_help_panel=EXECUTION,
        ),
    ] = "auto"
    local: Annotated[
        bool,
        typer.Option(
            "--local",
            help="Start Ray on this machine, even if it belongs to a cluster.",
            rich_help_panel=EXECUTION,
        ),
    ] = False
    address: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_ADDRESS",
            metavar="ADDRESS",
            help="Ray cluster to join. Default: this machine's if it belongs to one, else as --local.",
            rich_help_panel=EXECUTION,
        ),
    ] = None
    track: Track = None

    def trackers(self) -> "dict[str, Tracker]":
        """The trackers that are told, open; none of a dry run, which only checks how they are written.

        Raises:
            UserError: a tracker cannot be used.
        """
        from scale_ray.track import check_targets, open_trackers

        if self.dry_run:
            check_targets(self.track or ())
            return {}
        return open_trackers(self.track or ())

    @property
    def fields(self) -> dict[str, Any]:
        """The config field that these options set, by dotted path."""
        return {} if self.workers_per_trial is None else {"parallel.workers": self.workers_per_trial}

    def resources(self, workers: int) -> Resources:
        """What a trial asks Ray for.

        Args:
            workers: `parallel.workers` of the config.

        Raises:
            ConfigError: the options do not go together, Ray cannot give what they ask for, or the address is of another
                kind than a study needs.
        """
        return Resources.parse(
            {
                "cpus": self.cpus_per_trial,
                "gpus": self.gpus_per_trial,
                "workers": workers,
                "ray_train": self.ray_train,
                "address": "local" if self.local else self.address,
            }
        )


@dataclasses.dataclass(frozen=True)
class StudyOptions(RayOptions):
    """Where a study runs, and where its store is."""

    store: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|URL",
            help="Where records are kept.",
            rich_help_panel=EXECUTION,
        ),
    ] = "runs/study"


@dataclasses.dataclass(frozen=True)
class GridOptions:
    """The axes of a study."""

    pairs: Annotated[
        str | None,
        typer.Option(metavar="S:T,…", help="Domain pairs. Default: the study's or benchmark's.", rich_help_panel=GRID),
    ] = None
    losses: Annotated[
        str | None,
        typer.Option(
            metavar="TERMS,…",
            autocompletion=complete.losses,
            help="Loss combinations: ce,ce+ssl,ce+ssl+dist+reg.",
            rich_help_panel=GRID,
        ),
    ] = None
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD,…",
            autocompletion=complete.methods,
            help="METHOD[:TERMS][/FIELD=VALUE…][@BACKBONE[=WEIGHTS]]: dann, scale:ce+ssl, scale/losses.contrast=bank, "
            "clip_zero_shot@clip_rn50=openai.",
            rich_help_panel=GRID,
        ),
    ] = None
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            autocompletion=complete.backbones,
            help="Encoders. Default: the study's, or the benchmark's.",
            rich_help_panel=GRID,
        ),
    ] = None
    seeds: Annotated[
        str | None,
        typer.Option(metavar="N", help="How many: 3 means 0, 1, 2. Or the seeds: 7,8.", rich_help_panel=GRID),
    ] = None
    axes: Annotated[
        list[str] | None,
        typer.Option(
            "--axis",
            metavar="PATH=V,V,…",
            autocompletion=complete.field,
            help="A further axis: losses.threshold=0.7,0.8. Repeat it.",
            rich_help_panel=GRID,
        ),
    ] = None
    until: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Add seeds until ±POINTS or a difference is shown.",
            rich_help_panel=GRID,
        ),
    ] = None
    most_seeds: Annotated[
        int | None,
        typer.Option(
            min=2, metavar="N", help="Seeds that --until may give an approach. Default: 20.", rich_help_panel=GRID
        ),
    ] = None
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Run only the first N cells.", rich_help_panel=GRID)
    ] = None
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The study's name in the store.", rich_help_panel=GRID)
    ] = None
    sharing: Annotated[
        bool,
        typer.Option(
            "--sharing/--no-sharing",
            help="Train once what cells have in common; records are the same either way.",
            rich_help_panel=EXECUTION,
        ),
    ] = True
