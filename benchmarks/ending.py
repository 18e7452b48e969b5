"""How soon a study ends after SIGTERM, which `ray job stop` follows with SIGKILL after 3 s.

    python benchmarks/ending.py [--repeats 5]

Each time a study of tiny images starts on a Ray of its own, gets SIGTERM once a training has left a checkpoint, and is
timed until its process is gone. Then it must not be announced in the store any more, so that its leases are void.
"""

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from faults.study import command
from results import leave
from tiny_images import make_images

from scale_ray.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        make_images(root, ["plain", "inverted"], [16, 16, 16])
        for number in range(options.repeats):
            rows.append(_end(root, Path(folder) / f"store{number}"))
            print(rows[-1], flush=True)
    seconds = [row["seconds"] for row in rows]
    text = leave(
        "ending",
        "From SIGTERM to the end of a study",
        rows,
        [f"median {statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s; goal 2 s"],
    )
    print(text)
    sys.exit(any(row["status"] != 128 + signal.SIGTERM or row["announcements"] for row in rows))


def _end(root: Path, store: Path) -> dict[str, float | int]:
    """Seconds until a study is gone, its exit status, and how many announcements it leaves."""
    study = subprocess.Popen(command(root, str(store), 24, "--local"), stdout=subprocess.DEVNULL, cwd=root.parent)
    while study.poll() is None and not any(store.glob("checkpoints/*.pt")):
        time.sleep(0.02)
    began = time.monotonic()
    study.send_signal(signal.SIGTERM)
    status = study.wait()
    seconds = time.monotonic() - began
    left = Store(str(store)).files.names("drivers")
    return {"seconds": round(seconds, 2), "status": status, "announcements": len(left)}


if __name__ == "__main__":
    main()
