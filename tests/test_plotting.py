"""Pictures: what is drawn equals what was given, in words and in data."""

import os
import subprocess
import sys
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes

from rdolib.distributions import Distribution
from rdolib.errors import InvalidArgumentError
from rdolib.mdp import MDP

mpl.use("Agg")
from matplotlib import pyplot as plt

from rdolib import plotting

LAW = Distribution([-10, 0, 4], [0.1, 0.4, 0.5])
OTHER = Distribution([-3, 0, 1], [0.25, 0.25, 0.5])

# Two rows; the state below the start is 3, the goal 5.
MAP = MDP.from_grid(
    """
    S.#X
    ..cG
    """,
    rewards={"c": 2.0},
)


class Constant:
    """A policy with one action for each state; it remembers what it was asked."""

    def __init__(self, actions):
        self.table = np.asarray(actions)

    def actions(self, states, stocks, t=0):
        self.asked = (np.asarray(states), np.asarray(stocks), t)
        return self.table[states]


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def texts(ax):
    return [t.get_text() for t in ax.texts]


def legend(ax):
    return [t.get_text() for t in ax.get_legend().get_texts()]


def line(ax, label):
    """Data of the line with that label."""
    (found,) = [one for one in ax.lines if one.get_label() == label]
    return np.array(found.get_data(), dtype=float)


# Return distributions.


def test_bars_are_the_atoms():
    ax = plotting.returns(LAW)
    assert isinstance(ax, Axes)
    bars = ax.containers[0].patches
    np.testing.assert_allclose([b.get_x() + b.get_width() / 2 for b in bars], LAW.atoms, atol=1e-12)
    np.testing.assert_array_equal([b.get_height() for b in bars], LAW.probs)
    assert all(b.get_width() < 4 for b in bars)  # narrower than the smallest gap: bars do not touch
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("return", "probability")
    assert ax.get_legend() is None


def test_bars_stay_visible_where_atoms_are_close():
    ax = plotting.returns(Distribution([0, 1e-6, 100], [0.25, 0.25, 0.5]))
    assert all(b.get_width() >= 1 for b in ax.containers[0].patches)
    assert plotting.returns(Distribution([3], [1])).containers[0].patches[0].get_height() == 1


def test_several_laws_are_stems_that_differ_in_more_than_color():
    ax = plotting.returns({"mean": LAW, "careful": OTHER})
    np.testing.assert_array_equal(line(ax, "mean"), [LAW.atoms, LAW.probs])
    np.testing.assert_array_equal(line(ax, "careful"), [OTHER.atoms, OTHER.probs])
    first, second = ax.lines
    assert first.get_marker() != second.get_marker()
    assert first.get_color() != second.get_color()
    assert legend(ax) == ["mean", "careful"]
    tops = [segment[1] for stems in ax.collections for segment in stems.get_segments()]
    np.testing.assert_array_equal(
        tops, np.column_stack([np.append(LAW.atoms, OTHER.atoms), np.append(LAW.probs, OTHER.probs)])
    )


def test_many_atoms_are_drawn_by_the_distribution_function():
    law = Distribution(np.arange(100), np.full(100, 0.01))
    ax = plotting.returns(law)
    x, y = ax.lines[0].get_data()
    assert ax.lines[0].get_drawstyle() == "steps-post"  # right-continuous
    np.testing.assert_array_equal(x[1:-1], law.atoms)
    np.testing.assert_allclose(y, np.concatenate(([0], np.arange(1, 101) / 100, [1])), atol=1e-14)
    assert ax.get_ylabel() == "P(return ≤ x)"
    assert plotting.returns(law, kind="pmf").get_ylabel() == "probability"
    assert plotting.returns(LAW, kind="cdf").get_ylabel() == "P(return ≤ x)"


def test_mean_and_cvar_are_marked_where_they_are():
    ax = plotting.returns({"a": LAW, "b": OTHER}, mean=True, cvar=0.2)
    marks = {one.get_marker(): [] for one in ax.lines if one.get_marker() in "Dv"}
    for one in ax.lines:
        if one.get_marker() in marks and len(one.get_xdata()) == 1:
            marks[one.get_marker()].append(float(one.get_xdata()[0]))
    # LAW: the worst fifth is half -10, half 0; OTHER: all -3.
    assert marks == {"D": [pytest.approx(1.0), pytest.approx(-0.25)], "v": [-5.0, -3.0]}
    assert legend(ax) == ["a", "b", "mean", "CVaR 0.2"]


def test_returns_draws_on_the_given_axes():
    _, ax = plt.subplots()
    assert plotting.returns(LAW, ax=ax) is ax
    assert plotting.frontier(SimpleNamespace(levels=[0.5, 1], values=[0, 1]), ax=ax) is ax
    assert plotting.grid_plan(MAP, ax=ax) is ax
    assert plotting.policy_by_stock(Constant([0]), 0, [0, 1], ax=ax) is ax


@pytest.mark.parametrize(
    ("laws", "kind", "message"),
    [
        ({}, None, "one to 6 laws, got 0"),
        ({str(i): LAW for i in range(7)}, None, "one to 6 laws, got 7"),
        (LAW, "histogram", '"pmf" or "cdf", got \'histogram\''),
        ({"v": Distribution([[0, 1]], [1])}, None, "v has 2 components"),
    ],
)
def test_returns_refuses(laws, kind, message):
    with pytest.raises(InvalidArgumentError, match=message):
        plotting.returns(laws, kind=kind)


# Frontiers.


def test_frontier_draws_levels_and_values_in_order():
    ax = plotting.frontier(SimpleNamespace(levels=[1.0, 0.01, 0.1], values=[-3.0, -9.0, -4.0]))
    np.testing.assert_array_equal(ax.lines[0].get_data(), [[0.01, 0.1, 1.0], [-9.0, -4.0, -3.0]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("risk level", "objective value")
    assert ax.get_xscale() == "log"
    ax.figure.canvas.draw()
    assert {"0.01", "0.1", "1"} <= {t.get_text() for t in ax.get_xticklabels()}


@pytest.mark.parametrize("levels", [[0.1, 0.5, 1.0], [-1.0, 0.001, 1.0], [0.0, 0.001, 1.0]])
def test_frontier_is_linear_where_levels_do_not_span_decades(levels):
    assert plotting.frontier(SimpleNamespace(levels=levels, values=[0, 1, 2])).get_xscale() == "linear"


def test_frontier_shades_bounds_that_are_apart():
    values = np.array([-9.0, -4.0])
    front = SimpleNamespace(levels=[0.1, 1.0], values=values, bounds=[(-10.0, -8.0), (-4.0, -4.0)])
    ax = plotting.frontier(front)
    corners = ax.collections[0].get_paths()[0].vertices
    assert {tuple(v) for v in corners} >= {(0.1, -10.0), (0.1, -8.0), (1.0, -4.0)}
    assert legend(ax) == ["certified interval"]
    exact = SimpleNamespace(levels=[0.1, 1.0], values=values, bounds=np.column_stack((values, values)))
    assert not plotting.frontier(exact).collections


# Maps.


def test_map_cells_and_signs():
    ax = plotting.grid_plan(MAP)
    free, goal, hazard, wall = range(4)
    np.testing.assert_array_equal(ax.images[0].get_array(), [[free, free, wall, hazard], [free, free, free, goal]])
    assert texts(ax) == ["S", "×", "c", "★"]
    assert [t.get_position() for t in ax.texts if t.get_text() in "×★"] == [(3, 0), (3, 1)]
    assert ax.get_xlabel() == "S start   ★ goal   × hazard"
    assert not ax.lines


def test_arrows_point_where_the_policy_aims():
    # States row by row without the wall: 0 S, 1, 2 X, 3, 4, 5 c, 6 G. Actions: 0 up, 1 right, 2 down, 3 left.
    policy = Constant([2, 3, 0, 1, 1, 1, 0])
    ax = plotting.grid_plan(MAP, policy, stock=-2.5, t=3)
    states, stocks, t = policy.asked
    np.testing.assert_array_equal(states, [0, 1, 3, 4, 5])  # neither the pit nor the goal
    np.testing.assert_array_equal(stocks, np.full(5, -2.5))
    assert t == 3
    centers = {0: (0, 0), 1: (1, 0), 3: (0, 1), 4: (1, 1), 5: (2, 1)}
    steps = {1: (1, 0), 2: (0, 1), 3: (-1, 0)}
    for action, users in {1: [3, 4, 5], 2: [0], 3: [1]}.items():
        strokes = line(ax, f"_action {action}").T.reshape(len(users), 6, 2)
        for state, (tail, tip, barb, again, other, gap) in zip(users, strokes, strict=True):
            np.testing.assert_allclose((tail + tip) / 2, centers[state], atol=1e-12)
            np.testing.assert_allclose((tip - tail) / 0.6, steps[action], atol=1e-12)
            np.testing.assert_allclose(again, tip)
            np.testing.assert_allclose((barb + other) / 2, tip - 0.22 * np.array(steps[action]), atol=1e-12)
            assert np.isnan(gap).all()
    assert "_action 0" not in [one.get_label() for one in ax.lines]
    assert ax.get_xlabel().endswith("→ action at stock −2.5, time 3")


def test_arrows_of_a_vector_stock():
    mdp = MDP.from_grid("S.G", step_reward=(-1.0, 0.0))
    policy = Constant([1, 1, 0])
    ax = plotting.grid_plan(mdp, policy, stock=[-1, 2])
    np.testing.assert_array_equal(policy.asked[1], [[-1, 2], [-1, 2]])
    assert ax.get_xlabel().endswith("stock (−1, 2)")


def test_paths_are_the_states_side_by_side():
    ax = plotting.grid_plan(MAP, paths={"low": [0, 3, 4, 5, 6], "high": [0, 1, 4, 5, 6]})
    low, high = line(ax, "low"), line(ax, "high")
    np.testing.assert_allclose(low + 0.08, [[0, 0, 1, 2, 3], [0, 1, 1, 1, 1]], atol=1e-12)
    np.testing.assert_allclose(high - 0.08, [[0, 1, 1, 2, 3], [0, 0, 1, 1, 1]], atol=1e-12)
    assert legend(ax) == ["low", "high"]
    first, second = ax.lines
    assert first.get_linestyle() != second.get_linestyle()
    assert first.get_marker() != second.get_marker()
    (star,) = [t for t in ax.texts if t.get_text() == "★"]
    assert star.get_position() != (3, 1)  # in the corner, so that the ends of the paths are seen


def test_a_jump_leaves_a_gap_and_a_bump_does_not():
    mdp = MDP.from_gymnasium("CliffWalking-v1", gamma=1.0)
    # Start 36, up, right, off the cliff and back at the start, up, and into the wall on the left.
    ax = plotting.grid_plan(mdp, paths={"fall": [36, 24, 25, 36, 24, 24]})
    nan = np.nan
    np.testing.assert_array_equal(line(ax, "fall"), [[0, 0, 1, nan, 0, 0, 0], [3, 2, 2, nan, 3, 2, 2]])
    assert ax.lines[0].get_markevery() == [6]


def test_maps_of_gymnasium():
    cliff = plotting.grid_plan(MDP.from_gymnasium("CliffWalking-v1", gamma=1.0))
    codes = np.zeros((4, 12))
    codes[3, 1:11], codes[3, 11] = 2, 1
    np.testing.assert_array_equal(cliff.images[0].get_array(), codes)
    lake_mdp = MDP.from_gymnasium("FrozenLake-v1", gamma=0.95)
    lake = plotting.grid_plan(lake_mdp, Constant(np.full(16, 2)))  # FrozenLake's 2 is right
    np.testing.assert_array_equal(lake.images[0].get_array(), [[0, 0, 0, 0], [0, 2, 0, 2], [0, 0, 0, 2], [2, 0, 0, 1]])
    tail, tip = line(lake, "_action 2").T[:2]
    np.testing.assert_allclose(tip - tail, [0.6, 0], atol=1e-12)


def test_a_letter_c_that_can_be_entered_is_no_cliff():
    ax = plotting.grid_plan(MDP.from_grid("SCG", rewards={"C": 1.0}))
    assert texts(ax) == ["S", "C", "★"]
    assert "hazard" not in ax.get_xlabel()


def test_grid_plan_refuses():
    with pytest.raises(InvalidArgumentError, match=r"needs an MDP with a map.*from_grid"):
        plotting.grid_plan(MDP.garnet(3, 2, 2, seed=0))
    with pytest.raises(InvalidArgumentError, match=r"path 'a' names state 9; .* between 0 and 6"):
        plotting.grid_plan(MAP, paths={"a": [0, 9]})
    with pytest.raises(InvalidArgumentError, match="path 'a' is empty"):
        plotting.grid_plan(MAP, paths={"a": []})
    with pytest.raises(InvalidArgumentError, match="at most 6 paths, got 7"):
        plotting.grid_plan(MAP, paths={str(i): [0] for i in range(7)})


# Policies by stock.


def test_policy_by_stock():
    class Switch:
        def actions(self, states, stocks, t=0):
            assert (states == 4).all()
            assert t == 2
            return np.where(stocks < 0, 3, 1)

    ax = plotting.policy_by_stock(Switch(), 4, [2, -2, -1, 0], t=2, names=plotting.action_names(MAP))
    np.testing.assert_array_equal(ax.lines[0].get_data(), [[-2, -1, 0, 2], [1, 1, 0, 0]])
    np.testing.assert_array_equal(ax.lines[1].get_data(), [[0, 2], [0, 0]])
    np.testing.assert_array_equal(ax.lines[2].get_data(), [[-2, -1], [1, 1]])
    assert ax.lines[1].get_marker() != ax.lines[2].get_marker()
    assert [t.get_text() for t in ax.get_yticklabels()] == ["right", "left"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("stock", "action in state 4")


def test_action_names():
    lake = MDP.from_gymnasium("FrozenLake-v1", gamma=0.95)
    assert plotting.action_names(lake) == ("left", "down", "right", "up")
    assert plotting.action_names(MDP.garnet(3, 2, 2, seed=0)) == ("0", "1")


# The plane of two stocks.

# State 0: action 0 drinks, 1 eats or finds nothing. State 1 is terminal.
THIRST = {0: {0: [(1.0, 0, (2, -1), False)], 1: [(0.75, 0, (0, 2), False), (0.25, 1, (-4, 0), True)]}}


def quivers(ax):
    return {one.get_label(): one for one in ax.collections if hasattr(one, "U")}


class Thirsty:
    """Drinks where the first stock is below zero."""

    def actions(self, states, stocks, t=0):
        assert (states == 0).all()
        assert t == 5
        return np.where(stocks[:, 0] < 0, 0, 1)


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_arrows_are_the_expected_changes_of_stock(gamma):
    mdp = MDP.from_outcomes(THIRST, gamma=gamma)
    ax = plotting.stock_plane(mdp, Thirsty(), 0, [-2, 0, 2], [-1, 1], t=5, names=["drink", "eat"])
    found = quivers(ax)
    assert list(found) == legend(ax) == ["drink", "eat"]
    for name, mean in (("drink", [2.0, -1.0]), ("eat", [-1.0, 1.5])):
        stocks = np.asarray(found[name].get_offsets())
        assert set(stocks[:, 0]) == ({-2.0} if name == "drink" else {0.0, 2.0})
        assert set(stocks[:, 1]) == {-1.0, 1.0}
        expected = (stocks + mean) / gamma - stocks
        np.testing.assert_allclose(np.stack([found[name].U, found[name].V], axis=1), expected, atol=1e-12)
    lengths = [np.hypot(one.U, one.V) / one.scale for one in found.values()]
    assert np.concatenate(lengths).max() == pytest.approx(0.9 * 2)  # the gap between stocks is two
    assert found["drink"].get_facecolor().tolist() != found["eat"].get_facecolor().tolist()


def test_paths_over_the_plane():
    path = [(-2, -1), (0, -2), (-1, 0)]
    ax = plotting.stock_plane(MDP.from_outcomes(THIRST), Thirsty(), 0, [-2, 2], [-1, 1], t=5, paths={"one day": path})
    np.testing.assert_array_equal(line(ax, "one day"), np.transpose(path))
    assert legend(ax) == ["one day"]  # actions without a name stay out of it
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("first stock", "second stock")


def test_a_plane_where_nothing_changes():
    mdp = MDP.from_outcomes({0: {0: [(1.0, 1, (0, 0), False)]}, 1: {0: [(1.0, 1, (1, 1), True)]}})
    ax = plotting.stock_plane(mdp, Constant([0, 0]), 0, [0, 1], [0, 1])
    assert not np.any(quivers(ax)["_action 0"].U)


def test_stock_plane_refuses():
    mdp, policy = MDP.from_outcomes(THIRST), Constant([0, 0])
    with pytest.raises(InvalidArgumentError, match=r"reward_dim = 1; .*policy_by_stock"):
        plotting.stock_plane(MAP, policy, 0, [0, 1], [0, 1])
    with pytest.raises(InvalidArgumentError, match="state 1 is terminal"):
        plotting.stock_plane(mdp, policy, 1, [0, 1], [0, 1])
    with pytest.raises(InvalidArgumentError, match="state 7 is not a state"):
        plotting.stock_plane(mdp, policy, 7, [0, 1], [0, 1])
    with pytest.raises(InvalidArgumentError, match="at least two different stocks along each axis, got 1 and 2"):
        plotting.stock_plane(mdp, policy, 0, [1, 1], [0, 1])
    with pytest.raises(InvalidArgumentError, match=r"path 'a' must have shape \(steps, 2\), got \(3,\)"):
        plotting.stock_plane(mdp, policy, 0, [0, 1], [0, 1], paths={"a": [0, 1, 2]})
    with pytest.raises(InvalidArgumentError, match="at most 6 paths, got 7"):
        plotting.stock_plane(mdp, policy, 0, [0, 1], [0, 1], paths={str(i): [(0, 0)] for i in range(7)})


# Drawing itself.


def test_every_picture_is_drawn_without_warnings(tmp_path):
    front = SimpleNamespace(levels=[0.01, 1.0], values=[0.0, 1.0], bounds=[(-1.0, 0.5), (1.0, 1.0)])
    pictures = {
        "law": plotting.returns({"a": LAW, "b": OTHER}, mean=True, cvar=0.2),
        "front": plotting.frontier(front),
        "map": plotting.grid_plan(MAP, Constant(np.ones(7, dtype=int)), paths={"a": [0, 3]}),
        "stock": plotting.policy_by_stock(Constant([0]), 0, np.arange(5)),
        "plane": plotting.stock_plane(
            MDP.from_outcomes(THIRST), Constant([0, 0]), 0, [0, 1], [0, 1], paths={"a": [(0, 0), (1, 0)]}
        ),
    }
    for name, ax in pictures.items():
        ax.figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 2000


def test_the_library_does_not_import_matplotlib():
    check = "import sys, rdolib; assert 'matplotlib' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", check], check=True, env=environment)
