"""An experiment of one training whose steps take 50 ms each until a file is there: ROOT STORE FILE [options].

From then on each step adds a byte to the file.
"""

import sys
import time
from pathlib import Path

from tiny_trial import TINY

from scale_ray import LOSSES, LossTerm, Study, TrialConfig, approaches, main

root, store, file, *options = sys.argv[1:]


def wait(step, losses):
    if Path(file).exists():
        with open(file, "a") as steps:
            steps.write(".")
    else:
        time.sleep(0.05)
    return step.target_logits.sum() * 0


LOSSES["wait"] = LossTerm(wait, needs=frozenset({"target"}), after_warmup=True)
config = TrialConfig().replace(TINY | {"optim.steps": 300, "evaluate_every": 150})
study = Study("waiting", config, {"method": approaches("scale:ce+wait")})

if __name__ == "__main__":
    sys.argv[1:] = options
    main(study, root=root, store=store, local=True, device="cpu")
