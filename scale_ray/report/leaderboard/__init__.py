"""Methods by sets, the results of each set in a file of its own."""

from scale_ray.report.leaderboard.sets import SetResult, set_results
from scale_ray.report.leaderboard.write import Leaderboard, leaderboard, write_leaderboard

__all__ = ["Leaderboard", "SetResult", "leaderboard", "set_results", "write_leaderboard"]
