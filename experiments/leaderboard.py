"""Every method and variant on digits, on PACS and on EmojiPhoto-22: one budget, one table, one figure.

    python experiments/leaderboard.py --seeds 3
    python experiments/leaderboard.py --pacs PACS --emoji EmojiPhoto --mobilenet mobilenet_v2.pth --lite lite0.pth

Photographs train on features of two frozen encoders for 1,000 steps, digits a LeNet for 450. A set whose folder is not
given is left out. FOLDER is FOLDER/domain/class/image; EmojiPhoto has the domains `drawing` and `photo`. Without
--mobilenet and --lite, weights for ImageNet are downloaded; docs/backbones.md has a package with those of --lite.
The same command goes on after an interruption. The results of each set go to a file of their own in --results, and
the leaderboard is of all sets that have one: they may be trained on different days and machines.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from scale_ray import BENCHMARKS, Study, approaches, base_config, pairs, usual_settings
from scale_ray.cli import run_as_script
from scale_ray.cli.console import console
from scale_ray.cli.groups import command
from scale_ray.cli.options import ExecutionOptions, GridOptions, StudyOptions
from scale_ray.cli.read import read_seeds, split_list
from scale_ray.cli.running import run_planned
from scale_ray.cli.stop_signal import stop_signal
from scale_ray.config import ConfigError, check_name

ALIGNED = "/losses.alignment=source"
BOTH_STRONG = f"{ALIGNED}/views.source=alternating"
METHODS = [
    *("source_only", "dan", "dann", "cdan", "cdan/baseline.entropy_conditioning=true", "mcc", "mdd", "sdat"),
    *("mean_teacher", "fixmatch", "shot", "aad", "scale:ce+ssl", "scale"),
    *(f"scale:{terms}{views}" for terms in ("ce+ssl+mcc", "ce+ssl+dist+reg+mcc") for views in (ALIGNED, BOTH_STRONG)),
    *(f"scale/losses.pseudo_labels={labels}" for labels in ("prototype", "neighbours", "average")),
    *(f"scale/losses.thresholding={thresholds}" for thresholds in ("flex", "relative")),
]
ON_A_TRAINED_ENCODER = ["mic"]  # it masks images, which features of a frozen encoder are not
ON_PRETRAINED_FEATURES = ["prototypes"]  # so not on digits, whose LeNet starts from random weights

ENCODERS = {"mobilenet_v2": "mobilenet_v2", "lite0": "timm:tf_efficientnet_lite0.in1k"}
PHOTOGRAPHS = {"PACS": "pacs", "EmojiPhoto": "image_folder"}  # set -> benchmark
PAIRS = {
    "digits": BENCHMARKS["digits"].pairs,
    "PACS": BENCHMARKS["pacs"].pairs,
    "EmojiPhoto": (("drawing", "photo"), ("photo", "drawing")),
}
STUDIES = ["digits", *(f"{name}-{encoder}" for name in PHOTOGRAPHS for encoder in ENCODERS)]


def on_digits(seeds: Sequence[int], steps: int | None) -> Study:
    return _study("digits", "digits", "digits", {}, [*METHODS, *ON_A_TRAINED_ENCODER], seeds, steps)


def on_photographs(name: str, encoder: str, weights: str, seeds: Sequence[int], steps: int | None) -> Study:
    """A set with one frozen encoder; `name` is a key of PHOTOGRAPHS, `encoder` one of ENCODERS."""
    fields = {"model.encoder": "frozen", "model.backbone": ENCODERS[encoder], "model.weights": weights}
    methods = [*METHODS, *ON_PRETRAINED_FEATURES]
    return _study(f"{name}-{encoder}", name, PHOTOGRAPHS[name], fields, methods, seeds, steps)


def _study(
    name: str,
    set_: str,
    benchmark: str,
    fields: dict[str, Any],
    methods: Sequence[str],
    seeds: Sequence[int],
    steps: int | None,
) -> Study:
    base = base_config(benchmark, fields, steps=steps)
    return Study(
        name=name,
        # No figure here is of a curve: only the last step is evaluated.
        base=base.replace({"evaluate_every": base.optim.steps}),
        usual=usual_settings(base),  # of the methods' papers
        axes={"seed": seeds, "pair": pairs(*map(":".join, PAIRS[set_])), "method": approaches(*methods)},
    )


def leaderboard(
    ray: StudyOptions,
    execution: ExecutionOptions,
    pacs: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Images of PACS.", resolve_path=True)] = None,
    emoji: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Images of EmojiPhoto.", resolve_path=True)
    ] = None,
    mobilenet: Annotated[str, typer.Option(metavar="FILE", help="Weights of mobilenet_v2.")] = "imagenet",
    lite: Annotated[str, typer.Option(metavar="FILE", help="Weights of efficientnet_lite0.")] = "imagenet",
    only: Annotated[str | None, typer.Option(metavar="SET,…", help=f"Train these of {', '.join(STUDIES)}.")] = None,
    seeds: Annotated[str, typer.Option(metavar="N", help="How many: 3 means 0, 1, 2. Or the seeds: 7,8.")] = "3",
    steps: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of every training; for a try.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="The first N cells of each set.")] = None,
    allow: Annotated[str, typer.Option(metavar="KINDS", help="As of scale-ray report: records to accept.")] = "",
    results: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where leaderboard.md and leaderboard/SET.json go.")
    ] = Path("leaderboard"),
    figure: Annotated[Path, typer.Option(metavar="FILE", help="Where the figure goes.")] = Path("leaderboard.png"),
) -> None:
    numbers = read_seeds(seeds)
    roots = {"PACS": pacs, "EmojiPhoto": emoji}
    weights = {"mobilenet_v2": mobilenet, "lite0": lite}
    studies = {"digits": (on_digits(numbers, steps), None)} | {
        f"{name}-{encoder}": (on_photographs(name, encoder, weights[encoder], numbers, steps), root)
        for name, root in roots.items()
        if root is not None
        for encoder in ENCODERS
    }
    chosen = list(studies) if only is None else split_list(only)
    for name in chosen:
        check_name("set", name, STUDIES)
        if name not in studies:
            folder = "--pacs" if name.startswith("PACS") else "--emoji"
            raise ConfigError(f"--only {name}: its images lack: give {folder} FOLDER")
    left_out = [name for name in STUDIES if name not in chosen]
    if left_out:
        console.print(f"left out: {', '.join(left_out)} (--pacs, --emoji and --only decide)")

    outcomes = []
    for name, (study, root) in studies.items():
        if name in chosen:
            outcome = run_planned(study, execution.execution(root), GridOptions(limit=limit), ray)
            if outcome is not None and outcome.interrupted and not limit:
                console.print(
                    f"interrupted with {outcome.interrupted} cells to do: run the same command again to go on"
                )
                raise typer.Exit(stop_signal.exit_status)
            outcomes.append(outcome)
    if ray.dry_run:
        return

    from scale_ray.report.leaderboard import set_results, write_leaderboard

    for path in write_leaderboard(set_results(ray.store, STUDIES, split_list(allow)), STUDIES, results, figure):
        console.print(f"leaderboard: {path}")
    failed = sum(outcome.failed for outcome in outcomes if outcome is not None)
    if failed:
        console.print(f"{failed} cells failed: `scale-ray report {ray.store}` has their reasons")
        raise typer.Exit(1)


leaderboard.__doc__ = __doc__

if __name__ == "__main__":
    run_as_script(command(leaderboard), {"store": "runs/leaderboard", "keep_predictions": True})
