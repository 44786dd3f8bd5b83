"""First weights from another classifier: trained on one dataset folder, fine-tuned on another.

The backbone comes whole. Of the head come the rows of the findings that both know, by name or synonym; all others
start fresh. A first convolution over three channels becomes one over grey by summing them (the same output for equal
planes), one over grey becomes one over three by a third each.
"""

from __future__ import annotations

from torch import Tensor

from classify.member import Member
from classify.model import Classifier
from weakray.config import StrictModel
from weakray.errors import ConfigError
from weakray.taxonomy import Taxonomy

_BACKBONE = "backbone."
_UNCERTAIN = "uncertain."


class Transfer(StrictModel):
    """What a classifier took from another before its training.

    Attributes:
        source_sha256: the other's.
        backbone_tensors: parameters and buffers of the backbone, all taken.
        channels: how the first convolution was changed, such as "3 to 1"; None where it was taken as it is.
        findings_taken: whose rows of the head were taken, by their names here.
        findings_fresh: the rest of them.
        findings_dropped: the other's findings that are none here, by their names there.
        unlike_head: the head's tensors that one of them lacks, or that differ in shape; if any, all findings are fresh.
            What says "uncertain" is not among them: a trained member is kept without it, so it always starts fresh.
    """

    source_sha256: str
    backbone_tensors: int
    channels: str | None
    findings_taken: tuple[str, ...]
    findings_fresh: tuple[str, ...]
    findings_dropped: tuple[str, ...]
    unlike_head: tuple[str, ...]

    @property
    def line(self) -> str:
        """One line for people."""
        channels = "" if self.channels is None else f", first convolution from {self.channels} channels"
        return (
            f"init: {self.backbone_tensors} tensors of the backbone{channels}; of the head "
            f"{_counted('taken', self.findings_taken)}, {_counted('fresh', self.findings_fresh)}, "
            f"{_counted('dropped', self.findings_dropped)}"
        )


def take_weights(model: Classifier, taxonomy: Taxonomy, source: Member) -> Transfer:
    """Puts a member's weights into a classifier, in place.

    Args:
        model: takes them.
        taxonomy: its findings.
        source: gives them.

    Returns:
        What was taken, what was dropped and what stays fresh.

    Raises:
        ConfigError: if the backbones differ.
        DataError: if synonyms would pair a finding with two.
    """
    _check_backbones(model, source)
    own, theirs = model.state_dict(), source.model.state_dict()
    fixed = {name for name, _ in model.named_buffers(recurse=False)}  # the normalisation goes with the input
    backbone = [name for name in own if name.startswith(_BACKBONE)]
    new: dict[str, Tensor] = {name: _backbone_weight(name, own[name], theirs[name], source) for name in backbone}
    head = [name for name in own if name not in fixed and name not in new and not name.startswith(_UNCERTAIN)]
    counts = (len(taxonomy), len(source.taxonomy))
    gone = [name for name in theirs if name not in own]
    unlike = [name for name in head if name not in theirs or not _alike(own[name], theirs[name], counts)] + gone
    rows = {} if unlike else taxonomy.shared_with(source.taxonomy)
    for name in head if rows else ():
        by_finding = _by_finding(own[name], theirs[name], counts)
        new[name] = own[name].clone() if by_finding else theirs[name]
        if by_finding:
            new[name][list(rows)] = theirs[name][list(rows.values())]
    model.load_state_dict(own | new)
    return Transfer(
        source_sha256=source.sha256,
        backbone_tensors=len(backbone),
        channels=_change(model, source),
        findings_taken=tuple(taxonomy.names[i] for i in rows),
        findings_fresh=tuple(name for i, name in enumerate(taxonomy.names) if i not in rows),
        findings_dropped=tuple(name for i, name in enumerate(source.findings) if i not in rows.values()),
        unlike_head=tuple(unlike),
    )


def _check_backbones(model: Classifier, source: Member) -> None:
    for what in ("backbone", "drop_stages"):
        here, there = getattr(model.config, what), getattr(source.config, what)
        if here != there:
            raise ConfigError(
                f"init: {source.folder} has model.{what} {there!r}, this classifier {here!r}; expected equal ones"
            )
    own, theirs = (
        {name for name in whole.state_dict() if name.startswith(_BACKBONE)} for whole in (model, source.model)
    )
    if own != theirs:
        odd = min(own ^ theirs)
        raise ConfigError(
            f"init: the weight {odd} is in the backbone of {'this classifier' if odd in own else source.folder} alone; "
            "expected the same architecture in both: make the settings under `model` equal"
        )


def _backbone_weight(name: str, here: Tensor, there: Tensor, source: Member) -> Tensor:
    if here.shape == there.shape:
        return there
    if here.ndim == there.ndim == 4 and (here.shape[0], here.shape[2:]) == (there.shape[0], there.shape[2:]):
        if (here.shape[1], there.shape[1]) == (1, 3):
            return there.sum(1, keepdim=True)
        if (here.shape[1], there.shape[1]) == (3, 1):
            return there.repeat(1, 3, 1, 1) / 3
    raise ConfigError(
        f"init: the weight {name} has shape {tuple(there.shape)} in {source.folder}, {tuple(here.shape)} in this "
        "classifier; expected the same architecture in both: make the settings under `model` equal"
    )


def _by_finding(here: Tensor, there: Tensor, counts: tuple[int, int]) -> bool:
    """Whether a tensor of the head has a row for each finding."""
    rows = (here.shape[:1], there.shape[:1])
    return rows == ((counts[0],), (counts[1],)) and here.shape[1:] == there.shape[1:]


def _alike(here: Tensor, there: Tensor, counts: tuple[int, int]) -> bool:
    return here.shape == there.shape or _by_finding(here, there, counts)


def _change(model: Classifier, source: Member) -> str | None:
    here, there = model.config.input.channels, source.input.channels
    return None if here == there else f"{there} to {here}"


def _counted(what: str, findings: tuple[str, ...]) -> str:
    return f"{len(findings)} {what}" + (f" ({', '.join(findings)})" if findings else "")
