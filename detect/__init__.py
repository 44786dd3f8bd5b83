"""Pseudo-boxes → a fast detector → the bundle.

Takes a dataset folder and a boxes file; makes a trained YOLO, its predictions and the bundle that serves it. Does
not choose anything on test.
"""
