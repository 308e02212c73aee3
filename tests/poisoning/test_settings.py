"""Settings: every kind's range, several values, None; and the refusal, which says what is right."""

from dataclasses import FrozenInstanceError, dataclass, fields, replace

import numpy as np
import pytest

from poisoning import settings
from poisoning.attacks.influence import INFLUENCE_BASIC, Influence
from poisoning.attacks.kkt import KKT
from poisoning.attacks.label_flips import Alfa, RandomFlips
from poisoning.attacks.min_max import MinMax
from poisoning.settings import Kind, Settings, allowed, choice, described, number, setting, whole

pytestmark = pytest.mark.usefixtures("unchecked")

ATTACKS = (KKT, MinMax, Influence, RandomFlips, Alfa)
NEVER = (float("nan"), float("inf"), -float("inf"), "1", None, [1], np.array([0.1]), 1j, object())

RANGES = {
    "FRACTION": ((1e-9, 0.03, 0.5), (0.0, -0.1, 0.51, 3)),
    "REMOVAL": ((0.0, 0, 0.5), (-0.01, 0.51, 1)),
    "SHARE": ((0.0, 0, 1, 0.5), (-0.01, 1.01)),
    "QUANTILE": ((0.001, 0.999), (0.0, 1.0, 1, 0)),
    "PERCENTILE": ((0.001, 50, 100.0), (0.0, 100.1, -5)),
    "LOSS": ((0.0, 2.33, 100), (-0.1, 100.1)),
    "LAMBDA": ((1e-12, 0.09, 1000), (0.0, -1.0, 1001)),
    "STEP": ((1e-9, 2, 1e6), (0.0, -1.0, 1.1e6)),
    "COUNT": ((1, 7, 1000), (0, -1, 1001, 1.0, 2.5)),
    "ROWS": ((1, 10_000_000), (0, 10_000_001, 6000.0)),
    "EXAMPLES": ((10, 100_000, 32), (8, 11, 100_002, 12.0)),
    "EXPONENT": ((-20, 0.0, 20.0), (-20.1, 21)),
}


def about(kind, *, many=False, none=False):
    return {"kind": kind, "many": many, "none": none}


@pytest.mark.parametrize("name", RANGES)
def test_a_kind_takes_its_range_and_nothing_else(name):
    kind = getattr(settings, name)
    inside, outside = RANGES[name]
    for value in inside:
        assert allowed(value, about(kind)), value
        assert allowed(np.array(value)[()], about(kind)), "numpy's own numbers too"
    for value in (*outside, True, False, np.True_, *NEVER):
        assert not allowed(value, about(kind)), value


def test_every_kind_of_number_is_in_the_table():
    kinds = {name for name, one in vars(settings).items() if isinstance(one, Kind)}
    assert kinds >= set(RANGES)


def test_a_flag_is_true_or_false_only():
    for value in (True, False, np.True_):
        assert allowed(value, about(settings.FLAG))
    for value in (0, 1, "true", None, 1.0):
        assert not allowed(value, about(settings.FLAG))


def test_a_choice_is_one_of_its_names():
    kind = choice("two", "all", "none")
    assert kind.one == "two, all or none"
    assert allowed("two", about(kind))
    for value in ("Two", "", 2, None, ("two",)):
        assert not allowed(value, about(kind))


@pytest.mark.parametrize("name", RANGES)
def test_several_values_are_a_tuple_of_at_least_one(name):
    kind = getattr(settings, name)
    inside, outside = RANGES[name]
    assert allowed(tuple(inside), about(kind, many=True))
    for value in ((), [], list(inside), inside[0], np.array(inside), set(inside), "12", None):
        assert not allowed(value, about(kind, many=True)), value
    for one in (*outside, *NEVER, True):
        assert not allowed((*inside, one), about(kind, many=True)), one


def test_a_list_becomes_a_tuple():
    one = KKT(quantiles=[0.2, 0.4], decoy_copies=[1], opening=[0.4, 8])
    assert (one.quantiles, one.decoy_copies, one.opening) == ((0.2, 0.4), (1,), (0.4, 8))
    assert hash(one) == hash(KKT(quantiles=(0.2, 0.4), decoy_copies=(1,), opening=(0.4, 8)))
    with pytest.raises(ValueError, match="quantiles must be"):
        KKT(quantiles=[])


def test_none_is_allowed_only_where_it_says_so():
    kind = settings.SHARE
    assert allowed(None, about(kind, none=True))
    assert allowed((None, 0.5), about(kind, many=True, none=True))
    assert not allowed(None, about(kind, many=True, none=True))
    assert not allowed((None, 0.5), about(kind, many=True))
    assert described(about(kind, none=True)).endswith(", or None")


def test_kinds_of_ones_own():
    third = number(0.0, 1 / 3, "a third at most", "thirds")
    few = whole(2, 3, "two or three", "twos and threes")
    assert allowed(0.0, about(third)) and not allowed(0.5, about(third))
    assert allowed(2, about(few)) and not allowed(4, about(few))

    @dataclass(frozen=True)
    class Own(Settings):
        share: float = setting(0.1, third, "a share")
        name: str = "free"

    assert Own().share == 0.1
    assert Own(name=3).name == 3, "a field without a kind is not checked"
    with pytest.raises(ValueError, match=r"^Own: share must be a third at most, not 0\.9\.$"):
        Own(share=0.9)


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_setting_of_an_attack_is_checked_and_explained(attack):
    made = attack()
    for one in fields(attack):
        if one.name == "opening":
            continue
        assert one.metadata["about"] and "\n" not in one.metadata["about"]
        assert allowed(getattr(made, one.name), one.metadata)
        for value in ("often", float("nan"), -1, [], (None,), object()):
            if allowed(value, one.metadata):
                continue
            with pytest.raises(ValueError, match=rf"^{attack.__name__}: {one.name} must be .*\.$"):
                replace(made, **{one.name: value})


@pytest.mark.parametrize(
    ("attack", "changes", "message"),
    [
        (KKT, {"epsilon": 3}, r"a fraction \(not a percentage\), above 0, at most 0\.5, not 3\."),
        (KKT, {"epsilon": 0.0}, "epsilon must be"),
        (KKT, {"copies": True}, "a whole number, 1 to 1000, not True"),
        (KKT, {"quantiles": 0.4}, "a sequence of numbers between 0 and 1, not 0"),
        (KKT, {"quantiles": (0.4, 1.0)}, r"quantiles must be .* not \(0\.4, 1\.0\)"),
        (KKT, {"decoy_copies": ()}, "decoy_copies must be a sequence"),
        (KKT, {"radius_percentile": 0.0}, "a percentile, above 0, at most 100, not 0"),
        (KKT, {"opening": (0.4,)}, r"opening must be a quantile .* not \(0\.4,\)"),
        (KKT, {"opening": (8, 0.4)}, "opening must be"),
        (KKT, {"opening": 0.4}, "opening must be"),
        (KKT, {"opening": None}, "opening must be"),
        (KKT, {"opening": (float("nan"), 8)}, "opening must be"),
        (MinMax, {"decoy": 1}, "decoy must be true or false, not 1"),
        (MinMax, {"loss_cap": -0.1}, "a number from 0 to 100"),
        (Influence, {"points": "three"}, "points must be two or all, not 'three'"),
        (Influence, {"step_sizes": (0.0,)}, "a sequence of step lengths above 0"),
        (Influence, {"positive_shares": (0.5, 1.5)}, "positive_shares must be"),
        (Alfa, {"max_copies": 0}, "a whole number, 1 to 1000, or None, not 0"),
    ],
)
def test_a_refusal_names_attack_setting_and_value(attack, changes, message):
    with pytest.raises(ValueError, match=message) as refusal:
        attack(**changes)
    assert str(refusal.value).startswith(f"{attack.__name__}: ")
    assert "\n" not in str(refusal.value)


def test_an_attack_is_frozen_equal_by_value_and_says_what_it_is():
    one = KKT(0.02, quantiles=(0.4,))
    assert one == KKT(epsilon=0.02, quantiles=(0.4,)) != KKT(0.02)
    assert hash(one) == hash(KKT(epsilon=0.02, quantiles=(0.4,)))
    assert "epsilon=0.02" in repr(one)
    with pytest.raises(FrozenInstanceError):
        one.epsilon = 0.1
    with pytest.raises(TypeError, match="epsilo"):
        KKT(epsilo=0.1)
    assert INFLUENCE_BASIC.positive_shares == (None,)
    assert Alfa().max_copies is None


def test_a_setting_that_several_attacks_have_means_the_same_in_each():
    """A block of ``params.yaml`` sets a field for every attack that has one of this name."""
    meanings = {}
    for attack in ATTACKS:
        for field in fields(attack):
            meanings.setdefault(field.name, set()).add(field.metadata.get("about"))
    assert {name: found for name, found in meanings.items() if len(found) > 1} == {}
