"""Random numbers of step t as a function of (seed, stream, t), without history.

Step t therefore draws the same numbers in any process and after any previous steps. Resumed trainings, shared stages
and any number of workers give exactly the results of an uninterrupted training in one process.
"""

import hashlib
import json

import torch


def step_seed(seed: int, stream: str, step: int) -> int:
    """The 63-bit seed of one step in one stream: a hash of (seed, stream, step), the same on all machines.

    Args:
        seed: the trial's seed.
        stream: purpose of the numbers, such as "source" or "target_strong"; streams are independent.
        step: t, counted from the start of the training, also after a resume.
    """
    key = json.dumps([seed, stream, step]).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1


def generator(seed: int, stream: str, step: int) -> torch.Generator:
    """A new CPU generator with the seed `step_seed(seed, stream, step)`. Global generators are not changed.

    Torch's CPU generator uses the low 32 bits of a seed.
    """
    return torch.Generator().manual_seed(step_seed(seed, stream, step))


def seed_global_generators(seed: int, device: torch.device) -> None:
    """Seed the global generators of the CPU and of `device`.

    On a CPU `torch.manual_seed` gives the same numbers, but it also keeps a call and its stack for every kind of
    accelerator that torch knows: at every step, about 0.3 ms and memory that only grows.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
