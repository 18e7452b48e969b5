"""The service: studies submitted, watched, changed and resumed over HTTP.

The store stays the only truth about results. The service keeps one row for each study (`database`), runs it as a Ray
job (`jobs`, `driver`) and brings the two together again after any loss (`reconcile`).
"""
