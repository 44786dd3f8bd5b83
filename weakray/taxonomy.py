"""The findings, their class tree and their other names.

A name may mean one thing in one data set and another elsewhere (NIH's `Infiltration`, PadChest's `infiltrates`), so a
finding has synonyms that hold everywhere and synonyms that hold in a named data set.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from weakray.errors import DataError
from weakray.files import read_yaml, write_yaml

_EVERYWHERE = "all"  # the key of synonyms that hold in every data set


@dataclass(frozen=True)
class Finding:
    """A class of the taxonomy.

    Attributes:
        name: what it is called here.
        parent: its parent in the tree; None for a root.
        synonyms: its other names, whatever the data set.
        synonyms_in: (data set, its names there), e.g. `("padchest", ("heart insufficiency",))`.
    """

    name: str
    parent: str | None = None
    synonyms: tuple[str, ...] = ()
    synonyms_in: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def names_in(self, source: str | None) -> tuple[str, ...]:
        """The names by which a data set may call it; None: those that hold everywhere."""
        return (self.name, *self.synonyms, *(name for at, names in self.synonyms_in if at == source for name in names))


@dataclass(frozen=True)
class Taxonomy:
    """An ordered set of findings. A finding's position is its class id everywhere.

    Raises:
        DataError: on a repeated name or synonym, an unknown parent, or a cycle.
    """

    findings: tuple[Finding, ...]
    ignored: tuple[str, ...] = field(default=())  # names that mean "none of these", e.g. "No Finding"

    def __post_init__(self) -> None:
        for source in (None, *self.sources):
            known: set[str] = set()
            for finding in self.findings:
                for name in finding.names_in(source):
                    if _plain(name) in known:
                        where = "" if source is None else f" in {source}"
                        raise DataError(
                            f"taxonomy: the name {name!r} stands for two findings{where}; keep it at one of them"
                        )
                    known.add(_plain(name))
        for finding in self.findings:
            seen, at = {finding.name}, finding.parent
            while at is not None:
                if at not in self.index:
                    raise DataError(f"taxonomy: {finding.name!r} has the unknown ancestor {at!r}; add it or remove it")
                if at in seen:
                    raise DataError(f"taxonomy: {finding.name!r} is its own ancestor; break the cycle")
                seen.add(at)
                at = self.findings[self.index[at]].parent

    def __len__(self) -> int:
        return len(self.findings)

    @cached_property
    def names(self) -> list[str]:
        """The findings' names, in class-id order."""
        return [finding.name for finding in self.findings]

    @cached_property
    def index(self) -> dict[str, int]:
        """Name → class id."""
        return {finding.name: i for i, finding in enumerate(self.findings)}

    @cached_property
    def sources(self) -> list[str]:
        """The data sets that have synonyms of their own, sorted."""
        return sorted({source for finding in self.findings for source, _ in finding.synonyms_in})

    def spoken_in(self, source: str) -> Taxonomy:
        """The taxonomy as a data set speaks: its synonyms hold, those of other data sets do not."""
        return replace(
            self,
            findings=tuple(replace(f, synonyms=f.names_in(source)[1:], synonyms_in=()) for f in self.findings),
        )

    @cached_property
    def parents(self) -> list[int | None]:
        """Class id of each finding's parent, None for a root."""
        return [None if finding.parent is None else self.index[finding.parent] for finding in self.findings]

    def path(self, class_id: int) -> list[int]:
        """Class ids from the root down to and with `class_id`."""
        found, at = [class_id], self.parents[class_id]
        while at is not None:
            found.append(at)
            at = self.parents[at]
        return found[::-1]

    @cached_property
    def top_down(self) -> list[int]:
        """All class ids, every parent before its children."""
        return sorted(range(len(self)), key=lambda i: (len(self.path(i)), i))

    @cached_property
    def _resolved(self) -> dict[str, int]:
        return {_plain(n): i for i, f in enumerate(self.findings) for n in f.names_in(None)}

    def resolve(self, name: str) -> int | None:
        """Class id of a name or synonym; None for a name that means "no finding".

        Raises:
            DataError: on a name that the taxonomy does not know.
        """
        plain = _plain(name)
        if plain in self._resolved:
            return self._resolved[plain]
        if plain in {_plain(other) for other in self.ignored}:
            return None
        raise DataError(f"unknown finding {name!r}; expected one of {', '.join(self.names)}, or add it as a synonym")

    def shared_with(self, other: Taxonomy) -> dict[int, int]:
        """Class ids of the findings that another taxonomy has too → their class ids there.

        Two findings are one where their names are equal; of the rest, where one's name or synonym is the other's.

        Raises:
            DataError: if a finding of one taxonomy matches two of the other.
        """
        theirs = [{_plain(name) for name in finding.names_in(None)} for finding in other.findings]
        exact = {_plain(finding.name): j for j, finding in enumerate(other.findings)}
        pairs = [(i, exact[_plain(f.name)]) for i, f in enumerate(self.findings) if _plain(f.name) in exact]
        ours_done, theirs_done = ({pair[side] for pair in pairs} for side in (0, 1))
        for i, finding in enumerate(self.findings):
            ours = {_plain(name) for name in finding.names_in(None)}
            if i not in ours_done:
                pairs += [(i, j) for j, names in enumerate(theirs) if j not in theirs_done and ours & names]
        for side, one, two in ((0, self, other), (1, other, self)):
            ids = [pair[side] for pair in pairs]
            twice = next((n for n in ids if ids.count(n) > 1), None)
            if twice is not None:
                both = [two.names[pair[1 - side]] for pair in pairs if pair[side] == twice]
                raise DataError(
                    f"taxonomies: {one.names[twice]!r} of one matches both {both[0]!r} and {both[1]!r} of the other; "
                    "remove the synonym that is wrong"
                )
        return dict(sorted(pairs))

    def to_dict(self) -> dict[str, Any]:
        """The YAML form."""
        findings: list[dict[str, Any]] = []
        for finding in self.findings:
            entry: dict[str, Any] = {"name": finding.name}
            if finding.parent is not None:
                entry["parent"] = finding.parent
            if finding.synonyms_in:
                everywhere = {_EVERYWHERE: list(finding.synonyms)} if finding.synonyms else {}
                entry["synonyms"] = everywhere | {source: list(names) for source, names in finding.synonyms_in}
            elif finding.synonyms:
                entry["synonyms"] = list(finding.synonyms)
            findings.append(entry)
        return {"findings": findings, "ignored": list(self.ignored)}

    @classmethod
    def from_dict(cls, value: Any, origin: str = "taxonomy") -> Taxonomy:
        """Reads the YAML form; unknown keys are refused.

        `synonyms` is a list of names that hold everywhere, or data set → list, `all` standing for everywhere.
        """
        try:
            entries: Sequence[dict[str, Any]] = value["findings"]
            extra = set(value) - {"findings", "ignored"}
            extra |= {key for entry in entries for key in entry} - {"name", "parent", "synonyms"}
            findings = tuple(Finding(str(e["name"]), e.get("parent"), *_synonyms(e.get("synonyms"))) for e in entries)
        except (KeyError, TypeError) as error:
            raise DataError(f"{origin}: expected `findings:`, a list of name/parent/synonyms; got {error!r}") from None
        if extra:
            raise DataError(f"{origin}: unknown keys {sorted(extra)}; expected name, parent, synonyms, ignored")
        if not findings:
            raise DataError(f"{origin}: expected at least one finding, got none")
        return cls(findings, tuple(str(name) for name in value.get("ignored", ())))

    @classmethod
    def flat(cls, names: Sequence[str]) -> Taxonomy:
        """A taxonomy without a tree."""
        return cls(tuple(Finding(name) for name in names))

    @classmethod
    def load(cls, path: Path) -> Taxonomy:
        """Reads `taxonomy.yaml`."""
        return cls.from_dict(read_yaml(path), str(path))

    def save(self, path: Path) -> None:
        """Writes `taxonomy.yaml`."""
        write_yaml(path, self.to_dict())


def _synonyms(value: Any) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...]]:
    """Synonyms that hold everywhere, and those of each data set.

    Raises:
        TypeError: if the value is neither a list of names nor data set → list of names.
    """
    lists = value if isinstance(value, Mapping) else {_EVERYWHERE: value or ()}
    if any(isinstance(names, str) for names in lists.values()):
        raise TypeError(f"synonyms {value!r}: expected a list")
    read = {str(source): tuple(str(name) for name in names) for source, names in lists.items()}
    return read.pop(_EVERYWHERE, ()), tuple(read.items())


def _plain(name: str) -> str:
    """Names are compared without case, accents and doubled spaces, an underscore as a space."""
    letters = unicodedata.normalize("NFKD", name.replace("_", " ").casefold().replace("œ", "oe").replace("æ", "ae"))
    return " ".join("".join(letter for letter in letters if not unicodedata.combining(letter)).split())
