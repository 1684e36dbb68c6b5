"""Environments written against the real `verifiers` package, as its users write them: `load_environment(kind=...)`."""

import verifiers as vf
from datasets import Dataset

PRICES = {"apple": 3, "pear": 5, "plum": 7}


def load_environment(kind: str = "sum") -> vf.Environment:
    return {"sum": _sums, "guess": _guesses, "shop": _shop, "broken": _broken, "unfair": _unfair}[kind]()


def _right(completion: list, answer: str) -> float:
    return float(completion[-1].content.strip() == answer)


def _short(completion: list) -> float:
    return float(len(completion[-1].content) < 5)


def _sums() -> vf.Environment:
    rows = [{"question": f"{number} + 4?", "answer": str(number + 4)} for number in range(30)]
    held_out = Dataset.from_list([{"question": "90 + 4?", "answer": "94"}])
    return vf.SingleTurnEnv(
        dataset=Dataset.from_list(rows),
        eval_dataset=held_out,
        system_prompt="Answer with the number alone.",
        rubric=vf.Rubric(funcs=[_right, _short], weights=[0.75, 0.25]),
    )


class Guess(vf.MultiTurnEnv):
    """Guess a number; the state keeps how often."""

    async def setup_state(self, state: vf.State) -> vf.State:
        state["guesses"] = 0
        return state

    async def env_response(self, messages: vf.Messages, state: vf.State, **kwargs: object) -> vf.Messages:
        state["guesses"] += 1
        said, wanted = int(messages[-1].content), int(state["answer"])
        if said == wanted:
            state["final_env_response"] = [{"role": "user", "content": "Right."}]
            return state["final_env_response"]
        return [{"role": "user", "content": "Higher." if said < wanted else "Lower."}]


def _few_guesses(state: vf.State) -> float:
    return 1.0 / state["guesses"] if state.get("final_env_response") else 0.0


def _guesses() -> vf.Environment:
    rows = [{"question": "Guess my number from 1 to 9.", "answer": str(1 + number % 9)} for number in range(30)]
    return Guess(dataset=Dataset.from_list(rows), rubric=vf.Rubric(funcs=[_few_guesses]), max_turns=4)


def price_of(fruit: str) -> int:
    """Look a price up.

    Args:
        fruit: Its name.
    """
    return PRICES[fruit]


def _explains(completion: list) -> float:
    """Texts beside the calls reach the rubric."""
    return float(any(message.role == "assistant" and message.content == "Let me see." for message in completion))


def _shop() -> vf.Environment:
    rows = [{"question": "What do an apple and a plum cost?", "answer": "10"} for _ in range(3)]
    rubric = vf.Rubric(funcs=[_right, _explains], weights=[1.0, 0.0])
    return vf.ToolEnv(dataset=Dataset.from_list(rows), tools=[price_of], rubric=rubric, max_turns=5)


class Broken(vf.MultiTurnEnv):
    async def env_response(self, messages: vf.Messages, state: vf.State, **kwargs: object) -> vf.Messages:
        raise ValueError("the world ended")


def _broken() -> vf.Environment:
    return Broken(dataset=Dataset.from_list([{"question": "?", "answer": "1"}]), rubric=vf.Rubric(funcs=[_right]))


def _raises(completion: list) -> float:
    raise KeyError("no such column")


def _unfair() -> vf.Environment:
    return vf.SingleTurnEnv(
        dataset=Dataset.from_list([{"question": "?", "answer": "1"}]), rubric=vf.Rubric(funcs=[_right, _raises])
    )
