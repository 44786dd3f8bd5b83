"""The taxonomies that are shipped: YAML trees of findings, with the names that each data set has for them.

- `chexpert`: the thirteen findings of CheXpert and MIMIC-CXR with CheXpert's tree (`No Finding` is no finding).
- `nih`: the fourteen of NIH ChestX-ray14, no tree: its labels were mined one by one and do not imply one another.
- `vindr`: the 22 local and five global labels of VinDr-CXR, no tree.
- `padchest`: a subset of PadChest's 174 findings with the branches of PadChest's own tree that it covers.
- `hospital`: a radiology department's own list, in English with the French names.

Any other taxonomy is a YAML file of the same form, given by its path.
"""

from __future__ import annotations

from pathlib import Path

from weakray.errors import DataError
from weakray.taxonomy import Taxonomy

SHIPPED = ("chexpert", "nih", "vindr", "padchest", "hospital")


def taxonomy_file(name: str) -> Path:
    """The YAML file of a shipped taxonomy, or the path itself.

    Raises:
        DataError: if the name is neither a shipped taxonomy's nor a file.
    """
    path = Path(__file__).with_name(f"{name}.yaml") if name in SHIPPED else Path(name)
    if not path.is_file():
        raise DataError(f"taxonomy: expected one of {', '.join(SHIPPED)} or a YAML file, got {name!r}")
    return path


def load_taxonomy(name: str) -> Taxonomy:
    """A taxonomy by its name or path.

    Raises:
        DataError: if there is none, or it is no taxonomy.
    """
    return Taxonomy.load(taxonomy_file(name))
