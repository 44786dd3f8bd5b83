"""Any dataset → one dataset folder.

Takes a data set in its own files (or a seed, for the phantom); makes the dataset folder of `weakray.dataset`, with
`rejected.csv` naming every input that was not taken and why. Does not train, score or alter an image.
"""
