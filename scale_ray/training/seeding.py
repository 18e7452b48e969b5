"""Randomness of step t is a function of (seed, stream, t), never of history.

That makes resume, sharing of stages and worker counts exact: whoever computes step t, in whatever process and after
whatever came before, draws the same numbers.
"""

import hashlib
import json

import torch


def step_seed(seed: int, stream: str, step: int) -> int:
    """The 63-bit seed of one step of one stream: a hash of (seed, stream, step), the same on every machine and run.

    Args:
        seed: the trial's seed.
        stream: what the numbers are for, such as "source" or "target_strong"; streams are independent.
        step: t, counted from the start of training, not from a resume.
    """
    key = json.dumps([seed, stream, step]).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1


def generator(seed: int, stream: str, step: int) -> torch.Generator:
    """A fresh CPU generator seeded with `step_seed(seed, stream, step)`; no global generator is touched.

    Torch's CPU generator keeps the low 32 bits of a seed.
    """
    return torch.Generator().manual_seed(step_seed(seed, stream, step))
