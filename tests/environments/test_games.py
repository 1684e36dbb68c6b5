"""games: rules that hold, rewards that add up to one, and any environment of Gymnasium's."""

import asyncio
from random import Random
from typing import Any

import pytest

from gymrail import GymrailError, Rollout
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail_environments.games.boards import Guess, Maze, Nim
from gymrail_environments.games.environment import GAMES, GamesTask
from gymrail_environments.games.words import Words, known_words, marks

SPEC = find("games")


def task(game: str, seed: int = 3) -> GamesTask:
    return GamesTask(responses_create_params={"input": []}, game=game, seed=seed)


def played(game: str, *actions: str, seed: int = 3) -> Rollout:
    turns = [f"<action>{action}</action>" for action in actions]
    rollout = asyncio.run(play(SPEC, task(game, seed), ScriptedModel(lambda request: turns[_spoken(request)])))
    assert rollout.failure is None
    return rollout


def _spoken(request: Any) -> int:
    return sum(item.get("role") == "assistant" for item in request.input)


@pytest.mark.parametrize("name", sorted(GAMES))
def test_the_best_play_earns_one_in_every_game_and_the_step_rewards_add_up_to_it(name: str) -> None:
    spec = SPEC.with_config({"games": [name]})
    for index in range(40):
        rollout = asyncio.run(play(spec, spec.generate("train", index), Oracle(), task_index=index))
        assert rollout.failure is None
        assert rollout.reward == 1.0
        assert sum(rollout.step_rewards) == pytest.approx(1.0)


@pytest.mark.parametrize("name", sorted(GAMES))
def test_no_play_earns_more_than_one_or_less_than_zero(name: str) -> None:
    rng = Random(name)
    for seed in range(60):
        game, total, over = GAMES[name](), 0.0, False
        game.reset(seed=seed)
        space = game.action_space
        for _ in range(200):
            if hasattr(space, "n"):
                action: Any = rng.randrange(space.start, space.start + space.n)
            else:
                action = rng.choice(["1 1", "2 1", "3 2", "9 9", "", "stone", "crane", "zzzzz", "-1 3", "1 ²"])
            _, reward, terminated, truncated, _ = game.step(action)
            assert reward >= 0
            total += reward
            over = terminated or truncated
            if over:
                break
        assert over
        assert total <= 1.0 + 1e-9


def test_a_games_start_depends_on_its_seed_alone() -> None:
    for name, game in GAMES.items():
        starts = [game().reset(seed=seed)[0] for seed in (1, 2, 1)]
        assert starts[0] == starts[2], name
    assert len({Maze().reset(seed=seed)[0] for seed in range(20)}) > 15


def test_the_rules_and_the_first_observation_are_the_prompt() -> None:
    rollout = played("guess", "50", "50", "50", "50", "50", "50", "50", seed=1)
    prompt = rollout.conversation[0]["content"]
    assert "from 1 to 100 in seven guesses" in prompt
    assert "7 guesses left." in prompt
    assert rollout.reward in (0.0, 1.0)


def test_walls_stop_and_coming_back_pays_nothing() -> None:
    maze = Maze()
    maze.reset(seed=5)
    first = maze.solution()
    number = Maze.action_names.index(first)
    _, forward, *_ = maze.step(number)
    _, back, *_ = maze.step((number + 2) % 4)
    _, again, *_ = maze.step(number)
    assert (forward > 0, back, again) == (True, 0.0, 0.0)
    maze.reset(seed=5)
    blocked = next(n for n, (y, x) in enumerate(Maze._moves) if (1 + y, 1 + x) in maze.walls)
    shown, reward, *_ = maze.step(blocked)
    assert (shown.startswith("A wall."), reward, maze.place) == (True, 0.0, (1, 1))


def test_the_guesses_are_counted_and_the_hints_are_right() -> None:
    game = Guess()
    game.reset(seed=9)
    for guess in (1, 100):
        said = game.step(guess)[0]
        assert said.startswith("Right" if guess == game.secret else "Higher" if guess < game.secret else "Lower")
    assert game.step(game.secret)[1:3] == (1.0, True)


def test_nim_is_lost_by_one_wrong_turn_and_by_an_impossible_one() -> None:
    for seed in range(30):
        nim = Nim()
        nim.reset(seed=seed)
        wrong = next(
            (f"{heap + 1} {count}" for heap in range(3) for count in range(1, nim.heaps[heap] + 1)
             if f"{heap + 1} {count}" != nim.solution() and _balance_after(nim, heap, count) != 0), None
        )  # fmt: skip
        if wrong is None:
            continue
        over, total = False, 0.0
        action = wrong
        while not over:
            _, reward, over, _, _ = nim.step(action)
            total += reward
            action = nim.solution()
        assert total == 0.0
    assert played("nim", "4 1").reward == 0.0
    assert played("nim", "1 99").reward == 0.0


def _balance_after(nim: Nim, heap: int, count: int) -> int:
    heaps = [stones - count * (place == heap) for place, stones in enumerate(nim.heaps)]
    return heaps[0] ^ heaps[1] ^ heaps[2]


@pytest.mark.parametrize(
    ("guess", "secret", "found"),
    [
        ("crane", "crane", "+++++"),
        ("eagle", "crane", "-?--+"),
        ("sheep", "steep", "+-+++"),
        ("speed", "crane", "--?--"),
    ],
)
def test_letters_are_marked_as_often_as_the_word_has_them(guess: str, secret: str, found: str) -> None:
    assert marks(guess, secret) == found


def test_the_words_are_different_and_have_five_letters() -> None:
    assert len(set(known_words())) == len(known_words()) > 150
    assert {len(word) for word in known_words()} == {5}
    words = Words()
    words.reset(seed=1)
    assert words.step("crwth")[0].splitlines()[0] == "crwth"


def test_an_answer_without_a_valid_action_is_told_what_is_allowed_and_three_end_the_game() -> None:
    rollout = asyncio.run(play(SPEC, task("maze"), ScriptedModel(lambda request: "<action>north</action>")))
    assert (rollout.reward, rollout.metrics["invalid_answers"]) == (0.0, 3)
    told = [item["content"] for item in rollout.items if item.get("role") == "user"]
    assert "up (0), right (1), down (2), left (3)" in str(told[0])


def test_an_environment_of_gymnasiums_is_played_and_its_sum_is_scaled() -> None:
    settings = {"id": "CliffWalking-v1", "total_range": [-20.0, -13.0], "instructions": "Reach G; C is a cliff."}
    spec = SPEC.with_config(settings)
    actions = ["up", *["right"] * 11, "down"]
    turns = [f"<action>{action}</action>" for action in actions]
    rollout = asyncio.run(play(spec, spec.generate("train", 0), ScriptedModel(turns)))
    assert (rollout.reward, rollout.metrics["total"]) == (1.0, -13.0)
    assert "Reach G; C is a cliff." in rollout.conversation[0]["content"]
    worse = asyncio.run(play(spec, spec.generate("train", 0), ScriptedModel(["<action>left</action>"] * 4 + turns)))
    assert worse.reward == pytest.approx(3 / 7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"games": ["mase"]}, "Did you mean 'maze'"),
        ({"games": []}, "needs a name"),
        ({"total_range": [1, 1]}, "low end"),
    ],
)
def test_wrong_settings_say_what_is_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GymrailError, match=message):
        SPEC.with_config(settings)


def test_a_row_with_an_unknown_game_is_a_failure_that_names_the_nearest() -> None:
    rollout = asyncio.run(play(SPEC, task("mase"), ScriptedModel(["x"])))
    assert rollout.reward is None
    assert rollout.failure is not None
    assert "Did you mean 'maze'?" in rollout.failure.message
