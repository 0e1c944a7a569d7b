"""At L3 the order of members is nothing, and everything else is everything."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest

from guard_fixture import Fixture, call, l3, refusal_of

ALPHABET = 'abcXYZ 0189_/~"\\é世😀\u0000\u2028'


def arguments(dice: random.Random) -> dict[str, Any]:
    """Values that the schema of the fixture's tools admits."""

    def text() -> str:
        return "".join(dice.choices(ALPHABET, k=dice.randrange(8)))

    def line() -> dict[str, Any]:
        present = {"sku": text(), "n": dice.choice([dice.randrange(-100, 100), dice.uniform(-1e6, 1e6), None, True])}
        return {name: value for name, value in present.items() if dice.random() < 0.7}

    return {
        "payment_id": text(),
        "amount_cents": dice.choice([dice.randrange(-(2**53) + 1, 2**53), dice.uniform(-1, 1)]),
        "note": text(),
        "lines": [line() for _ in range(dice.randrange(1, 4))],
    }


def reversed_members(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: reversed_members(member) for name, member in reversed(value.items())}
    return [reversed_members(item) for item in value] if isinstance(value, list) else value


def changed(value: Any, dice: random.Random) -> Any:
    """One change anywhere: a leaf replaced, a member or an item removed, one added."""
    copied = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []

    def collect(container: Any) -> None:
        for key in container if isinstance(container, dict) else range(len(container)):
            places.append((container, key))
            if isinstance(container[key], dict | list):
                collect(container[key])

    collect(copied)
    container, key = dice.choice(places)
    if dice.random() < 0.4:
        del container[key]
        return copied
    leaf = container[key]
    if isinstance(leaf, str):
        container[key] = leaf + "x"
    elif isinstance(leaf, bool) or leaf is None:
        container[key] = 1
    elif isinstance(leaf, int | float):
        container[key] = 0 if leaf else 1
    elif isinstance(leaf, list):
        leaf.append({})
    else:
        leaf["sku"] = [1, 2]
    return copied


@pytest.mark.parametrize("seed", range(100))
async def test_reordering_is_equal_and_any_other_change_is_refused(seed: int) -> None:
    dice = random.Random(seed)
    f = Fixture()
    granted = arguments(dice)
    for same in (granted, reversed_members(granted)):
        for written in (json.dumps(same), json.dumps(same, ensure_ascii=False, indent=1)):
            body = json.dumps(call("refund", "X")).replace('"X"', written).encode()
            await f.with_grant(l3("refund", granted), body)
    other = changed(granted, dice)
    assert json.dumps(other) != json.dumps(granted)  # to Python, `True` is 1
    refusal = await refusal_of(f.with_grant(l3("refund", granted), call("refund", other)))
    assert refusal.status == 403
