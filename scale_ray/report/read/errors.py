"""The error that every part of the report raises."""

from scale_ray.errors import UserError


class ReportError(UserError):
    """No trustworthy table can be made as asked. The message names the records or the option, and the remedy."""
