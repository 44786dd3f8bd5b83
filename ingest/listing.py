"""The files of an images folder, and how a name in a table finds its file."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from weakray.errors import DataError

PairBy = Literal["path", "ending", "name"]


@dataclass(frozen=True)
class Folder:
    """Every file below `root`: relative POSIX paths, sorted. Names that are not UTF-8 stand in `undecodable`.

    Attributes:
        root: the folder.
        paths: the files.
        undecodable: printable forms of names that no table could spell.
    """

    root: Path
    paths: list[str]
    undecodable: list[str]
    _by_name: dict[str, str] = field(default_factory=dict)
    _by_stem: dict[str, str] = field(default_factory=dict)
    _by_path: dict[str, str] = field(default_factory=dict)
    _known: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._known.update(self.paths)
        for path in reversed(self.paths):  # the first in order wins
            self._by_name[PurePosixPath(path).name] = path
            self._by_stem[PurePosixPath(path).stem] = path
            self._by_path[_without_extension(path)] = path

    def at(self, path: str) -> str | None:
        """The file at exactly this relative path."""
        return path if path in self._known else None

    def ending(self, path: str) -> str | None:
        """The file at this path, or at the path less its first folders: the root may lie anywhere along it.

        Else the one that differs in its extension alone.
        """
        parts = path.split("/")
        ends = ["/".join(parts[at:]) for at in range(len(parts))]
        exact = next((end for end in ends if end in self._known), None)
        stems = (self._by_path.get(_without_extension(end)) for end in ends)
        return exact or next((found for found in stems if found is not None), None)

    def find(self, name: str, pair_by: PairBy) -> str | None:
        """The file of a name in a table, by the rule that fits the data set."""
        match pair_by:
            case "path":
                return self.at(name)
            case "ending":
                return self.ending(name)
            case "name":
                return self.named(name)

    def named(self, name: str) -> str | None:
        """The file of this name in any folder below the root; else the one that differs in its extension alone."""
        return self._by_name.get(name) or self._by_stem.get(PurePosixPath(name).stem)


def list_folder(root: Path, besides: Collection[Path] = ()) -> Folder:
    """Lists a folder and all below it, linked folders too, each once.

    Args:
        root: the folder.
        besides: files that are not images although they may lie there, e.g. the tables of labels.

    Raises:
        DataError: if there is no such folder.
    """
    if not root.is_dir():
        raise DataError(f"{root}: expected the folder that holds the images, found none; check the setting `images`")
    left_out = {path.resolve() for path in besides}
    paths: list[str] = []
    undecodable: list[str] = []
    visited = {root.resolve()}
    for at, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in sorted(folders) if _first_visit(Path(at, name), visited)]
        for name in names:
            path = Path(at, name)
            if path.resolve() in left_out:
                continue
            relative = path.relative_to(root).as_posix()
            if printable(relative) == relative:
                paths.append(relative)
            else:
                undecodable.append(printable(relative))
    return Folder(root, sorted(paths), sorted(undecodable))


def _first_visit(folder: Path, visited: set[Path]) -> bool:
    """Marks a folder as visited; False where a link led there before, which also ends circles of links."""
    target = folder.resolve()
    new = target not in visited
    visited.add(target)
    return new


def _without_extension(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{PurePosixPath(name).stem}"


def printable(text: str) -> str:
    """The text with what UTF-8 cannot write (lone surrogates, from odd file names or JSON escapes) spelt out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
