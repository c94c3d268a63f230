"""The scoring core: what the live placement and the simulation share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.placement.board import WHOLE, Board, Shape
from scheduler.placement.mix import Mix
from scheduler.placement.patterns import worth
from scheduler.placement.policies import POLICIES, Stethos, growth
from scheduler.placement.ranking import Ranking

MODELS = ("T4", "G2")
FEW = settings(max_examples=40, deadline=None)

shapes = st.one_of(
    st.builds(Shape, st.just(1), st.sampled_from([160, 320, 470, 810]), st.sampled_from([0.0, 4.0, 12.0])),
    st.builds(Shape, st.sampled_from([0, 1, 2, 4]), st.just(WHOLE), st.sampled_from([1.0, 8.0, 20.0])),
    st.builds(Shape, st.just(1), st.just(WHOLE), st.just(4.0), st.just(8.0), st.just(frozenset({"T4"}))),
)
mixes = st.dictionaries(shapes, st.integers(1, 20).map(float), min_size=1, max_size=6)


@st.composite
def boards(draw: st.DrawFn) -> Board:
    count = draw(st.integers(1, 6))
    free = st.sampled_from([0, 190, 350, 530, 680, WHOLE])
    gpus = [draw(st.lists(free, min_size=4, max_size=4)) for _ in range(count)]
    cpu = draw(st.lists(st.sampled_from([0.0, 5.0, 16.0, 32.0]), min_size=count, max_size=count))
    models = draw(st.lists(st.sampled_from(MODELS), min_size=count, max_size=count))
    return Board(np.array(cpu), np.full(count, 64.0), np.array(gpus), models)


def fragments(board: Board, row: int, mix: Mix) -> float:
    """As the paper defines them, class by class."""
    free = board.gpus[row].tolist()
    full = sum(each == WHOLE for each in free)
    total = 0.0
    for kind, weight in mix.classes.items():
        enough = full >= kind.gpus if not kind.shared else max(free) >= kind.milli
        allowed = not kind.models or board.names[board.model[row]] in kind.models
        runs = kind.gpus > 0 and board.cpu[row] >= kind.cpu and enough and allowed
        total += weight * sum(each for each in free if not runs or each < kind.milli)
    return total


@FEW
@given(boards(), mixes, shapes)
def test_the_growth_of_fragments_is_the_papers(board: Board, weights: dict[Shape, float], shape: Shape) -> None:
    mix = Mix(weights)
    rows = np.flatnonzero(board.fits(np.arange(len(board)), shape))
    found = growth(board, mix.tables(board), rows, shape)
    for at, row in enumerate(rows.tolist()):
        before = fragments(board, row, mix)
        for slot in range(board.slots) if shape.shared else (0,):
            if shape.shared and board.gpus[row, slot] < shape.milli:
                assert found[at, slot] == np.inf
                continue
            taken = board.take(row, shape, slot)
            after = fragments(board, row, mix)
            board.gpus[row, list(taken)] += shape.milli
            board.cpu[row] += shape.cpu
            board.memory[row] += shape.memory
            board.full[row] = (board.gpus[row] == WHOLE).sum()
            board.free[row] += shape.amount
            assert found[at, slot] == pytest.approx(after - before, abs=1e-6)


def test_a_mix_keeps_its_commonest_shapes() -> None:
    mix = Mix({Shape(1): 90.0, Shape(2): 8.0, Shape(8): 2.0}, cover=0.95)
    assert mix.classes == {Shape(1): pytest.approx(90 / 98), Shape(2): pytest.approx(8 / 98)}


@pytest.mark.parametrize(
    ("lengths", "worths"),
    [
        ({500: 1.0}, {499: 0.0, 500: 0.5, 999: 0.5, WHOLE: 1.0}),
        ({340: 1.0}, {339: 0.0, 340: 0.5, 680: 1.0, WHOLE: 1.0}),
        # A third goes with each 650: together they fill a GPU.
        ({650: 1.0, 320: 3.0}, {320: 1 / 3, 640: 2 / 3, 650: 2 / 3, WHOLE: 1.0}),
        # Nothing goes with an 810: its remainder is worth nothing.
        ({810: 1.0, 470: 1.0}, {190: 0.0, 470: 0.5, 530: 0.5, 810: 1.0}),
        ({}, {999: 0.0, WHOLE: 1.0}),
    ],
)
def test_a_remainder_is_worth_what_can_be_cut_from_it(lengths: dict[int, float], worths: dict[int, float]) -> None:
    found = worth(lengths)
    assert {room: found[room] for room in worths} == pytest.approx(worths)


@FEW
@given(st.dictionaries(st.integers(1, 999), st.floats(0.01, 100), min_size=1, max_size=12))
def test_worth_never_falls_with_more_room(lengths: dict[int, float]) -> None:
    found = worth(lengths)
    assert (np.diff(found) >= 0).all()
    assert (found[0], found[WHOLE]) == (0, 1)


@FEW
@given(boards(), mixes, st.lists(shapes, max_size=25))
def test_what_is_remembered_is_what_a_fresh_look_finds(
    board: Board, weights: dict[Shape, float], wanted: list[Shape]
) -> None:
    mix, policy = Mix(weights), Stethos()
    ranking = Ranking(board, policy)
    ranking.learn(mix)
    for shape in wanted:
        ranking.place(shape)
    for shape in set(wanted):
        cost, slots = ranking.costs(shape)
        fresh, choice = Ranking(board, policy).costs(shape)
        assert cost.tolist() == fresh.tolist()
        assert slots[np.isfinite(cost)].tolist() == choice[np.isfinite(cost)].tolist()


@pytest.mark.parametrize("name", POLICIES)
def test_no_policy_gives_what_is_not_there_or_leaves_what_fits(name: str) -> None:
    generator = np.random.default_rng(1)
    count = 12
    board = Board(np.full(count, 32.0), np.full(count, 64.0), np.full((count, 4), WHOLE), ["T4", "G2"] * (count // 2))
    kinds = [
        Shape(1, 470, 4.0),
        Shape(1, 810, 2.0),
        Shape(2, cpu=8.0),
        Shape(0, cpu=6.0),
        Shape(4, cpu=1.0, memory=9.0),
    ]
    ranking = Ranking(board, POLICIES[name](generator))
    ranking.learn(Mix(dict.fromkeys(kinds, 1.0)))
    for kind in generator.integers(0, len(kinds), 150).tolist():
        able = board.fits(np.arange(count), kinds[kind])
        placed = ranking.place(kinds[kind])
        assert (placed is not None) == able.any()
        assert placed is None or able[placed[0]]
        assert min(board.cpu.min(), board.memory.min(), board.gpus.min()) >= 0
        assert (board.free == board.gpus.sum(1)).all()
        assert (board.full == (board.gpus == WHOLE).sum(1)).all()
