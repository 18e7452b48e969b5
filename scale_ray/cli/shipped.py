"""What comes with the package and is no module: experiments, and the batch script of SLURM."""

from pathlib import Path

import scale_ray


def shipped(name: str) -> Path:
    """Where a file or folder of the checkout is: in the package, as a wheel has it, or beside it."""
    package = Path(scale_ray.__file__).parent
    within = package / name
    return within if within.exists() else package.parent / name
