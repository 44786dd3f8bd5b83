"""Multi-label classifiers from image-level labels.

Takes a dataset folder; makes run folders of trained members and the ensemble's probabilities, with figures on val
and test labels. Does not look at boxes.
"""
