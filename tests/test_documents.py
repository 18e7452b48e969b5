"""README and docs: every block runs or says why not, as do the examples of --help; the site builds."""

import json
import os
import re
import runpy
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from documents import REPOSITORY, Block, blocks, try_block
from PIL import Image
from report_stores import CREATED, OFFICE_HOME, cell_of, config_of, record_of

from scale_ray import cli
from scale_ray.cli.examples import EXAMPLES
from scale_ray.config import TuningBudget
from scale_ray.data.benchmarks import BENCHMARKS
from scale_ray.models import build_encoder
from scale_ray.store import Store, StudyPlan

README = REPOSITORY / "README.md"
PAGES = [README, *sorted((REPOSITORY / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


# Every block


def write_trees(folder: Path) -> None:
    """Folders of images by the names that the pages use."""
    numbers = np.random.default_rng(0)
    home, pacs, digits = (BENCHMARKS[name] for name in ("office_home", "pacs", "digits_standard"))
    trees = {
        "photos": (("studio", "phone"), ("bag", "chair", "mug"), 16),
        "OfficeHome": (home.domains, home.classes or (), 1),
        "PACS": (pacs.domains, pacs.classes or (), 1),
        "Digits": (digits.domains, digits.classes or (), 1),
        "EmojiPhoto": (("drawing", "photo"), ("ant", "brain"), 2),
    }
    for root, (domains, classes, count) in trees.items():
        for domain in domains:
            for name in classes:
                images = folder / root / domain / name
                images.mkdir(parents=True)
                for index in range(count):
                    pixels = numbers.integers(0, 256, (8, 8, 3), np.uint8)
                    Image.fromarray(pixels).resize((40, 40)).save(images / f"{index}.jpg")


def write_store(folder: Path) -> None:
    """A finished study with invented figures: two thresholds, two backbones."""
    store = Store(folder, create=True)
    configs = [
        config_of("Art", target, losses, backbone, seed, **OFFICE_HOME, **{"losses.threshold": threshold})
        for target in ("Clipart", "Product")
        for losses in ("ce", "ce+ssl", "ce+ssl+dist+reg")
        for backbone in ("resnet50", "resnet101")
        for threshold in (0.7, 0.8)
        for seed in range(2)
    ]
    for index, config in enumerate(configs):
        store.write_record(record_of(config, 50 + index % 7))
    store.write_plan(StudyPlan(name="ablation", created=CREATED, cells=[cell_of(config) for config in configs]))


def write_chosen(file: Path) -> None:
    """What a search of thresholds would leave."""
    file.parent.mkdir(parents=True)
    budget = TuningBudget(
        study="tuning-digits",
        validator="im",
        sampler="tpe",
        fields=("losses.threshold",),
        settings=24,
        steps=12_972,
        losses="ce+ssl+dist+reg",
        pairs=("mnist>mnistm",),
        seeds=(0,),
    )
    fields = {"data": {"benchmark": "digits"}, "losses": {"threshold": 0.85}, "tuning": budget.model_dump(mode="json")}
    file.write_text(json.dumps(fields))


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and weights that no step of a test trains."""
    folder = tmp_path_factory.mktemp("materials")
    write_trees(folder)
    for backbone in ("mobilenet_v2", "lenet"):
        torch.save(build_encoder(backbone, "none").state_dict(), folder / f"{backbone}.pth")
    lite = build_encoder("timm:tf_efficientnet_lite0.in1k", "none")
    torch.save(lite.state_dict(), folder / "efficientnet_lite0.pth")
    return folder


@pytest.fixture
def workplace(materials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a page's commands run: what a reader of the page would have there."""
    for path in materials.iterdir():
        (tmp_path / path.name).symlink_to(path)
    for name in ("experiments", "cluster", "Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    write_store(tmp_path / "runs" / "office_home")
    write_chosen(tmp_path / "runs" / "tuning" / "tuning" / "tuning-digits" / "chosen.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_run(page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(blocks(name_of(page), page.read_text()))
    names: dict[str, Any] = {"__name__": "page"}
    try:
        for block in found:
            try_block(block, names)
    finally:
        written = {Path(block.title).stem for block in found if block.title}
        for module in written & sys.modules.keys():
            del sys.modules[module]
    commands = "".join(block.text for block in found if block.language == "bash")
    for block in found:
        assert not block.title or f"python {block.title}" in commands, f"{block.place}: no command runs {block.title}"


def block_of(text: str) -> Block:
    (block,) = blocks("page.md", text)
    return block


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```\nmake demo\n```", "page.md:1: write a fence"),
        ("- item\n  ```bash\n  make demo\n  ```", "page.md:2: write a fence"),
        ("<!-- run: no -->\n```bash\nmake demo\n```", "page.md:2: write a marker"),
        ("<!-- run: never, it is slow -->\n```bash\nmake demo\n```", "page.md:2: write a marker"),
    ],
)
def test_a_block_in_no_known_form_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(blocks("page.md", text))


@pytest.mark.parametrize(
    "text",
    [
        "```perl\n1\n```",
        "```bash\nscale-ray status nowhere\n```",
        "<!-- run: no, needs a cluster -->\n```bash\nscale-ray ablate --sead 3\n```",
        "<!-- run: no, needs a cluster -->\n```bash\nscale-ray abblate --seeds 3\n```",
        "<!-- run: no, needs a cluster -->\n```bash\nscale-ray train --steps many\n```",
        "<!-- run: no, needs a cluster -->\n```bash\npython experiments/demo.py\n```",
        "<!-- run: no, needs a cluster -->\n```bash\npip install 'scale-ray[s4]'\n```",
        "<!-- run: no, needs a cluster -->\n```bash\nray up cluster/gpu.yaml --jess\n```",
        "<!-- run: with --dry-run -->\n```bash\nray submit cluster/gpu.yaml experiments/demo.py -- --sead 3\n```",
    ],
)
def test_a_wrong_block_fails(text: str, workplace: Path) -> None:
    block = block_of(text)
    with pytest.raises(AssertionError, match=block.place):
        try_block(block, {})


def test_python_that_is_not_run_must_import_what_exists() -> None:
    block = block_of("<!-- run: no, takes minutes -->\n```python\nfrom scale_ray import nothing_of_this_name\n```")
    with pytest.raises(ImportError, match="nothing_of_this_name"):
        try_block(block, {})


# The examples of --help

# What each command's examples are run with: a command that trains plans alone, or trains two steps.
SMALL = "--set data.image_size=32 --set data.resize=32"
RUN_WITH = {
    "": "",
    "adapt": f"--dry-run --weights mobilenet_v2.pth --backbone mobilenet_v2 --set optim.steps=20 {SMALL}",
    "train": f"--weights lenet.pth --backbone lenet --steps 2 --set optim.batch_size=4 {SMALL}",
    "ablate": "--dry-run",
    "compare": "--dry-run",
    "auto": "--dry-run",
    "tune": "--dry-run",
    "data clear": "--yes",
}


def test_the_examples_of_help_run_one_after_another(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALE_RAY_CACHE", str(workplace / "cache"))
    (workplace / "labels.csv").write_text("path,label\nphotos/phone/bag/0.jpg,bag\n")
    for name, text in EXAMPLES.items():
        for command in filter(None, text.replace("\\\n", "").splitlines()):
            options = RUN_WITH.get(name or command.split()[1], "")
            # tests/service has a service.
            of_a_service = command.split()[1] in ("serve", "submit", "token") and "--slurm" not in command
            downloads = command.startswith("scale-ray data get")  # tests/data/test_digits_standard.py has a server
            reason = "on a cluster" if "s3://" in command else "a service" if of_a_service else None
            reason = "downloads" if downloads else reason
            try_block(Block(f"scale-ray {name} --help", "bash", f"{command} {options}", reason=reason), {})


@pytest.mark.parametrize("experiment", ["ablation", "tuning"])
def test_the_examples_of_a_script_run(experiment: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path("experiments", f"{experiment}.py")
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit), redirect_stdout(StringIO()) as shown:
        runpy.run_path(str(script), run_name="__main__")
    _, examples = shown.getvalue().split("\nExamples:\n")
    commands = re.findall(r"^  (python .+)", examples, re.MULTILINE)
    assert len(commands) > 1
    for command in commands:
        try_block(Block(f"{script} --help", "bash", f"{command} --benchmark digits --dry-run"), {})


# Options in running text. These belong to other programs.
FOREIGN = {"--help", "--tmux", "--labels", "--force-reinstall", "--no-deps"}


def options_of(command: Any) -> set[str]:
    """Every long option of a command and of those below it."""
    found = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return found.union(*(options_of(below) for below in getattr(command, "commands", {}).values()))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_in_running_text_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    named = {option for code in re.findall(r"`([^`]+)`", text) for option in re.findall(r"--[a-z][a-z-]+", code)}
    assert named <= options_of(typer.main.get_command(cli.app)) | FOREIGN


# The README


def test_readme_is_short() -> None:
    text = README.read_text()
    assert len(text.split()) <= 900
    study = next(block for block in blocks("README.md", text) if block.language == "python")
    assert int(study.place.partition(":")[2]) < 60
    assert len(study.text.splitlines()) <= 10


def test_readme_links_to_what_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)", README.read_text())
    assert len(links) > 10
    for link in links:
        assert (REPOSITORY / link).is_file(), link


# The site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make docs` builds."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_in_the_site(site: Path) -> None:
    for page in PAGES[1:]:
        built = site / page.relative_to(REPOSITORY / "docs").with_suffix(".html")
        assert built.is_file(), name_of(page)


def test_pages_load_nothing_from_a_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe)\b[^>]*\bsrc=\"([^\"]+)", page.read_text())
        loaded += re.findall(r"<link\b[^>]*\bhref=\"([^\"]+)", page.read_text())
        assert loaded
        assert [address for address in loaded if "//" in address] == []


def test_reference_shows_what_is_public(site: Path) -> None:
    losses = (site / "reference" / "losses.html").read_text()
    assert 'id="scale_ray.losses.distribution_contrast"' in losses
    assert "temperature" in losses
    config = (site / "reference" / "config.html").read_text()
    assert 'id="scale_ray.config.LossesConfig.threshold"' in config
    assert "a pseudo-label counts where confidence" in config
