"""The report of a pipeline: one HTML file that carries its images, its drawings and its style inside.

Takes a summary, training curves, dataset counts and a few cases; makes `report.html`. It computes no score: what it
prints was scored elsewhere. No script, no request, the same bytes for the same content.
"""
