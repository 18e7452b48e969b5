"""The domain pairs that images without labels stand for."""

from scale_ray.config import Catalogue, Root


def usual_pairs(root: Root | None) -> list[tuple[str, str]]:
    """Every labelled domain of a catalogue to every one without labels; of a folder of domains there are none."""
    if not isinstance(root, Catalogue):
        return []
    places = dict(root.domains)
    targets = [name for name, place in places.items() if not place.labelled]
    return [(source, target) for source in places if places[source].labelled for target in targets]
