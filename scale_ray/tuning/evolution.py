"""CMA-ES as a sampler that keeps nothing but numbers.

Optuna's own CmaEsSampler stores its optimiser pickled in the trials and unpickles it, so that whoever can write to a
journal can run code. Here the optimiser is made anew for every setting, from the settings that are done.
"""

from typing import TYPE_CHECKING, Any

from optuna import Study
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from scale_ray.tuning.attributes import GENERATION

if TYPE_CHECKING:
    from cmaes import CMA


class EvolutionSampler(BaseSampler):
    """Covariance matrix adaptation, https://arxiv.org/abs/1604.00772, on a unit cube with the step size 1/6.

    A generation is told the first of its settings that were done, as many as it has. The first setting is random.

    Args:
        seed: of the next proposal.
    """

    def __init__(self, seed: int):
        self._seed = seed
        self._random = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return next((dict(sorted(each.distributions.items())) for each in _done(study)), {})

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space:  # no setting is done
            return {}
        space = _SearchSpaceTransform(search_space, transform_0_1=True)
        optimiser = _told(space, _done(study), self._seed)
        study._storage.set_trial_system_attr(trial._trial_id, GENERATION, optimiser.generation)
        return space.untransform(optimiser.ask())

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)


def _done(study: Study) -> list[FrozenTrial]:
    """The settings of the space that are done: a default outside of it has no place on the cube."""
    return [each for each in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if each.distributions]


def _told(space: _SearchSpaceTransform, done: list[FrozenTrial], seed: int) -> "CMA":
    """The optimiser after all whole generations among these settings; it is a function of them."""
    from cmaes import CMA  # not of the light distribution, which reads searches and proposes nothing

    size = len(space.bounds)
    optimiser = CMA(
        mean=space.bounds.mean(axis=1), sigma=1 / 6, bounds=space.bounds, seed=seed, n_max_resampling=10 * size
    )
    generations: dict[int, list[FrozenTrial]] = {}
    for trial in sorted(done, key=lambda trial: (trial.datetime_complete, trial.number)):
        generations.setdefault(trial.system_attrs.get(GENERATION, -1), []).append(trial)
    while len(told := generations.get(optimiser.generation, [])) >= optimiser.population_size:
        optimiser.tell(
            [(space.transform(trial.params), -trial.values[0]) for trial in told[: optimiser.population_size]]
        )
    return optimiser
