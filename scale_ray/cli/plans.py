"""The plan of a study, as it is printed before anything runs."""

from collections.abc import Iterator

from scale_ray.budget import Budget
from scale_ray.cli.console import console
from scale_ray.config import Resources
from scale_ray.costs import duration
from scale_ray.stage import Stage
from scale_ray.store import Store
from scale_ray.study import Study, change_of, describe
from scale_ray.sweep.plan import Plan


def print_methods(study: Study) -> None:
    """The source of each method, the origin of its settings, and the cost of a step."""
    from scale_ray.methods import METHODS

    for value in study.axes["method"]:
        config = study.base.replace(change_of("method", value))
        method, usual = METHODS[config.method], study.usual.get(config.method, {})
        cost = method.passes(config).cost
        terms = f" {config.combination}" if config.method == "scale" else ""
        console.print(f"{config.variant}{terms}: {cost:.1f} x the passes of source_only")
        console.print(f"  source: {method.paper}")
        console.print(f"  defaults: {method.defaults}")
        if usual:
            settings = ", ".join(f"{path}={value}" for path, value in usual.items())
            console.print(f"  unlike the other methods: {settings}")


def print_plan(plan: Plan, store: Store, *, whole: bool) -> None:
    if whole:
        console.print_lines(_cell_lines(plan))
        console.print_lines(_stage_lines(plan))
    seconds = plan.estimated_seconds if plan.todo else None
    cost = f", about {duration(seconds)} of one trial slot" if seconds else ""
    unknown = "; the time left is said once some steps are measured" if plan.todo and seconds is None else ""
    saving = plan.steps_alone - plan.steps_to_do
    shared = f" ({plan.steps_alone:,} if none shared: {saving / plan.steps_alone:.0%} saved)" if saving else ""
    done, to_do = len(plan.answered) + len(plan.lacking), len(plan.todo) - len(plan.lacking)
    again = "".join(f", {kind} of {number} to make" for kind, number in _lacking(plan).items())
    console.print(
        f"{plan.study.name}: {len(plan.study.cells)} cells, {done} done{again}, {to_do} to do "
        f"({len(plan.failed_before)} failed before), {plan.steps_to_do:,} steps{shared}{cost}{unknown}"
    )


def print_budget(plan: Plan, budget: Budget, resources: Resources, device: str) -> None:
    """What the plan takes, in the unit of the budget.

    Raises:
        ConfigError: it counts GPUs, of trainings that were given none.
    """
    seconds = plan.estimated_seconds
    unit, how = _slot_second(budget, resources, device)
    if unit is None:
        told = how
    elif seconds is None:
        told = "what the plan takes is known once some steps are measured"
    else:
        told = f"the plan takes about {budget.told(seconds * unit)} {how}".rstrip()
    console.print(f"budget {budget.told()}: {told}", highlight=False)


def _slot_second(budget: Budget, resources: Resources, device: str) -> tuple[float | None, str]:
    """What a second of a trial slot takes of a budget, and what this means; None, and why it is not known."""
    if budget.unit == "seconds":
        return 1.0, "of one trial slot"
    if budget.unit == "GPU-hours":
        from scale_ray.sweep.cluster import bundle_of

        gpus = bundle_of(resources, device, 1).get("GPU", 0.0) * resources.workers
        budget.refuse_without(gpus)
        return gpus / 3600, f"with {gpus:g} GPU a training"
    from scale_ray.sweep.prices import slot_price

    price = slot_price(resources, device)
    if price is None:
        return None, "no price is known here; on the head of a cluster that `ray up` has started, its file has them"
    return price / 3600, f"at {price:,.2f} USD an hour of a trial slot, without the head"


def _lacking(plan: Plan) -> dict[str, int]:
    """What cells with a record lack beside it, and how many of them: these are trained again."""
    kinds = {"model": "models", "predictions": "predictions"}
    counts = {name: sum(kind in lacks for lacks in plan.lacking.values()) for kind, name in kinds.items()}
    return {name: number for name, number in counts.items() if number}


def _cell_lines(plan: Plan) -> Iterator[str]:
    todo = {cell.id for cell in plan.todo}
    for cell in plan.study.cells:
        answer = "done" if cell.id in plan.answered else "not in this run"
        state = answer if cell.id not in todo else "failed before" if cell.id in plan.failed_before else "to do"
        if cell.id in plan.lacking:
            state = f"done, its {' and '.join(plan.lacking[cell.id])} to make"
        yield f"{cell.id[:12]}  {describe(cell.config, plan.differing):<60} {state}"


def _stage_lines(plan: Plan) -> Iterator[str]:
    """The stages to train, each below the one that it goes on from."""
    yield f"{len(plan.stages)} stages to train:"
    trained = {stage.key for stage in plan.stages}
    children: dict[str | None, list[Stage]] = {}
    for stage in plan.stages:
        children.setdefault(stage.parent, []).append(stage)
    for stage in plan.stages:
        if stage.parent in trained:
            continue
        stored = "" if stage.parent is None else ", from a stored state"
        yield f"  {_stage_line(stage, plan)}{stored}"
        for child in children.get(stage.key, ()):
            yield f"    {_stage_line(child, plan)}"


def _stage_line(stage: Stage, plan: Plan) -> str:
    records = f", {len(stage.ends)} records" if len(stage.ends) > 1 else ""
    steps = f"steps {stage.first:,} to {stage.last:,}" if stage.steps else "no step, measured as it is"
    return f"{stage.title(plan.differing)}: {steps}{records}"
