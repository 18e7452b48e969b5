"""Input of a training step: images/s of the decoded cache with batched views, against torchvision's ImageFolder.

    python benchmarks/input.py --root PACS [--device cuda]

A step needs 32 source images (weak view) and 32 target images (weak and strong view): 64 images, 96 views. Ours are
`Batches.source` and `Batches.target`, with one single-threaded process per trial, 1 and 2 trials at a time. Theirs is
ImageFolder behind a DataLoader with 1 and 2 workers: the JPEG is decoded and resized each time, then come
RandomResizedCrop, flip, RandAugment(2, 10), normalisation, image by image, all of torchvision.transforms.v2; once on
tensors (uint8, decoded by torchvision.io) and once on PIL images. With `--device cuda` our views are computed there,
and their batches are copied there from pinned memory.

All pipelines take turns in every round, and every figure is the median over the rounds. Images per second and core
are per second of CPU time, summed over all processes of the pipeline, so that other load on the machine hardly affects
them. The images are those of the root, and the same enlarged to 500 pixels and stored as JPEG again: the size of a
photo in Office-Home, where decoding is most of the work. Everything is created in a temporary folder, the cache too.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from results import leave
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import InterpolationMode, v2

from scale_ray.config import Execution, TrialConfig
from scale_ray.data.batches import Batches, UnlabelledImages, hold_out
from scale_ray.data.benchmarks import BENCHMARKS
from scale_ray.data.decoded import Domain, open_domains
from scale_ray.data.image_folder import domain_folder
from scale_ray.data.views import IMAGENET_MEAN, IMAGENET_STD
from scale_ray.training.loop import Progress
from scale_ray.training.seeding import generator
from scale_ray.training.setup import configure_torch, find_device
from scale_ray.training.trial import Training

BENCHMARK = "image_folder"  # any folder of domains works; the config is that of PACS
STEP = 64  # images
WARM_UP = 4  # steps
ENLARGED = 500  # pixels
PIPELINES = ("ours", "theirs, tensors", "theirs, PIL")


@dataclass(frozen=True)
class Case:
    """What is read, and at which size. It is passed to each process."""

    images: str  # for people
    root: Path
    source: str
    target: str
    resize: int
    size: int
    device: str
    steps: int

    def config(self, **changes: Any) -> TrialConfig:
        sizes = {"data.resize": self.resize, "data.image_size": self.size}
        names = {"data.benchmark": BENCHMARK, "data.source": self.source, "data.target": self.target}
        return TrialConfig().replace(
            {**BENCHMARKS["pacs"].defaults, **names, **sizes, "model.weights": "none", **changes}
        )

    def domains(self) -> list[Domain]:
        names = [self.source, self.target]
        return open_domains(BENCHMARK, names, root=self.root, resize=self.resize, corrupt="error")


@dataclass(frozen=True)
class Speed:
    """Images per second of wall-clock time, and per second of CPU time."""

    wall: float
    core: float


# -------------------------------------------------------------------------------------------------------------- ours


def our_steps(case: Case) -> Iterator[object]:
    """The input that one trial reads, step after step."""
    config, device = case.config(), find_device(case.device)
    source, target = case.domains()
    generators = partial(generator, config.seed)
    training, _ = hold_out(source, config.data.holdout, generators("hold_out", 0))
    unlabelled = UnlabelledImages(target.images)
    batches = Batches(config, training, unlabelled, len(source.classes), generators, device)
    step = 0
    while True:
        yield batches.source(step), batches.target(step)
        step += 1


def run_ours(case: Case, start: Any, results: Any) -> None:
    """One process: report wall and CPU seconds of `case.steps` steps, run by all processes at the same time."""
    configure_torch(1)
    steps = our_steps(case)
    for _ in islice(steps, WARM_UP):
        pass
    synchronise(case.device)
    start.wait()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in islice(steps, case.steps):
        pass
    synchronise(case.device)
    results.put((time.perf_counter() - wall, time.process_time() - cpu))


def ours(case: Case, processes: int) -> Speed:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(processes), context.Queue()
    trials = [context.Process(target=run_ours, args=(case, start, results)) for _ in range(processes)]
    for trial in trials:
        trial.start()
    seconds = [results.get(timeout=600) for _ in trials]
    for trial in trials:
        trial.join()
    images = STEP * case.steps
    return Speed(sum(images / wall for wall, _ in seconds), processes * images / sum(cpu for _, cpu in seconds))


# ------------------------------------------------------------------------------------------------------------ theirs


class Pairs(Dataset):
    """Item i: a source image in its weak view with its label, and a target image in both views."""

    def __init__(self, case: Case, *, tensors: bool):
        decode: Callable[[str], Any] = decode_rgb if tensors else open_rgb
        self.weak, self.strong = (transform(case, strong=strong, tensors=tensors) for strong in (False, True))
        self.source = ImageFolder(case.root / case.source, self.weak, loader=decode)
        self.target = ImageFolder(case.root / case.target, self.both, loader=decode)
        generator = torch.Generator().manual_seed(0)
        count = (WARM_UP + case.steps + 8) * STEP // 2  # the workers are still busy when the last step is taken
        self.places = [torch.randint(len(part), (count,), generator=generator) for part in (self.source, self.target)]

    def both(self, image: Any) -> tuple[Tensor, Tensor]:
        return self.weak(image), self.strong(image)

    def __len__(self) -> int:
        return len(self.places[0])

    def __getitem__(self, index: int) -> tuple[Tensor, int, tuple[Tensor, Tensor]]:
        places = [int(part[index]) for part in self.places]
        image, label = self.source[places[0]]
        return image, label, self.target[places[1]][0]


def decode_rgb(path: str) -> Tensor:
    return decode_image(path, mode=ImageReadMode.RGB)


def open_rgb(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def transform(case: Case, *, strong: bool, tensors: bool) -> v2.Compose:
    """The same ranges as our views. A tensor needs no conversion at the end."""
    views = case.config().views
    augment = v2.RandAugment(
        views.randaugment_operations, views.randaugment_magnitude, interpolation=InterpolationMode.BILINEAR
    )
    return v2.Compose(
        [
            v2.Resize((case.resize, case.resize)),
            v2.RandomResizedCrop(case.size, scale=views.crop_scale),
            v2.RandomHorizontalFlip(),
            *([augment] if strong else []),
            *([] if tensors else [v2.ToImage()]),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def run_theirs(case: Case, workers: int, tensors: bool, results: Any) -> None:
    torch.set_num_threads(1)
    pairs = Pairs(case, tensors=tensors)
    loader = DataLoader(pairs, STEP // 2, num_workers=workers, pin_memory=case.device != "cpu")
    steps = iter(loader)
    pids = [os.getpid(), *(worker.pid for worker in multiprocessing.active_children() if worker.pid)]

    take(steps, WARM_UP, case.device)
    wall, cpu = time.perf_counter(), cpu_seconds(pids)
    take(steps, case.steps, case.device)
    results.put((time.perf_counter() - wall, cpu_seconds(pids) - cpu))
    for _ in steps:
        pass  # read to the end: a worker that is stopped in a batch sometimes aborts, which looks like an error


def take(steps: Iterator[Any], count: int, device: str) -> None:
    for image, label, (weak, strong) in islice(steps, count):
        if device != "cpu":
            for part in (image, label, weak, strong):
                part.to(device, non_blocking=True)
    synchronise(device)


def theirs(case: Case, processes: int, *, tensors: bool) -> Speed:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=run_theirs, args=(case, processes, tensors, results))
    process.start()
    wall, cpu = results.get(timeout=600)
    process.join()
    return Speed(STEP * case.steps / wall, STEP * case.steps / cpu)


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of running processes (proc(5), stat: fields 14 and 15)."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


# ---------------------------------------------------------------------------------------- one-off costs and the step


def build_seconds(case: Case) -> float:
    """Core seconds per image for building the cache on all cores: hashing, decoding, writing."""
    cpu = time.process_time()
    images = sum(len(domain.images) for domain in case.domains())
    return (time.process_time() - cpu) / images


def step_seconds(case: Case, backbone: str, steps: int) -> float:
    """Wall seconds of one whole training step, input included, with all four loss terms."""
    config = case.config(**{"model.backbone": backbone, "optim.warmup_steps": 0})
    source, target = case.domains()
    configure_torch(1)
    training = Training(config, source, {case.target: target}, find_device(case.device), Execution(threads=1))
    times = []

    def on_step(done: int) -> None:
        synchronise(case.device)
        times.append(time.perf_counter())

    training.run(progress=Progress(on_step=on_step), last=steps + 2)
    return statistics.median(after - before for before, after in pairwise(times[1:]))


def enlarge(root: Path, domains: list[str], into: Path, per_class: int) -> Path:
    """Some of the images at 500 x 500 pixels, as JPEG. The cost of decoding depends on the size, not on the detail."""
    for domain in domains:
        for folder in sorted(domain_folder("image_folder", domain, root).iterdir()):
            (into / domain / folder.name).mkdir(parents=True)
            for path in sorted(folder.iterdir())[:per_class]:
                image = open_rgb(str(path)).resize((ENLARGED, ENLARGED), Image.Resampling.BICUBIC)
                image.save(into / domain / folder.name / f"{path.stem}.jpg", quality=90)
    return into


# ------------------------------------------------------------------------------------------------------------- report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="PACS: the folder with photo, sketch ...")
    parser.add_argument("--source", default="photo")
    parser.add_argument("--target", default="sketch")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="steps of a pipeline in one round")
    parser.add_argument("--train-steps", type=int, default=3, help="training steps to time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SCALE_RAY_CACHE"] = str(Path(folder) / "cache")
        domains = [arguments.source, arguments.target]
        enlarged = enlarge(arguments.root, domains, Path(folder) / "enlarged", per_class=40)
        parts = (arguments.source, arguments.target)
        sizes = [("as they are", arguments.root, 144, 128), ("as they are", arguments.root, 256, 224)]
        cases = [
            Case(images, root, *parts, resize, size, arguments.device, arguments.steps)
            for images, root, resize, size in [*sizes, (f"{ENLARGED} px", enlarged, 256, 224)]
        ]
        rows, notes = [], []
        for case in cases:
            made = build_seconds(case)
            speeds = measure(case, arguments.rounds)
            rows += table(case, speeds)
            print(
                *rows[-len(speeds) :], sep="\n", flush=True
            )  # printed at once: the benchmark takes long and may be stopped early
            notes.append(cost_of_cache(case, made, speeds))
        notes += [share_of_step(case, arguments.train_steps) for case in cases[:2]]
        counts = " and ".join(f"{len(domain.images):,} of {domain.name}" for domain in cases[0].domains())
        notes.append(f"drawn from: {counts} (500 px: a part of them)")
    suffix = "" if arguments.device == "cpu" else f"_{arguments.device}"
    print(
        leave(
            f"input{suffix}",
            f"Input of training steps (32 source + 32 target images, 96 views), views on {arguments.device}",
            rows,
            [
                *notes,
                "a core's figure: images a second of CPU time of all processes of the pipeline",
                f"medians; rounds: {arguments.rounds}, of {arguments.steps} steps, the pipelines taking turns",
            ],
        )
    )


def measure(case: Case, rounds: int) -> dict[tuple[str, int], Speed]:
    """Medians by pipeline and number of processes."""
    measured: dict[tuple[str, int], list[Speed]] = {}
    for _ in range(rounds):
        for processes in (1, 2):
            measured.setdefault(("ours", processes), []).append(ours(case, processes))
            for name, tensors in (("theirs, tensors", True), ("theirs, PIL", False)):
                measured.setdefault((name, processes), []).append(theirs(case, processes, tensors=tensors))
    return {
        key: Speed(statistics.median(each.wall for each in all_), statistics.median(each.core for each in all_))
        for key, all_ in measured.items()
    }


def table(case: Case, speeds: dict[tuple[str, int], Speed]) -> list[dict[str, Any]]:
    rows = []
    for (name, processes), speed in sorted(speeds.items(), key=lambda item: (item[0][1], PIPELINES.index(item[0][0]))):
        our = speeds["ours", processes]
        rows.append(
            {
                "JPEGs": case.images,
                "resize > view": f"{case.resize} > {case.size}",
                "processes": processes,
                "pipeline": name,
                "images/s": round(speed.wall),
                "images/s a core": round(speed.core),
                "ours to it, wall": round(our.wall / speed.wall, 2),
                "ours to it, a core": round(our.core / speed.core, 2),
            }
        )
    return rows


def cost_of_cache(case: Case, made: float, speeds: dict[tuple[str, int], Speed]) -> str:
    best = max(speeds[name, 1].core for name in PIPELINES[1:])
    saved = 1 / best - 1 / speeds["ours", 1].core
    pays = (
        f"it pays after {made / saved:.1f} epochs" if saved > 0 else "theirs needs no more CPU time, so it never pays"
    )
    return (
        f"JPEGs {case.images}, {case.resize} px: the cache is made once at {1 / made:,.0f} images/s a core; "
        f"against the faster of theirs {pays}"
    )


def share_of_step(case: Case, train_steps: int) -> str:
    """Share of a step's time that its input takes, with one thread."""
    configure_torch(1)
    steps = our_steps(case)
    next(steps)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        next(steps)
        synchronise(case.device)
        times.append(time.perf_counter() - began)
    asked = statistics.median(times)
    shares = []
    for backbone in ("resnet18", "mobilenet_v2"):
        whole = step_seconds(case, backbone, train_steps)
        shares.append(f"{asked / whole:.1%} of {backbone}'s step ({whole:,.3f} s)")
    return f"{case.resize} > {case.size}: input takes {asked * 1e3:,.1f} ms, {' and '.join(shares)}, one thread"


if __name__ == "__main__":
    main()
