"""The parts of `chaos.py`. They use the tests' S3 server and clusters, so that there is one of each."""

import sys
from pathlib import Path

_TESTS = Path(__file__).parents[2] / "tests"
sys.path[:0] = [str(_TESTS), str(_TESTS / "sweep")]
