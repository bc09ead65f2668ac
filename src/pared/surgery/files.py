"""A small network on disk: plan.json says how it was cut, model.safetensors holds its weights. No pickle, no code."""

from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pared.signals import check_masks, plain_parameters
from pared.surgery.packed import Packed, pack, unpack
from pared.surgery.plan import Plan
from pared.surgery.replay import replay
from pared.surgery.slices import StructureError
from pared.types import DataError, Masks

PLAN, WEIGHTS = "plan.json", "model.safetensors"


def save(folder: str | Path, model: nn.Module, plan: Plan, masks: Masks | None = None) -> Path:
    """Writes a cut model and its plan into a folder, which is made if need be.

    Tensors that are mostly zero, as pruning of weights leaves them, are stored without their zeros where that is
    shorter (see `pared.surgery.packed`). `masks` of the model's weights are stored with it, mostly for nothing;
    `load_masks` brings them back. The plan must carry its slices (as `select` makes it).

    Raises FileExistsError rather than overwrite a saved model, StructureError for a plan without slices, and ValueError
    for masks that are not the model's or that say a weight is gone which is not zero; nothing is left behind then.
    """
    folder = Path(folder)
    if plan.unbound:
        raise StructureError(
            "the plan carries no slices, so it could not be replayed; save structure.bind(plan) instead"
        )
    for name in (PLAN, WEIGHTS):
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name} exists and is not overwritten; choose another folder")
    tensors, metadata = packed(model, masks)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        save_file(tensors, folder / WEIGHTS, metadata)
        (folder / PLAN).write_text(plan.to_json() + "\n", encoding="utf-8")
    except BaseException:  # such as a full disk or Ctrl-C
        for name in (PLAN, WEIGHTS):
            with suppress(OSError):
                (folder / name).unlink()
        raise
    return folder


def packed(model: nn.Module, masks: Masks | None = None) -> Packed:
    """What `save` writes of a model: its tensors in their shortest form, and the header's metadata."""
    masks = masks or {}
    weights = plain_parameters(model)
    check_masks(weights, masks)
    for name, mask in masks.items():
        if weights[name][~mask.to(weights[name].device)].any():
            raise ValueError(f"the mask of {name!r} says weights are gone that are not zero; use mask_weights first")
    return pack(model.state_dict(), masks)


def load(folder: str | Path, fresh_model: nn.Module) -> nn.Module:
    """Rebuilds a saved model: replays the plan on an uncut model of the same architecture and fills in the weights.

    Weights and outputs agree with the saved model's bit for bit. Raises DataError for a missing or damaged file and
    StructureError for a plan of another network; no code from the folder is ever run.
    """
    folder = Path(folder)
    found = _read(folder)
    try:
        plan = Plan.from_json((folder / PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _missing(folder, PLAN) from error
    except (ValueError, OSError) as error:
        raise _damaged(folder, error) from error
    small = replay(plan, fresh_model)
    try:
        small.load_state_dict(_unpacked(folder, found, small)[0], assign=True)
    except RuntimeError as error:
        raise DataError(f"the weights in {folder} do not fit the network that its plan describes: {error}") from error
    return small


def load_masks(folder: str | Path, model: nn.Module) -> Masks:
    """The masks that were saved with a model, for the model that `load` gave; none where none were saved.

    `fit(model, ..., masks=load_masks(folder, model))` trains on with the weights that are gone at zero.
    Raises DataError as `load`, and where the masks are not the model's.
    """
    folder = Path(folder)
    return _unpacked(folder, _read(folder), model)[1]


def _read(folder: Path) -> Packed:
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    except FileNotFoundError as error:
        raise _missing(folder, WEIGHTS) from error
    except (ValueError, SafetensorError, OSError) as error:
        raise _damaged(folder, error) from error


def _unpacked(folder: Path, found: Packed, model: nn.Module) -> tuple[dict[str, Tensor], Masks]:
    tensors = plain_parameters(model) | model.state_dict()
    try:
        return unpack(*found, {name: tensor.shape for name, tensor in tensors.items()})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:  # of JSON that is not a note
        raise _damaged(folder, error) from error


def _missing(folder: Path, name: str) -> DataError:
    return DataError(f"{folder} is not a saved model: {name} is missing; give the folder that `save` wrote")


def _damaged(folder: Path, error: Exception) -> DataError:
    return DataError(f"the saved model in {folder} is damaged: {error}; save it again or restore a copy")
