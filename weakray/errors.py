"""The errors that users may cause. The command line prints each as one line and exits with code 2."""


class WeakrayError(Exception):
    """Base of every error that a user can mend: says what was expected, what came, and how to mend it."""


class ConfigError(WeakrayError):
    """A setting is unknown, of the wrong type, or out of range; the message names its dotted path."""


class DataError(WeakrayError):
    """An input file, dataset folder or array does not hold what it should."""


class LimitError(DataError):
    """An input is larger than its limits; found before its pixels were decoded."""


class RunError(WeakrayError):
    """A run folder cannot be used, or a stage lacks what an earlier stage should have left."""


class DivergedError(RunError):
    """A loss that is not finite; the run cannot go on under these settings."""


class BundleError(WeakrayError):
    """A bundle is incomplete, of another format version, or its files do not match their hashes."""
