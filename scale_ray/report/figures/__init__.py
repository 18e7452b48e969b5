"""The figures of a report. A figure is drawn from a frame, a grid or a record; without data there is none (None)."""
