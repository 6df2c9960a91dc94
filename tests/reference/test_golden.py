"""The reference gives what the original gave: values in tests/golden, on any machine."""

import pytest
import torch

from marfast.verifying.case import Case, outcome, reference
from tests.golden import recipes, values

CASES = recipes.all_cases()


@pytest.mark.parametrize("case", CASES, ids=values.key)
def test_the_reference_gives_what_the_original_gave(case: Case) -> None:
    values.check(case, outcome(case, reference()))


def test_every_golden_value_has_a_case() -> None:
    golden, digests = values.load()
    assert set(golden["cases"]) == {values.key(case) for case in CASES}
    assert set(digests) <= set(golden["cases"])


def test_golden_values_say_what_they_were_made_with() -> None:
    made_with = values.load()[0]["made with"]
    assert made_with["original"] == "LTH14/mar fe470ac24afbee924668d8c5c83e9fec60af3a73"
    assert made_with.keys() >= {"torch", "timm", "numpy"}


@pytest.mark.parametrize("share", [1e-4, -1e-4])
def test_a_changed_number_is_noticed(share: float) -> None:
    value = torch.linspace(-1, 1, 300)
    golden = values.digest(value)
    assert values.excess(value, golden) == 0
    for place in (0, 7, 299):
        changed = value.clone()
        changed[place] += share * 20
        assert values.excess(changed, golden) > 1
    assert values.excess(value * torch.nan, golden) == torch.inf
