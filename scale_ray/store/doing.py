"""What a driver trains now, as its announcement says: for `scale-ray status` and for the service's page."""

from pydantic import BaseModel, ConfigDict


class Training(BaseModel):
    """A stage that was given to Ray, as it last reported."""

    model_config = ConfigDict(frozen=True)

    title: str
    cells: tuple[str, ...]  # ids of the cells whose records it leaves; of a shared part, none
    first: int  # step at which it starts
    step: int
    last: int
    started: bool  # False while it waits for a slot
    seconds_left: float | None = None  # None before its pace is measured
    target_accuracy: float | None = None  # percent, of the student at the last point of the curve
    source_val_accuracy: float | None = None  # percent, likewise

    @property
    def seconds_per_step(self) -> float | None:
        """Its pace; None before that is measured, and at its end."""
        if self.seconds_left is None or self.step >= self.last:
            return None
        return self.seconds_left / (self.last - self.step)


class Doing(BaseModel):
    """What a driver does.

    Attributes:
        study: name of the study or search.
        seconds_left: until the driver has done all that it is to do; None before a pace is measured.
        trainings: the stages that were given to Ray.
    """

    model_config = ConfigDict(frozen=True)

    study: str
    seconds_left: float | None = None
    trainings: tuple[Training, ...] = ()
