"""Exit statuses of a study's driver, which the service reads when its job has ended."""

DONE = 0
CELLS_FAILED = 1
USER_ERROR = 2  # something that a person has to mend
STORE_LACKS = 75  # the store could not be used, perhaps for a while: another job may go on
STOPPED = 130  # by order
