"""A small network on disk: plan.json says how it was cut, model.safetensors holds its weights. No pickle, no code."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from pared.surgery.plan import Plan
from pared.surgery.replay import replay
from pared.surgery.slices import StructureError
from pared.types import DataError

PLAN, WEIGHTS = "plan.json", "model.safetensors"


def save(folder: str | Path, model: nn.Module, plan: Plan) -> Path:
    """Writes a cut model and its plan into a folder, which is made if need be.

    The plan must carry its slices (as `select` makes it). Raises FileExistsError rather than overwrite a saved model,
    and StructureError for a plan without slices.
    """
    folder = Path(folder)
    if plan.unbound:
        raise StructureError(
            "the plan carries no slices, so it could not be replayed; save structure.bind(plan) instead"
        )
    for name in (PLAN, WEIGHTS):
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name} exists and is not overwritten; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in model.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    (folder / PLAN).write_text(plan.to_json() + "\n", encoding="utf-8")
    return folder


def load(folder: str | Path, fresh_model: nn.Module) -> nn.Module:
    """Rebuilds a saved model: replays the plan on an uncut model of the same architecture and fills in the weights.

    Outputs agree with the saved model's bit for bit. Raises DataError for a missing or damaged file and StructureError
    for a plan of another network; no code from the folder is ever run.
    """
    folder = Path(folder)
    try:
        plan = Plan.from_json((folder / PLAN).read_text(encoding="utf-8"))
        state = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise DataError(f"{folder} is not a saved model: {error.filename or error} is missing") from error
    except (ValueError, SafetensorError, OSError) as error:
        raise DataError(f"the saved model in {folder} is damaged: {error}; save it again or restore a copy") from error
    small = replay(plan, fresh_model)
    try:
        small.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise DataError(f"the weights in {folder} do not fit the network that its plan describes: {error}") from error
    for (_, parameter), (_, old) in zip(small.named_parameters(), fresh_model.named_parameters(), strict=True):
        parameter.requires_grad_(old.requires_grad)
    return small
