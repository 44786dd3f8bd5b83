"""The page of a dataset folder, which a person looks at before anything is trained.

Takes a dataset folder; makes `report.html`, one file that needs nothing else, and `figures.json` with its figures. It
changes no label, split or image, and never opens the boxes of train images.
"""
