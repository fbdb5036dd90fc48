"""The loggers of a run: Lightning's, each with the settings, the rows and the results."""
