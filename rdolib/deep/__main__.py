"""Train and grade agents from the command line: ``python -m rdolib.deep --help``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rdolib import objectives, risk
from rdolib.deep.checkpoint import load
from rdolib.deep.config import Config
from rdolib.deep.envs import Env, GymnasiumEnv, TabularEnv
from rdolib.deep.grade import grade
from rdolib.deep.train import train
from rdolib.errors import InvalidArgumentError, RdoError
from rdolib.mdp import MDP

_EPILOG = """examples:
  python -m rdolib.deep train --grid map.txt --objective Shortfall --out agent.safetensors
  python -m rdolib.deep grade agent.safetensors --grid map.txt --risk CVaR --levels 0.05 0.25 1
  python -m rdolib.deep train --table CliffWalking-v1 --objective TargetReturn --stock-low 10 --stock-high 40 \\
      --out agent.safetensors --metrics run.csv
  python -m rdolib.deep train --gymnasium CartPole-v1 --objective TargetReturn --stock-low -100 --stock-high 0 \\
      --out agent.safetensors
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m rdolib.deep",
        description="Train a deep agent for return distributions, and grade it against the exact optimum.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True)
    learn = commands.add_parser("train", help="train an agent and write it to a file")
    _problem_options(learn)
    learn.add_argument("--gymnasium", metavar="ID", help="any gymnasium environment; stocks must then be declared")
    learn.add_argument("--envs", type=int, default=64, help="parallel environments (default: 64)")
    learn.add_argument("--max-steps", type=int, default=200, help="steps after which an episode is cut (default: 200)")
    learn.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")
    learn.add_argument("--objective", default="Shortfall", help='such as TargetReturn or "TwoSlope 2 1"')
    learn.add_argument("--seed", type=int, default=0)
    learn.add_argument("--out", type=Path, required=True, help="file for the agent and the state of the run")
    learn.add_argument("--every", type=int, default=1000, help="rounds between two checkpoints (default: 1000)")
    learn.add_argument("--resume", action="store_true", help="go on from --out where that file exists")
    learn.add_argument("--metrics", type=Path, help="file for metrics, .csv or .jsonl")
    _config_options(learn)
    judge = commands.add_parser("grade", help="compare an agent with the exact optimum")
    judge.add_argument("agent", type=Path)
    _problem_options(judge)
    judge.add_argument("--stocks", type=float, nargs="+", help="initial stocks to grade")
    judge.add_argument("--risk", help="a family such as CVaR, instead of the learned objective")
    judge.add_argument("--levels", type=float, nargs="+", help="levels of --risk")
    judge.add_argument("--horizon", type=int, help="steps of a return; without it, endless")
    judge.add_argument("--episodes", type=int, help="simulate instead of computing the law of the return")
    judge.add_argument("--json", type=Path, help="file for the report")
    return top


def _problem_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--grid", type=Path, help="a file with a map, as for MDP.from_grid")
    command.add_argument("--table", metavar="ID", help="a gymnasium environment with a table, such as CliffWalking-v1")
    command.add_argument("--slip", type=float, default=0.0, help="of the map (default: 0)")
    command.add_argument("--gamma", type=float, default=1.0, help="discount (default: 1)")


def _config_options(command: argparse.ArgumentParser) -> None:
    """An option for every setting of Config."""
    settings = command.add_argument_group("settings (see rdolib.deep.Config)")
    for one in fields(Config):
        option = "--" + one.name.replace("_", "-")
        if isinstance(one.default, bool):
            settings.add_argument(option, action=argparse.BooleanOptionalAction, default=one.default)
        elif isinstance(one.default, tuple):
            settings.add_argument(option, type=int, nargs="+", default=list(one.default))
        elif one.default is None:
            settings.add_argument(option, type=float, nargs="+")
        else:
            settings.add_argument(option, type=type(one.default), default=one.default)


def _config(options: argparse.Namespace) -> Config:
    given: dict[str, Any] = {one.name: getattr(options, one.name) for one in fields(Config)}
    settings: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in given.items()}
    return Config(**settings)


def _mdp(options: argparse.Namespace) -> MDP:
    if (options.grid is None) == (options.table is None):
        raise InvalidArgumentError("say which problem: one of --grid FILE and --table ID")
    if options.table is not None:
        return MDP.from_gymnasium(options.table, gamma=options.gamma)
    return MDP.from_grid(options.grid.read_text("utf8"), gamma=options.gamma, slip=options.slip)


def _env(options: argparse.Namespace) -> Env:
    if options.gymnasium is not None:
        return GymnasiumEnv(options.gymnasium, options.envs, options.gamma, options.device)
    return TabularEnv(_mdp(options), options.envs, options.max_steps, device=options.device)


def _objective(text: str) -> Any:
    """An objective by its name and numbers: ``TwoSlope 2 1``."""
    name, *numbers = text.split()
    kind = getattr(objectives, name, getattr(risk, name, None))
    if name.startswith("_") or not (isinstance(kind, type) and issubclass(kind, objectives.Objective)):
        raise InvalidArgumentError(f"there is no objective {name!r}; take one such as TargetReturn or Shortfall")
    try:
        return kind(*map(float, numbers))
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"{text!r} is not an objective: {error}") from None


def _train(options: argparse.Namespace) -> None:
    agent = train(
        _env(options), _objective(options.objective), _config(options), options.seed, options.metrics, options.out,
        options.every, options.resume,
    )  # fmt: skip
    print(f"{agent!r} written to {options.out}")


def _grade(options: argparse.Namespace) -> None:
    family = None if options.risk is None else getattr(risk, options.risk, None)
    if options.risk is not None and not (isinstance(family, type) and issubclass(family, risk.OuterSearch)):
        raise InvalidArgumentError(f"there is no risk measure {options.risk!r}; take one such as CVaR")
    report = grade(
        load(options.agent), _mdp(options), family, None, options.stocks, options.levels, options.horizon,
        options.episodes,
    )  # fmt: skip
    print(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report.to_json(), indent=1) + "\n", "utf8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if all went well, 2 with one line on standard error otherwise."""
    options = parser().parse_args(arguments)
    try:
        (_train if options.command == "train" else _grade)(options)
    except (RdoError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
