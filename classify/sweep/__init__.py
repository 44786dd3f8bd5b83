"""The search for good settings of `classify train`.

Takes settings, a space around them and a dataset folder; makes an ordinary training run for each trial, a record of
them in SQLite, a table, a plot and the best settings. Scores are of *val*; nothing else is looked at.
"""
