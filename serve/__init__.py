"""The bundle behind HTTP.

Takes a bundle folder; answers with probabilities, boxes and maps for the films of a study, and shows a page. Needs no
torch: the bundle and its runtime stand in `weakray.bundle`. Keeps nothing of what it is sent.
"""
