"""Uses every addition that `test_contributing` has made to a copy of the package: ROOT STORE OUT."""

import sys
from pathlib import Path

import pandas as pd
from tiny_trial import TINY

import scale_ray
from scale_ray import Execution, Study, TrialConfig, plan, train
from scale_ray.identity import declaration_problems
from scale_ray.report import candidates, choice, load, write_report
from scale_ray.report.build import Asked
from scale_ray.store import Store
from scale_ray.track import UNPLANNED, Names, open_trackers, send_records
from scale_ray.tuning.early_stop import RULES
from scale_ray.tuning.optuna_study import SAMPLERS

root, store, out = map(Path, sys.argv[1:])
package = Path(scale_ray.__file__).parent
assert package == Path.cwd() / "scale_ray", package
base = TrialConfig().replace(TINY)
execution = Execution(root=root, device="cpu")

assert declaration_problems() == []

# A loss term with a setting, and what a cell with another value of it still shares.
shrink = base.replace({"losses.terms": "ce+ssl+0.1*shrink", "losses.shrink_margin": 0.5})
losses = train(shrink, root, store, execution=execution).result.curve[-1].losses
assert losses.keys() == {"ce", "ssl", "shrink"}
study = Study("margins", shrink, {"losses.shrink_margin": [0.3, 0.5, 0.7], "seed": [5]})
planned = plan(study, store, root)
assert [len(stage.waiting) for stage in planned.stages if not stage.ends] == [3]

# A backbone, a strong view and a schedule in one trial; validators in its record.
config = base.replace({"model.backbone": "small", "views.strong": "dimmed", "optim.schedule": "halved"})
result = train(config, root, store, execution=execution).result
assert result.validators["spread"] >= 0

# A method with a setting, and a variant.
config = base.replace({"method": "halved", "losses.terms": "ce", "baseline.halved_factor": 0.25})
assert scale_ray.base_config("digits", {"method": "halved", "losses.terms": "ce"}).baseline.halved_factor == 0.25
assert "confusion" in train(config, root, store, execution=execution).result.curve[-1].losses
assert base.replace({"losses.consistency": "mse"}).variant == "scale mse"

# A CLIP and a data set.
on_clip = {"method": "clip_zero_shot", "losses.terms": "ce", "model.backbone": "clip_small"}
assert train(base.replace(on_clip), root, store, execution=execution).status == "done"
assert train(base.replace({"data.benchmark": "mine"}), root, store, execution=execution).config.data.benchmark == "mine"

# A set validator, on stored predictions.
keeping = execution.model_copy(update={"keep_predictions": True})
kept = Store(f"{store}-predictions", create=True)
for seed in (0, 1):
    train(base.replace({"seed": seed}), root, kept.location, execution=keeping)
assert choice(candidates(load(kept.location), kept), "surest")["choice"].tolist()

assert SAMPLERS["again"](0) is not None
assert RULES["early"]("validator_im", 10, 80) is not None

# A tracker, live and afterwards.
lines = out.with_name("lines.txt")
record = train(base.replace({"seed": 9}), root, store, execution=execution, track=[f"lines={lines}"])
assert [line.split()[0] for line in lines.read_text().splitlines()] == [record.id]
(tracker,) = open_trackers([f"lines={lines}"]).values()
assert send_records(tracker, UNPLANNED, [record.id], Names([]), Store(store)).there == 1

# A table of effects, a figure and a table format in a report.
write_report(store, out, Asked())
assert pd.read_csv(out / "spans.csv")["points_of_cells"].tolist()
assert "How far cells are apart" in (out / "effects.md").read_text()
assert list((out / "figures").glob("counted-*.png"))
assert (out / "losses_by_backbone.txt").read_text().startswith("tables: ")
assert Store(store).record_ids()
