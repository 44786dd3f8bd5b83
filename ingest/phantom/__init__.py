"""A simulator of chest films with findings, to measure weakly supervised detection on.

Takes a seed, a patient's number, a difficulty and a range of sizes. Makes that patient's films: grey images, true
boxes and labels over a small tree of findings, and labels as a report miner would err about them. It writes no
files, draws no lateral views, and its films teach nothing about medicine.
"""

from ingest.phantom.simulate import Film, noisy_labels, simulate_patient
from ingest.phantom.taxonomy import FINDINGS, PARENTS

__all__ = ["FINDINGS", "PARENTS", "Film", "noisy_labels", "simulate_patient"]
