"""Files in the store that nobody needs any more: states of finished trainings, and what killed drivers left."""

from scale_ray.store import Store
from scale_ray.store.leases import Driver

# Ray Tune's own files, by driver. Nothing is read from them: the store says all that a next run needs.
SCRATCH = ".tune_"

# Ray Train's own files of unfinished trainings, in the store, by stage. Nothing is read from them either.
TRAIN_RUNS = ".ray_train"


def remove_leftovers(store: Store, driver: Driver, unneeded: frozenset[str]) -> None:
    """Remove the states under the keys `unneeded`, and what killed drivers left.

    Nothing is removed while another driver is alive: it may need what is there.
    """
    if driver.others():
        return
    store.remove_temporaries()
    for name in store.files.folders(""):
        if name.startswith(SCRATCH):
            store.files.delete_folder(name)
    for key in unneeded.intersection(store.stage_keys()):
        store.delete_stage(key)
    for key in unneeded.intersection(store.checkpoint_keys()):
        store.delete_checkpoint(key)
    for key in unneeded.intersection(store.files.folders(TRAIN_RUNS)):
        store.files.delete_folder(f"{TRAIN_RUNS}/{key}")
