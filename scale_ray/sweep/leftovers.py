"""Files in the store that nobody needs any more: states of finished trainings, and what killed drivers left."""

from scale_ray.store import Store
from scale_ray.store.leases import Driver

# Ray Tune's own files, by driver. Nothing is read from them: the store says all that a next run needs.
SCRATCH = ".tune_"

# Ray Train's own files of unfinished trainings, in the store, by stage. Nothing is read from them either.
TRAIN_RUNS = ".ray_train"


def remove_leftovers(store: Store, driver: Driver, unneeded: frozenset[str]) -> None:
    """Remove the states under the keys `unneeded`, failures of trials that are done, and what killed drivers left.

    Nothing is removed while another driver is alive: it may need what is there. A driver announces itself before it
    makes anything. So all is listed first: whose was made by a driver that lives, its announcement is there by then.
    """
    scratch = [name for name in store.files.folders("") if name.startswith(SCRATCH)]
    stages = unneeded.intersection(store.stage_keys())
    checkpoints = unneeded.intersection(store.checkpoint_keys())
    train_runs = unneeded.intersection(store.files.folders(TRAIN_RUNS))
    if driver.others(now=True):
        return
    for key in stages:
        store.delete_stage(key)
    for key in checkpoints:
        store.delete_checkpoint(key)
    for name in (*scratch, *(f"{TRAIN_RUNS}/{key}" for key in train_runs)):
        store.files.delete_folder(name)
    store.remove_overcome_failures()
    store.remove_temporaries()  # a writer that has begun meanwhile writes again
