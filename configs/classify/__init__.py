"""Named recipes of classifiers from the literature, for `weakray classify train`."""
