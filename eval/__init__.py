"""Figures: classification metrics, average precision of boxes, intervals, rivals that need no model, reports.

Takes labels, probabilities and boxes; makes numbers and HTML. Needs no torch. Never write `import eval`: it hides
the builtin; write `from eval.average_precision import ...`.
"""
