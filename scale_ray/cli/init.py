"""scale-ray init: a file with a study of one's own, to begin with."""

from itertools import permutations
from pathlib import Path
from typing import Annotated

import typer

from scale_ray.cli.console import console
from scale_ray.config import ConfigError
from scale_ray.errors import shown

_MOST_PAIRS = 6  # that a new file names

_TEXT = '''"""What this study asks: write it here, in one line.

    python {file} --dry-run
    python {file}

The options of `scale-ray ablate` change the study, and the same command goes on after an interruption.
"""

from scale_ray import Study, base_config, combinations, main, pairs

study = Study(
    name="{name}",
    base=base_config("{benchmark}"{fields}),
    axes={{
        "seed": [0, 1, 2],
        "pair": pairs({pairs}),
        "losses": combinations("ce", "ce+ssl", "ce+ssl+dist+reg"),
        # Any field of a config is an axis, and `scale-ray fields` lists them:
        # "losses.threshold": [0.7, 0.8, 0.9],
    }},
)

if __name__ == "__main__":
    main(study, store="runs/{name}"{options})
'''


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE.py", help="The file to write. An existing one is kept.")],
    root: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Your images: FOLDER/domain/class/image. Without it: embedded digits."),
    ] = None,
    frozen: Annotated[
        bool, typer.Option("--frozen", help="Train on features of a frozen encoder: minutes on a CPU.")
    ] = False,
) -> None:
    """Write a file with a study of your own: a few lines of Python to change, which run as they are."""
    if file.suffix != ".py":
        raise ConfigError(f"{shown(file)}: no name of a Python file: write {shown(file.with_suffix('.py'))}")
    text = study_file(file, root, frozen=frozen)
    try:
        with file.open("x") as out:
            out.write(text)
    except FileExistsError:
        raise ConfigError(f"{shown(file)}: exists already: choose another name, or remove it") from None
    except OSError as error:
        raise ConfigError(f"{shown(file)}: cannot be written ({error.strerror}): choose another folder") from None
    console.print(f"wrote {file}: `python {file} --dry-run` shows what it comes to")


def study_file(file: Path, root: Path | None, *, frozen: bool) -> str:
    """The text of the file.

    Raises:
        UserError: the root holds no two domains.
    """
    from scale_ray.data.benchmarks import BENCHMARKS

    if root is None:
        of_digits = [":".join(pair) for pair in BENCHMARKS["digits"].pairs[:2]]
        return _filled(file, "digits", of_digits, "", frozen=frozen)
    from scale_ray.data.decoded import domain_names
    from scale_ray.data.roots import read_root, written

    names = domain_names("image_folder", root=read_root(root, ()))
    if len(names) < 2:
        raise ConfigError(
            f"--root {shown(root)}: has the domains {names or 'none'}, and a study needs two: a domain is a folder "
            "with a folder for each class"
        )
    found = [":".join(pair) for pair in permutations(names, 2)][:_MOST_PAIRS]
    return _filled(file, "image_folder", found, f", root={written(root)!r}", frozen=frozen)


def _filled(file: Path, benchmark: str, found: list[str], options: str, *, frozen: bool) -> str:
    return _TEXT.format(
        file=file.name,
        name=file.stem,
        benchmark=benchmark,
        fields=', {"model.encoder": "frozen"}' if frozen else "",
        pairs=", ".join(f'"{pair}"' for pair in found),
        options=options,
    )
