"""Where training stands, on disk: everything that an interrupted run needs to end as an undisturbed one.

`checkpoints/state.json` names the two tensor files that belong to it and is written last, so that a kill between two
files leaves the checkpoint before.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from weakray.errors import RunError
from weakray.files import read_json, replacing, write_json

Tensors = dict[str, Tensor]


@dataclass
class Progress:
    """What training counts.

    Attributes:
        epoch: epochs that ended.
        batch: batches of the running epoch that are done: the sampler's place.
        loss_sum: sum of their losses.
        best_epoch: epoch (from 1) with the best score so far, 0 before the first.
        best_score: that score, None before the first.
        epochs_since_best: the early stop's counter.
    """

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    best_epoch: int = 0
    best_score: float | None = None
    epochs_since_best: int = 0


def weights_of(model: nn.Module) -> Tensors:
    """A copy of parameters and buffers, on CPU, contiguous, as safetensors wants them."""
    return {name: _plain(value) for name, value in model.state_dict().items()}


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def save(
    folder: Path, progress: Progress, model: nn.Module, optimizer: torch.optim.Optimizer, best: Tensors | None
) -> None:
    """Writes a checkpoint and removes the files of the one before.

    Args:
        folder: the run's checkpoint folder.
        progress: the counts.
        model: its parameters and buffers are kept.
        optimizer: its moments are kept; its settings are not, they come from the config.
        best: weights of the best epoch, None before the first.
    """
    tensors = {f"model.{name}": value for name, value in weights_of(model).items()}
    for row, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{row}.{name}": _plain(value) for name, value in values.items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    state = f"state-{progress.epoch:04d}-{progress.batch:06d}.safetensors"
    best_name = None if best is None else f"best-{progress.best_epoch:04d}.safetensors"
    _save_tensors(folder / state, tensors)
    if best is not None and best_name is not None and not (folder / best_name).is_file():
        _save_tensors(folder / best_name, best)
    write_json(folder / "state.json", {"progress": asdict(progress), "state": state, "best": best_name})
    for path in folder.glob("*.safetensors"):
        if path.name not in (state, best_name):
            path.unlink()


def _save_tensors(path: Path, tensors: Tensors) -> None:
    with replacing(path) as temporary:
        save_file(tensors, temporary)


def restore(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Progress, Tensors | None]:
    """Puts a checkpoint back into model, optimizer and torch's random numbers; where there is none, changes nothing.

    Returns:
        The counts, and the best epoch's weights.

    Raises:
        RunError: if a tensor file is missing or does not fit the model.
    """
    if not (folder / "state.json").is_file():
        return Progress(), None
    content = read_json(folder / "state.json")
    try:
        tensors = load_file(folder / content["state"])
        best = None if content["best"] is None else load_file(folder / content["best"])
        model.load_state_dict(_under("model.", tensors))
    except (OSError, RuntimeError) as error:
        raise RunError(f"{folder}: the checkpoint cannot be used ({error}); remove the run folder") from None
    settings = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, Tensors] = {}
    for name, value in _under("optimizer.", tensors).items():
        row, key = name.split(".", 1)
        parameter = parameters[int(row)]
        # Moments must lie in memory as their parameter does: the fused step walks both side by side.
        moments.setdefault(int(row), {})[key] = (
            torch.empty_like(parameter, dtype=value.dtype).copy_(value) if value.shape == parameter.shape else value
        )
    optimizer.load_state_dict({"state": moments, "param_groups": settings})
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    return Progress(**content["progress"]), best


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
