"""Exit statuses of a study's driver, which the service reads when its job has ended."""

DONE = 0
CELLS_FAILED = 1
USER_ERROR = 2  # something that a person has to mend
STOPPED = 130  # by order
