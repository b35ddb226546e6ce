"""The deep agent at work: targets by value, resumed runs, hostile files, regret on small problems, grades."""

from __future__ import annotations

import copy
import csv
import importlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import rdolib as rdo

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors.torch import load_file, save_file  # noqa: E402

from rdolib.deep import (  # noqa: E402
    Agent,
    CheckpointError,
    Config,
    GymnasiumEnv,
    TabularEnv,
    grade,
    load,
    train,
)
from rdolib.deep import checkpoint as files  # noqa: E402
from rdolib.deep.__main__ import main  # noqa: E402
from rdolib.deep.replay import Transitions  # noqa: E402
from rdolib.deep.train import Learner, successor_stock, targets  # noqa: E402
from rdolib.deep.utility import torch_utility  # noqa: E402

torch.set_num_threads(1)


def bets(gamma: float = 1.0) -> rdo.MDP:
    """Three rounds: stay out, or bet 1 or 2 and win with probability 0.6. States count the rounds."""
    table = {}
    for s in range(3):
        end = s == 2
        table[s] = {0: [(1.0, s + 1, 0.0, end)]} | {
            a: [(0.6, s + 1, float(a), end), (0.4, s + 1, float(-a), end)] for a in (1, 2)
        }
    return rdo.MDP.from_outcomes(table, gamma=gamma)


SMALL = Config(steps=60, warmup=64, batch=32, capacity=300, quantiles=8, hidden=(16, 16), log_every=7)


# ---------------------------------------------------------------------- targets, by value


class Fixed(torch.nn.Module):
    """Quantiles that are the same for every observation: action 0 is 1 for sure, action 1 is 0 or 3."""

    def __init__(self, first: list[float], second: list[float]) -> None:
        super().__init__()
        self.law = torch.tensor([first, second])[None, :, :, None]
        self.asked: torch.Tensor | None = None

    def forward(self, observation: torch.Tensor, stock: torch.Tensor) -> torch.Tensor:
        self.asked = stock
        return self.law.expand(len(observation), -1, -1, -1)


def three() -> Transitions:
    """A step that goes on, one that terminates, one that was cut off (and so goes on)."""
    zeros = torch.zeros(3, 1, dtype=torch.float64)
    return Transitions(
        torch.zeros(3, dtype=torch.int64),
        torch.zeros(3, dtype=torch.int64),
        torch.tensor([[2.0], [2.0], [-1.0]]),
        torch.zeros(3, dtype=torch.int64),
        torch.tensor([False, True, False]),
        zeros,
        zeros,
        torch.ones(3, dtype=torch.float64),
    )


def test_targets_bootstrap_unless_terminated() -> None:
    network, utility = Fixed([1.0, 1.0], [0.0, 3.0]), torch_utility(rdo.TargetReturn(), 1)
    stock = torch.tensor([[-2.5], [-2.5], [-0.5]], dtype=torch.float64)
    wanted = targets(network, network, utility, three(), stock, None, gamma=0.5)
    # Stocks of the successors: (-2.5 + 2) / 0.5 = -1 and (-0.5 - 1) / 0.5 = -3.
    assert network.asked is not None
    assert network.asked.tolist() == [[-1.0], [-1.0], [-3.0]]
    # At -1 action 0 gives -|0| and action 1 -(1 + 2) / 2: action 0, law {1, 1}, target 2 + 0.5 * 1.
    # At -3 action 0 gives -2 and action 1 -(3 + 0) / 2: action 1, law {0, 3}, target -1 + 0.5 * {0, 3}.
    assert wanted[..., 0].tolist() == [[2.5, 2.5], [2.0, 2.0], [-1.0, 0.5]]
    # Where only action 1 is available, it is taken: 2 + 0.5 * {0, 3}.
    only = torch.tensor([[False, True]] * 3)
    wanted = targets(network, network, utility, three(), stock, only, gamma=0.5)
    assert wanted[0, :, 0].tolist() == [2.0, 3.5]


def test_double_estimation_chooses_with_one_network_and_values_with_the_other() -> None:
    network, chooser = Fixed([1.0, 1.0], [0.0, 3.0]), Fixed([9.0, 9.0], [1.0, 1.0])
    stock = torch.full((3, 1), -2.5, dtype=torch.float64)
    wanted = targets(network, chooser, torch_utility(rdo.TargetReturn(), 1), three(), stock, None, gamma=0.5)
    # At -1 the chooser prefers action 1 (it thinks it is 1 for sure); its value by the network is {0, 3}.
    assert wanted[0, :, 0].tolist() == [2.0, 3.5]


def test_the_successor_stock_and_its_limit() -> None:
    stock = torch.tensor([[0.3, -1.0], [1e300, 0.0]], dtype=torch.float64)
    reward = torch.tensor([[0.2, 2.0], [1.0, -1.0]])
    found = successor_stock(stock, reward, 0.5)
    assert found[0].tolist() == pytest.approx([1.0, 2.0], abs=1e-7)
    assert found[1].tolist() == [1e100, -2.0]


def test_edited_stocks_are_those_of_the_same_path_from_another_start() -> None:
    mdp = bets(gamma=0.5)
    learner = Learner(TabularEnv(mdp, 8), rdo.TargetReturn(), SMALL)
    rewards: list[torch.Tensor] = []
    inner = learner.env.step

    def step(action: torch.Tensor) -> object:
        result = inner(action)
        rewards.append(result.reward[:, 0])
        return result

    learner.env.step = step  # type: ignore[method-assign, assignment]
    for _ in range(3):
        learner.collect()
    data = learner.replay.data
    first, second, third = (slice(8 * t, 8 * t + 8) for t in range(3))
    # From c0 the stocks are c0, (c0 + r1) / gamma, ((c0 + r1) / gamma + r2) / gamma.
    c0 = torch.linspace(-1.0, 2.0, 8, dtype=torch.float64)
    stocks = [c0, 2 * (c0 + rewards[0]), 2 * (2 * (c0 + rewards[0]) + rewards[1])]
    for rows, expected in zip((first, second, third), stocks, strict=True):
        assert torch.allclose(data.scale[rows] * c0 + data.earned[rows, 0], expected, atol=1e-12)
    assert learner.start.shape == (8, 1) and torch.equal(learner.scale, torch.ones(8, dtype=torch.float64))
    batch = learner.replay.sample(200, learner.generator)
    edited, own = learner.edited(batch), batch.scale[:, None] * batch.start + batch.earned
    start = (edited - batch.earned) / batch.scale[:, None]
    low, high = learner.spec.low[0], learner.spec.high[0]
    # The range is -3.5 to 3.5; stocks beyond 1.5 times that are drawn anew, from within.
    assert (low, high) == (-3.5, 3.5) and (edited.abs() <= 5.25).all() and len(edited.unique()) == 200
    inside = ((start >= low - 1e-9) & (start <= high + 1e-9))[:, 0]
    assert inside[batch.scale == 1.0].all()  # at the first step stocks are initial stocks
    # At the third, 4 (c0 + ...) lies within 5.25 for three in eight of the initial stocks.
    assert 0.2 < inside[batch.scale == 4.0].double().mean() < 1.0
    learner.config = replace(SMALL, editing=False)
    assert torch.equal(learner.edited(batch), own)


def test_the_target_network_follows_every_so_many_updates() -> None:
    learner = Learner(TabularEnv(bets(), 32), rdo.TargetReturn(), replace(SMALL, target_every=5, updates=2))
    initial = learner.target_flat.clone()
    assert torch.equal(initial, learner.optimizer.flat)
    for _ in learner.run():
        # The replay holds 64 transitions after round 2, so rounds 2, 3, ... update twice each.
        assert learner.updates == 2 * max(0, learner.step - 1)
        if learner.updates < 5:
            assert torch.equal(learner.target_flat, initial)
        if learner.updates and learner.updates % 5 == 0:
            assert torch.equal(learner.target_flat, learner.optimizer.flat)
        elif learner.updates:
            assert not torch.equal(learner.target_flat, learner.optimizer.flat)
    for mine, theirs in zip(learner.target.parameters(), learner.online.parameters(), strict=True):
        assert torch.equal(mine, theirs) is (learner.updates % 5 == 0)


def test_random_actions_have_the_probability_of_the_schedule() -> None:
    config = replace(SMALL, explore_start=0.3, explore_end=0.3, capacity=20_000)
    learner = Learner(TabularEnv(bets(), 10_000), rdo.Mean(), config)
    learner.collect()
    data = learner.replay.data
    greedy_action = learner.agent().act(np.zeros(1, dtype=np.int64), 0.0)[0]
    # At one stock the greedy action is one; here stocks differ, so compare with the agent's own actions.
    best = learner.agent().act(np.zeros(10_000, dtype=np.int64), data.start[:10_000, 0].numpy())
    share = float((data.action[:10_000].numpy() == best).mean())
    # 0.7 + 0.3 / 3; four standard errors of a proportion of 10,000.
    assert share == pytest.approx(0.8, abs=4 * 0.4 / 100)
    assert 0 <= greedy_action < 3


# ---------------------------------------------------------------------- the same seed, and resumed runs


def weights(agent: Agent) -> torch.Tensor:
    return torch.cat([parameter.reshape(-1) for parameter in agent.network.parameters()])


def test_the_same_seed_gives_the_same_weights() -> None:
    torch.manual_seed(1)
    one = train(TabularEnv(bets(), 16), rdo.TargetReturn(), SMALL, seed=3)
    torch.manual_seed(2)
    env = TabularEnv(bets(), 16)
    env.reset(9)
    two = train(env, rdo.TargetReturn(), SMALL, seed=3)
    assert torch.equal(weights(one), weights(two))
    assert not torch.equal(weights(one), weights(train(env, rdo.TargetReturn(), SMALL, seed=4)))


def test_the_number_of_threads_is_left_as_it_was() -> None:
    torch.set_num_threads(2)
    try:
        one = train(TabularEnv(bets(), 16), rdo.TargetReturn(), replace(SMALL, steps=10))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert torch.equal(weights(one), weights(train(TabularEnv(bets(), 16), rdo.TargetReturn(), one.config)))


class StoppedError(Exception):
    """Stands for a machine that is switched off."""


class Fragile(TabularEnv):
    """Fails after a number of steps."""

    left = 10**9

    def step(self, action: torch.Tensor):  # type: ignore[no-untyped-def]
        self.left -= 1
        if self.left < 0:
            raise StoppedError
        return super().step(action)


@pytest.mark.parametrize("vectors", [False, True], ids=["scalars", "vectors"])
def test_a_run_that_is_killed_goes_on_as_if_nothing_had_happened(tmp_path: Path, vectors: bool) -> None:
    config = replace(SMALL, steps=90, double=vectors)
    mdp, objective = bets(), rdo.TargetReturn()
    if vectors:
        table = {
            s: {a: [(0.5, s + 1, (1.0, a), s == 1), (0.5, s + 1, (a, 0.0), s == 1)] for a in (0, 1)} for s in (0, 1)
        }
        mdp, objective = rdo.MDP.from_outcomes(table, gamma=0.9), rdo.Homeostasis()
    whole = train(TabularEnv(mdp, 16), objective, config, 5, tmp_path / "whole.jsonl")
    path, rows = tmp_path / "run.safetensors", tmp_path / "run.jsonl"
    moments = np.random.default_rng(0).integers(1, 30, size=3)
    for moment in moments.tolist():
        env = Fragile(mdp, 16)
        env.left = moment
        with pytest.raises(StoppedError):
            train(env, objective, config, 5, rows, path, checkpoint_every=4, resume=True)
    found = train(TabularEnv(mdp, 16), objective, config, 5, rows, path, checkpoint_every=4, resume=True)
    assert torch.equal(weights(found), weights(whole))
    assert rows.read_text() == (tmp_path / "whole.jsonl").read_text()
    assert [json.loads(line)["step"] for line in rows.read_text().splitlines()] == [*range(7, 90, 7), 90]
    assert torch.equal(weights(load(path)), weights(whole))


def test_everything_random_goes_on_where_it_was(tmp_path: Path) -> None:
    one = Learner(TabularEnv(bets(), 16), rdo.TargetReturn(), SMALL, 1)
    rounds = one.run()
    for _ in range(33):
        next(rounds)
    one.save(tmp_path / "a")
    two = Learner(TabularEnv(bets(), 16), rdo.TargetReturn(), SMALL, 1)
    two.restore(tmp_path / "a")
    assert (two.step, two.updates, two.replay.position, two.replay.size) == (33, 30, 33 * 16 % 300, 300)
    for mine, theirs in zip(one.replay.data, two.replay.data, strict=True):
        assert torch.equal(mine, theirs)
    for _ in zip(rounds, two.run(), strict=True):
        assert torch.equal(one.optimizer.flat, two.optimizer.flat)
        assert torch.equal(one.observation, two.observation)
        assert torch.equal(one.start, two.start)


def test_gymnasium_resumes_with_new_episodes_and_says_so(tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    config = replace(SMALL, steps=30, stock_low=(-20.0,), stock_high=(0.0,))
    path = tmp_path / "run"
    one = Learner(GymnasiumEnv("CartPole-v1", 8), rdo.TargetReturn(), config)
    for _ in range(20):
        next(one.run())
    one.save(path)
    _, meta = files.read(path)
    assert meta["run"]["resumes"] == "with new episodes and replay"
    two = Learner(GymnasiumEnv("CartPole-v1", 8), rdo.TargetReturn(), config)
    two.restore(path)
    assert (two.step, two.replay.size) == (20, 0) and torch.equal(two.optimizer.flat, one.optimizer.flat)
    before = two.updates
    next(two.run())
    assert two.updates == before  # the replay has to fill up first
    assert [*two.run()][-1] == 30 and two.updates > before


def test_a_run_goes_on_only_as_itself(tmp_path: Path) -> None:
    path = tmp_path / "run"
    train(TabularEnv(bets(), 16), rdo.TargetReturn(), replace(SMALL, steps=10), 1, checkpoint=path)
    for env, objective, config, seed, message in [
        (TabularEnv(bets(), 16), rdo.Shortfall(), replace(SMALL, steps=10), 1, "another objective"),
        (TabularEnv(bets(), 16), rdo.TargetReturn(), replace(SMALL, steps=11), 1, "another config"),
        (TabularEnv(bets(), 16), rdo.TargetReturn(), replace(SMALL, steps=10), 2, "another seed: 1, not 2"),
        (TabularEnv(bets(0.5), 16), rdo.TargetReturn(), replace(SMALL, steps=10), 1, "another spec"),
        (TabularEnv(bets(), 17), rdo.TargetReturn(), replace(SMALL, steps=10), 1, "has shape"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            train(env, objective, config, seed, checkpoint=path, resume=True)
    load(path).save(tmp_path / "agent")
    with pytest.raises(CheckpointError, match="holds an agent, not a training run"):
        train(
            TabularEnv(bets(), 16), rdo.TargetReturn(), replace(SMALL, steps=10), 1, None, tmp_path / "agent", 5, True
        )
    with pytest.raises(rdo.InvalidArgumentError, match="resume=True needs checkpoint="):
        train(TabularEnv(bets(), 16), rdo.TargetReturn(), SMALL, resume=True)


# ---------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def trained() -> Agent:
    return train(TabularEnv(bets(), 16), rdo.TargetReturn(), SMALL)


def test_a_saved_agent_is_the_same_agent(tmp_path: Path, trained: Agent) -> None:
    trained.save(tmp_path / "deeper" / "agent.safetensors")
    found = load(tmp_path / "deeper" / "agent.safetensors")
    assert repr(found) == repr(trained) == "Agent(TargetReturn(), trained for 60 rounds)"
    assert found.spec == trained.spec and found.config == trained.config
    states, stocks = np.array([0, 1, 2]), np.array([-1.0, 0.0, 2.5])
    np.testing.assert_array_equal(found.quantiles(states, stocks), trained.quantiles(states, stocks))
    assert [path.name for path in (tmp_path / "deeper").iterdir()] == ["agent.safetensors"]


@pytest.mark.parametrize(
    "objective", [rdo.TwoSlope(2.0, 0.5), rdo.Exponential(-0.25), rdo.Homeostasis(1), rdo.Threshold()], ids=repr
)
def test_objectives_are_kept_by_name(objective: rdo.ExpectedUtility) -> None:
    data = json.loads(json.dumps(files.objective_to_json(objective)))
    found = files.objective_of_json(data, None)
    assert type(found) is type(objective) and repr(found) == repr(objective)
    x = np.linspace(-2, 2, 7)
    np.testing.assert_array_equal(found.utility(x), objective.utility(x))


def test_a_utility_of_ones_own_is_not_kept_but_asked_for(tmp_path: Path) -> None:
    objective = rdo.ExpectedUtility(np.tanh, lipschitz=1.0)
    agent = train(TabularEnv(bets(), 16), objective, replace(SMALL, steps=5))
    agent.save(tmp_path / "a")
    with pytest.raises(
        CheckpointError, match=r"its utility is a function, 'ExpectedUtility\(tanh\)'; pass it as objective="
    ):
        load(tmp_path / "a")
    again = load(tmp_path / "a", objective=objective)
    assert again.act(0, 1.0) == agent.act(0, 1.0)


def rewritten(path: Path, change: object) -> Path:
    """The file with its header or its tensors changed."""
    tensors, meta = files.read(path)
    target = path.with_name("changed")
    change(tensors, meta)  # type: ignore[operator]
    save_file(tensors, target, metadata={"rdolib.deep": json.dumps(meta)})
    return target


def setting(name: str, value: object):  # type: ignore[no-untyped-def]
    def change(tensors: dict[str, torch.Tensor], meta: dict[str, dict[str, object]]) -> None:
        place, _, key = name.rpartition(".")
        (meta[place] if place else meta)[key] = value  # type: ignore[assignment]

    return change


def no_tensor(tensors: dict[str, torch.Tensor], meta: object) -> None:
    del tensors["network.encoder.weight"]


def not_finite(tensors: dict[str, torch.Tensor], meta: object) -> None:
    tensors["network.encoder.weight"][0, 0] = float("nan")


def another_type(tensors: dict[str, torch.Tensor], meta: object) -> None:
    tensors["network.encoder.weight"] = tensors["network.encoder.weight"].double()


def no_such_state(tensors: dict[str, torch.Tensor], meta: object) -> None:
    tensors["starts.observation"][0] = 17


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_tensor, "lacks the tensor 'network.encoder.weight'"),
        (not_finite, "has entries that are not finite"),
        (another_type, "of torch.float64; its settings ask for"),
        (no_such_state, "its initial observations do not exist"),
        (setting("version", 2), "has version 2; this library reads version 1"),
        (setting("config.hidden", [16, 17]), "has shape"),
        (setting("config.hidden", [10**9, 10**9]), "a network that large is not loaded"),
        (setting("config.quantiles", "8"), "quantiles must be a positive integer"),
        (setting("config.extra", 1), "look at"),
        (setting("objective", {"name": "__import__('os').system('true')", "parameters": []}), "is inconsistent"),
        (setting("objective", {"name": None, "text": "f"}), "its utility is a function"),
        (setting("objective", {"name": "CVaR", "parameters": [0.1]}), "is inconsistent"),
        (setting("spec", {}), "is inconsistent"),
        (setting("spec.n_actions", -3), "is inconsistent"),
        (setting("spec.gamma", 7.0), "gamma is 7.0; it must be a number greater than 0 and at most 1"),
        (setting("spec.low", [1.0, 2.0]), "sizes do not fit"),
        (setting("trained", None), "is inconsistent"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused(tmp_path: Path, trained: Agent, change: object, message: str) -> None:
    trained.save(tmp_path / "agent")
    with pytest.raises(CheckpointError, match=message):
        load(rewritten(tmp_path / "agent", change))


def test_a_half_written_file_is_refused(tmp_path: Path, trained: Agent) -> None:
    path = tmp_path / "agent"
    trained.save(path)
    whole = path.read_bytes()
    for length in (0, 5, 8, 300, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"is not a whole file of rdolib\.deep"):
            load(path)
    path.write_bytes(whole + b"more")
    with pytest.raises(CheckpointError, match=r"is not a whole file of rdolib\.deep"):
        load(path)


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "pickle").write_bytes(pickle.dumps(Bomb()))
    torch.save({"a": torch.zeros(3)}, tmp_path / "torch")
    save_file({"a": torch.zeros(3)}, tmp_path / "bare")
    save_file({"a": torch.zeros(3)}, tmp_path / "deep", metadata={"rdolib.deep": "[" * 100_000})
    save_file({"a": torch.zeros(3)}, tmp_path / "list", metadata={"rdolib.deep": "[1]"})
    for name in ("pickle", "torch", "bare", "deep", "list", "missing", "."):
        with pytest.raises(CheckpointError):
            load(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("moment", ["save_file", "fsync", "replace"])
def test_a_full_disk_leaves_the_previous_file(
    tmp_path: Path, trained: Agent, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent"
    trained.save(path)
    before = path.read_bytes()

    def fail(*arguments: object, **_: object) -> None:
        if moment == "save_file":
            Path(str(arguments[1])).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files if moment == "save_file" else os, moment, fail)
    other = copy.copy(trained)
    other.trained = 61
    with pytest.raises(CheckpointError, match=r"No space left on device.*what was there before is unchanged"):
        other.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["agent"]
    assert load(path).trained == 60
    with pytest.raises(CheckpointError, match="could not be written"):
        trained.save(tmp_path / "agent" / "below a file")


def test_a_run_file_with_wrong_counters_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    config = replace(SMALL, steps=10)
    train(TabularEnv(bets(), 16), rdo.TargetReturn(), config, checkpoint=path)
    assert load_file(path)["loop.start"].dtype == torch.float64
    for name, value in [("position", 300), ("size", -1), ("step", "10"), ("updates", True)]:
        changed = rewritten(path, setting(f"run.{name}", value))
        with pytest.raises(CheckpointError, match=f"{name} is"):
            Learner(TabularEnv(bets(), 16), rdo.TargetReturn(), config).restore(changed)


# ---------------------------------------------------------------------- metrics


def test_metrics_as_csv(tmp_path: Path) -> None:
    train(TabularEnv(bets(), 16), rdo.TargetReturn(), SMALL, metrics=tmp_path / "run.csv")
    with open(tmp_path / "run.csv", encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [7, 14, 21, 28, 35, 42, 49, 56, 60]
    # An episode has three rounds: in rounds 1 to 7 two of 16 end, in 8 to 14 two, in 15 to 21 three.
    assert [float(row["episodes"]) for row in rows[:3]] == [32.0, 32.0, 48.0]
    assert int(rows[-1]["transitions"]) == 960 and int(rows[-1]["updates"]) == 57
    assert float(rows[-1]["loss"]) > 0 and float(rows[-1]["utility"]) < 0
    with pytest.raises(rdo.InvalidArgumentError, match=r"a file that ends in .csv or .jsonl"):
        train(TabularEnv(bets(), 16), rdo.TargetReturn(), SMALL, metrics=tmp_path / "run.txt")


def test_returns_in_the_metrics_are_those_of_the_episodes() -> None:
    table = {0: {0: [(1.0, 1, 1.0, False)]}, 1: {0: [(1.0, 1, 3.0, True)]}}
    env = TabularEnv(rdo.MDP.from_outcomes(table, gamma=0.5), 4)
    config = replace(SMALL, stock_low=(-2.0,), stock_high=(-2.0,))
    learner = Learner(env, rdo.TargetReturn(), config)
    for _ in range(4):
        next(learner.run())
    row = learner.metrics()
    # G = 1 + 3 / 2, and -|-2 + G| = -1/2; eight episodes of two steps.
    assert (row["episodes"], row["return"], row["utility"]) == (8.0, 2.5, -0.5)
    assert learner.metrics()["episodes"] == 0.0


# ---------------------------------------------------------------------- the agent


def test_shapes_that_do_not_fit_are_refused(trained: Agent) -> None:
    assert trained.act(0) in (0, 1, 2) and trained.act([0, 1], [0.0, 1.0]).shape == (2,)
    assert trained.act(0, [0.0]).shape == (1,)
    assert trained.quantiles(0).shape == (3, 8) and trained.quantiles([0, 1, 2], -1.0).shape == (3, 3, 8)
    assert (np.diff(trained.quantiles([0, 1, 2], -1.0)) >= 0).all()
    for observation, stock, message in [
        ([[0]], 0.0, r"an observation has shape \(\)"),
        (4, 0.0, "observations are integers from 0 to 3; got 4"),
        (0.5, 0.0, "observations are integers from 0 to 3"),
        ([0, 1, 2], [0.0, 1.0], "stock must be a number, finite, or one for each of the 3 observations"),
        (0, float("nan"), "stock must be a number, finite"),
    ]:
        with pytest.raises(rdo.InvalidArgumentError, match=message):
            trained.act(observation, stock)


def test_range_of_stocks_is_declared_or_known() -> None:
    with pytest.raises(rdo.InvalidArgumentError, match="stock_low and stock_high have 2 numbers; rewards have 1"):
        Learner(TabularEnv(bets(), 2), rdo.Mean(), replace(SMALL, stock_low=(0.0, 0.0), stock_high=(1.0, 1.0)))
    pytest.importorskip("gymnasium")
    with pytest.raises(rdo.InvalidArgumentError, match="declare the range of initial stocks"):
        Learner(GymnasiumEnv("CartPole-v1", 2), rdo.Mean(), SMALL)
    with pytest.raises(rdo.InvalidArgumentError, match="seed must be an integer of at least 0; got -1"):
        Learner(TabularEnv(bets(), 2), rdo.Mean(), SMALL, seed=-1)


def test_an_agent_is_not_changed_by_more_training() -> None:
    learner = Learner(TabularEnv(bets(), 16), rdo.TargetReturn(), SMALL)
    rounds = learner.run()
    for _ in range(10):
        next(rounds)
    agent = learner.agent()
    before = agent.quantiles([0, 1, 2], 0.5)
    for _ in rounds:
        pass
    np.testing.assert_array_equal(agent.quantiles([0, 1, 2], 0.5), before)


# ---------------------------------------------------------------------- regret on small problems

LEARN = Config(steps=900, warmup=500, batch=128, quantiles=32, hidden=(64, 64))


def span(report: object) -> float:
    return float(np.nanmax(report.optimum) - np.nanmin(report.optimum))  # type: ignore[attr-defined]


def test_target_return_is_learned_at_every_stock() -> None:
    mdp = bets()
    agent = train(TabularEnv(mdp, 32), rdo.TargetReturn(), LEARN)
    report = grade(agent, mdp, states=[0, 1], stocks=np.arange(-6.0, 7.0))
    assert len(report.rows) == 26 and (report.regret > -1e-9).all()
    assert report.mean_relative < 0.02
    # With a target of 1 after one bet of 1 won, and of 6, the plans are known: stop, and bet 2 three times.
    assert agent.act(2, 0.0) == 0 and [agent.act(s, 2.0 * s - 6.0) for s in range(3)] == [2, 2, 2]


def test_one_run_with_the_shortfall_serves_every_level_of_cvar() -> None:
    mdp = bets()
    agent = train(TabularEnv(mdp, 32), rdo.Shortfall(), LEARN)
    report = grade(agent, mdp, rdo.CVaR, levels=[0.05, 0.25, 1.0])
    # Careful levels stay out (0 for sure); level 1 is the mean: three bets of 2, each worth 0.4.
    assert report.optimum[[0, 2]].tolist() == pytest.approx([0.0, 1.2], abs=1e-9)
    assert (report.regret > -1e-9).all() and (report.regret < 0.02 * 1.2).all()
    with pytest.raises(rdo.InvalidArgumentError, match="this agent has learned Shortfall"):
        agent.choose_stock(rdo.Variance())
    # From state 2 one bet is left, so at level 1 the mean is 0.4.
    stock = agent.choose_stock(rdo.CVaR(1.0), observation=2)
    assert agent.act(2, stock) == 2


def test_vector_rewards_keep_both_components_near_zero() -> None:
    # Two components start away from zero; each action moves one of them by 1 or rests.
    table = {
        s: {a: [(1.0, s + 1, reward, s == 1)] for a, reward in enumerate([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])}
        for s in range(2)
    }
    mdp = rdo.MDP.from_outcomes(table)
    agent = train(TabularEnv(mdp, 32), rdo.Homeostasis(), replace(LEARN, steps=500, particles=8))
    stocks = np.array([[-2.0, 0.0], [0.0, -2.0], [-1.0, -1.0], [-1.0, 0.0], [0.0, 0.0]])
    report = grade(agent, mdp, stocks=stocks)
    assert report.optimum.tolist() == [0.0] * 5
    assert report.regret.max() < 1e-9
    assert agent.quantiles(0, [0.0, 0.0]).shape == (3, 8, 2)


# ---------------------------------------------------------------------- grades


def test_grades_are_those_of_the_exact_solver(trained: Agent) -> None:
    mdp = bets()
    report = grade(trained, mdp, stocks=[-3.0, 1.0])
    solution = rdo.value_iteration(mdp, rdo.TargetReturn(), stock=[-3.0, 1.0])
    for row, stock in zip(report.rows, (-3.0, 1.0), strict=True):
        law = rdo.evaluate(mdp, trained)(0, stock)
        assert (row.lower, row.optimum) == solution.bounds(0, stock)
        assert row.achieved == rdo.TargetReturn()(law + stock) and row.standard_error == 0.0
        assert row.regret == row.optimum - row.achieved >= 0
        assert row.w1 == rdo.wasserstein(trained.returns(0, stock), law)
        bets_at_random = rdo.evaluate(mdp, np.full((4, 3), 1 / 3))(0)
        assert row.random == rdo.TargetReturn()(bets_at_random + stock)
    simulated = grade(trained, mdp, stocks=[-3.0, 1.0], episodes=4000)
    for exact, row in zip(report.rows, simulated.rows, strict=True):
        assert row.standard_error > 0 and abs(row.achieved - exact.achieved) < 5 * row.standard_error
    assert "mean relative regret" in str(report) and len(str(report).splitlines()) == 4
    assert json.loads(json.dumps(report.to_json()))[0]["stock"] == -3.0


def test_a_policy_that_walks_in_circles_is_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("rdolib.deep.grade"), "_EPISODES", 10)
    # Action 0 stays for ever, with reward 0; action 1 stops with 1. Untrained, the agent may do either.
    mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 0.0, False)], 1: [(1.0, 1, 1.0, True)]}})
    config = replace(SMALL, steps=1, stock_low=(-1.0,), stock_high=(1.0,))
    agent = train(TabularEnv(mdp, 4), rdo.Mean(), config)
    with torch.no_grad():
        agent.network.body[-1].bias.copy_(torch.tensor([1.0] * 8 + [-1.0] * 8))
        agent.network.body[-1].weight.zero_()
    assert agent.act(0, 0.0) == 0
    report = grade(agent, mdp, stocks=[0.0])
    assert report.achieved.tolist() == [0.0] and report.regret.tolist() == [1.0]


def test_several_starts_are_graded_as_their_mixture() -> None:
    table = {s: {0: [(1.0, 2, s, True)], 1: [(0.5, 2, 3.0 * s, True), (0.5, 2, -1.0, True)]} for s in (0, 1)}
    mdp = rdo.MDP.from_outcomes(table, initial=[0.25, 0.75, 0.0])
    agent = train(TabularEnv(mdp, 16), rdo.Shortfall(), replace(SMALL, steps=20))
    report = grade(agent, mdp, rdo.CVaR, levels=[0.5])
    row, parts = report.rows[0], rdo.evaluate(mdp, agent)
    law = rdo.mixture([parts(0, report.rows[0].stock), parts(1, report.rows[0].stock)], [0.25, 0.75])
    assert row.state is None and row.achieved == pytest.approx(law.cvar(0.5), abs=1e-12)
    assert row.optimum == pytest.approx(rdo.optimize(mdp, rdo.CVaR(0.5)).value, abs=1e-12)
    simulated = grade(agent, mdp, rdo.CVaR, levels=[0.5], episodes=4000).rows[0]
    assert abs(simulated.achieved - row.achieved) <= 5 * simulated.standard_error + 1e-9


def test_grades_refuse_what_does_not_fit(trained: Agent) -> None:
    mdp = bets()
    other = rdo.MDP.from_outcomes({0: {0: [(1.0, 1, 1.0, True)]}})
    for arguments, message in [
        ({"mdp": other}, "the agent was trained on 4 states"),
        ({"levels": [0.1]}, "levels= needs a family of objectives"),
        ({"objective": rdo.CVaR}, "a family of objectives needs levels="),
        ({"objective": rdo.CVaR, "levels": [0.1], "stocks": [0.0]}, "chooses its stock; leave both out"),
        ({"objective": rdo.CVaR, "levels": [0.1]}, "this agent has learned TargetReturn"),
    ]:
        with pytest.raises(rdo.InvalidArgumentError, match=message):
            grade(trained, **({"mdp": mdp} | arguments))  # type: ignore[arg-type]


# ---------------------------------------------------------------------- the command line


def test_the_command_line_trains_resumes_and_grades(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "map.txt").write_text("S.G\n", "utf8")
    run = [
        "train", "--grid", str(tmp_path / "map.txt"), "--objective", "TwoSlope 2 1", "--out", str(tmp_path / "agent"),
        "--metrics", str(tmp_path / "run.csv"), "--steps", "40", "--warmup", "64", "--batch", "32", "--quantiles", "4",
        "--hidden", "8", "--envs", "16", "--every", "10", "--max-steps", "20", "--double",
    ]  # fmt: skip
    assert main(run) == 0
    assert "Agent(TwoSlope(2, 1), trained for 40 rounds)" in capsys.readouterr().out
    assert main([*run, "--resume"]) == 0
    report = tmp_path / "report.json"
    graded = ["grade", str(tmp_path / "agent"), "--grid", str(tmp_path / "map.txt"), "--stocks", "2", "--json"]
    assert main([*graded, str(report), "--horizon", "20"]) == 0
    assert "TwoSlope(2, 1): mean relative regret" in capsys.readouterr().out
    assert json.loads(report.read_text())[0]["optimum"] == 0.0
    for wrong, message in [
        (["train", "--out", "x"], "say which problem"),
        ([*run, "--objective", "CVaR 0.1"], "lacks indifference to mixtures"),
        ([*run, "--objective", "Happiness"], "there is no objective 'Happiness'"),
        ([*run, "--objective", "TwoSlope 1"], "is not an objective"),
        (["grade", str(report), "--grid", str(tmp_path / "map.txt")], "is not a whole file"),
    ]:
        assert main(wrong) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0 and "grade it against the exact optimum" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch about itself, while it compiles
def test_the_compiled_loss_learns_the_same() -> None:
    config = replace(SMALL, steps=10)
    eager = train(TabularEnv(bets(), 16), rdo.TargetReturn(), config)
    compiled = train(TabularEnv(bets(), 16), rdo.TargetReturn(), replace(config, compiled=True))
    assert torch.allclose(weights(eager), weights(compiled), atol=1e-4)
