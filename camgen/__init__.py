"""Class activation maps → boxes → a recipe fitted on annotated images.

Takes a dataset folder and trained members; makes `recipe.yaml` (fitted on tune alone) and pseudo-boxes for any image.
Does not train a network.
"""
