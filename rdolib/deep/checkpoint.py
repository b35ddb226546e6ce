"""Files of agents and of interrupted training runs: safetensors with a JSON header, no pickle.

One file holds everything, so that it is replaced in one move: a new file is written beside the old one, flushed to the
disk, and renamed. If anything fails on the way the old file is as it was. Reading trusts nothing: the format, the
version, every setting, and name, shape and type of every tensor are compared with what the settings ask for before any
of it is used. Nothing in a file can be run.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rdolib.deep.agent import Agent, Spec
from rdolib.deep.config import Config
from rdolib.deep.envs import Observation, require_device
from rdolib.deep.utility import require_learnable
from rdolib.errors import RdoError
from rdolib.objectives import (
    ExpectedUtility,
    Exponential,
    Homeostasis,
    Mean,
    Quadratic,
    Shortfall,
    Surplus,
    TargetReturn,
    Threshold,
    TwoSlope,
)

#: Of the layout of files; a file of another version is refused.
VERSION = 1
_KEY = "rdolib.deep"
_PLAIN: dict[str, type[ExpectedUtility]] = {
    kind.__name__: kind for kind in (Mean, TargetReturn, Shortfall, Surplus, Threshold, Quadratic)
}
_LARGEST_NETWORK = 2**31  # parameters


class CheckpointError(RdoError):
    """A file that cannot be written, or that is not what it should be."""


# ---------------------------------------------------------------------- files


def write(path: str | Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write tensors and what describes them to a file, all or nothing."""
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    packed = {name: _alone(tensor) for name, tensor in tensors.items()}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file(packed, beside, metadata={_KEY: json.dumps(meta)})
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, target)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{target} could not be written ({error}); what was there before is unchanged. Free some space, or choose "
            "another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _alone(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, in memory of its own."""
    found = tensor.detach().cpu().contiguous()
    return found if found.untyped_storage().nbytes() == found.nbytes else found.clone()


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a file and what describes them; `CheckpointError` for anything that is not such a file."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            meta = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a whole file of rdolib.deep: {error}; it was not loaded") from error
    if not isinstance(meta, dict) or meta.get("version") != VERSION:
        found = meta.get("version") if isinstance(meta, dict) else meta
        raise CheckpointError(f"{path} has version {found!r:.40}; this library reads version {VERSION}")
    return tensors, meta


def require_like(path: str | Path, tensors: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """`CheckpointError` unless names, shapes and types are those of ``wanted`` (tensors on any device)."""
    for name, tensor in wanted.items():
        if name not in tensors:
            raise CheckpointError(f"{path} lacks the tensor {name!r}; it was not loaded")
        found = tensors[name]
        if found.shape != tensor.shape or found.dtype != tensor.dtype:
            raise CheckpointError(
                f"{path}: {name!r} has shape {tuple(found.shape)} of {found.dtype}; its settings ask for "
                f"{tuple(tensor.shape)} of {tensor.dtype}"
            )
        if found.is_floating_point() and not found.isfinite().all():
            raise CheckpointError(f"{path}: {name!r} has entries that are not finite")


# ---------------------------------------------------------------------- agents


def describe(agent: Agent) -> dict[str, Any]:
    """All of an agent that is not a tensor."""
    spec, seen = agent.spec, agent.spec.observation
    return {
        "version": VERSION,
        "objective": objective_to_json(agent.objective),
        "config": agent.config.to_json(),
        "trained": agent.trained,
        "spec": {
            "shape": seen.shape, "dtype": str(seen.dtype).removeprefix("torch."), "count": seen.count,
            "n_actions": spec.n_actions, "reward_dim": spec.reward_dim, "gamma": spec.gamma,
            "low": spec.low, "high": spec.high, "span_low": spec.span_low, "span_high": spec.span_high,
        },
    }  # fmt: skip


def agent_tensors(agent: Agent) -> dict[str, Tensor]:
    """All tensors of an agent."""
    tensors = {f"network.{name}": tensor for name, tensor in agent.network.state_dict().items()}
    tensors["starts.observation"], tensors["starts.weight"] = agent.starts
    if agent.has_action is not None:
        tensors["has_action"] = agent.has_action
    return tensors


def load(path: str | Path, objective: ExpectedUtility | None = None, device: str | torch.device = "cpu") -> Agent:
    """The agent of a file that `Agent.save` or a training run wrote.

    Parameters
    ----------
    path : str or Path
    objective : ExpectedUtility, optional
        Needed for agents of a utility that is a function of your own, because files hold no code.
    device : str or torch.device

    Raises
    ------
    CheckpointError
        A file that is half written, of another version, inconsistent, or none of these files at all.
    """
    tensors, meta = read(path)
    return agent_of(path, tensors, meta, objective, require_device(device))


def agent_of(
    path: str | Path,
    tensors: dict[str, Tensor],
    meta: dict[str, Any],
    objective: ExpectedUtility | None,
    device: torch.device,
) -> Agent:
    """The agent of a file that was read."""
    try:
        config, spec, trained = Config.from_json(meta["config"]), _spec(meta["spec"]), int(meta["trained"])
        learned = objective_of_json(meta["objective"], objective)
        require_learnable(learned, spec.gamma, spec.reward_dim)
        width, outputs = max(config.hidden), spec.n_actions * config.atoms(spec.reward_dim) * spec.reward_dim
        if width * (width * len(config.hidden) + spec.observation.count + outputs) > _LARGEST_NETWORK:
            raise ValueError("a network that large is not loaded")
        network = spec.network(config)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is inconsistent: {error}; it was not loaded") from error
    wanted = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    k, seen = len(tensors.get("starts.weight", ())), spec.observation
    wanted["starts.observation"] = torch.empty(k, *seen.shape, dtype=seen.dtype, device="meta")
    wanted["starts.weight"] = torch.empty(k, dtype=torch.float64, device="meta")
    if "has_action" in tensors:
        states = seen.count or seen.shape[0]
        wanted["has_action"] = torch.empty(states, spec.n_actions, dtype=torch.bool, device="meta")
    require_like(path, tensors, wanted)
    first = tensors["starts.observation"]
    if k == 0 or (seen.count and not ((first >= 0) & (first < seen.count)).all()):
        raise CheckpointError(f"{path} is inconsistent: its initial observations do not exist; it was not loaded")
    weights = {name.removeprefix("network."): tensors[name].to(device) for name in wanted if name.startswith("network")}
    network.load_state_dict(weights, assign=True)
    starts = (tensors["starts.observation"].to(device), tensors["starts.weight"].to(device))
    has_action = tensors["has_action"].to(device) if "has_action" in tensors else None
    return Agent(learned, config, spec, network, starts, has_action, trained)


def _spec(data: dict[str, Any]) -> Spec:
    dtype = {"int64": torch.int64, "float32": torch.float32, "uint8": torch.uint8}[data["dtype"]]
    shape, count = tuple(int(n) for n in data["shape"]), int(data["count"])
    boxes = [tuple(float(x) for x in data[name]) for name in ("low", "high", "span_low", "span_high")]
    n_actions, reward_dim, gamma = int(data["n_actions"]), int(data["reward_dim"]), float(data["gamma"])
    if min(n_actions, reward_dim, count + 1, *shape, 1) < 1 or any(len(box) != reward_dim for box in boxes):
        raise ValueError("sizes do not fit")
    return Spec(Observation(shape, dtype, count), n_actions, reward_dim, gamma, *boxes)


def objective_to_json(objective: ExpectedUtility) -> dict[str, Any]:
    """An objective by name and parameters; by its text alone where it is a function of the user's own."""
    kind = type(objective)
    if kind.__name__ in _PLAIN and kind is _PLAIN[kind.__name__]:
        return {"name": kind.__name__, "parameters": []}
    if kind is TwoSlope and objective.slopes is not None:
        return {"name": "TwoSlope", "parameters": list(objective.slopes)}
    if isinstance(objective, Exponential):
        return {"name": "Exponential", "parameters": [objective.beta]}
    if isinstance(objective, Homeostasis):
        return {"name": "Homeostasis", "parameters": [objective.norm]}
    return {"name": None, "text": repr(objective)}


def objective_of_json(data: dict[str, Any], given: ExpectedUtility | None) -> ExpectedUtility:
    """The objective of a file; the one that was given, where the file has none or the same."""
    name = data["name"]
    if name is None:
        if given is None or repr(given) != data["text"]:
            raise ValueError(f"its utility is a function, {data['text']!r:.80}; pass it as objective=")
        return given
    parameters = [float(x) for x in data["parameters"]]
    kinds: dict[str, Callable[..., ExpectedUtility]] = {
        **_PLAIN,
        "TwoSlope": TwoSlope,
        "Exponential": Exponential,
        "Homeostasis": Homeostasis,
    }
    found = kinds[name](*parameters)
    if given is not None and repr(given) != repr(found):
        raise ValueError(f"its objective is {found!r}, not {given!r}")
    return found
