"""Finding filters and reading their parameters; every failure is a sentence."""

from __future__ import annotations

import pytest

from streamfx.core.errors import FilterError, UsageError
from streamfx.filters import registry
from streamfx.filters.base import Block, Filter, FilterInfo, Params, at_setup
from streamfx.filters.registry import lacking, listing, load, parse_changes, parse_params, setup_fields, target_of
from tests.unit.filters.sample_filters import TrickParams, Tricky

HERE = "tests.unit.filters.sample_filters"


def test_loads_a_class_by_name() -> None:
    assert load(f"{HERE}:Tricky") is Tricky


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("no.such.module:X", "there is no module"),
        (f"{HERE}:Missing", "cannot be loaded: AttributeError"),
        (f"{HERE}:NOT_A_FILTER", "is not a filter"),
        (f"{HERE}:np", "is not a filter"),
        (f"{HERE}:Nameless", "is incomplete"),
        (f"{HERE}:Idle", "is incomplete"),
        ("", "cannot be loaded"),
        (HERE, "cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_is_a_sentence(target: str, sentence: str) -> None:
    with pytest.raises((FilterError, UsageError), match=sentence) as caught:
        load(target)
    assert "\n" not in str(caught.value)


def test_names_lead_to_targets() -> None:
    assert target_of("passthrough") == "streamfx_plugins.passthrough:Passthrough"
    assert target_of("some.module:Class") == "some.module:Class"


def test_an_unknown_name_is_told_its_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'pixelate'"):
        target_of("pixelat")
    with pytest.raises(UsageError, match=r"there are: .*passthrough"):
        target_of("qqqqq")


class FakePoint:
    def __init__(self, value: str) -> None:
        self.value = value


def test_a_broken_filter_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {"b-broken": FakePoint("no.such:Thing"), "a-good": FakePoint(f"{HERE}:Tricky")}
    monkeypatch.setattr(registry, "_points", lambda: points)
    good, broken = listing()
    assert (good.name, good.filter, good.error) == ("a-good", Tricky, "")
    assert broken.filter is None
    assert "there is no module 'no.such'" in broken.error


def test_every_filter_that_ships_can_be_loaded() -> None:
    assert {row.name for row in listing()} >= {"passthrough", "pixelate", "toon"}
    assert [row.error for row in listing() if row.target.startswith("streamfx_plugins")] == [""] * sum(
        row.target.startswith("streamfx_plugins") for row in listing()
    )


def test_parameters_come_as_strings_too() -> None:
    params = parse_params(Tricky, {"add": "7"})
    assert params == TrickParams(add=7)


def test_a_change_keeps_the_rest() -> None:
    base = parse_params(Tricky, {"add": 7, "trick": "print"})
    assert parse_params(Tricky, {"trick": "none"}, base=base) == TrickParams(add=7, trick="none")
    assert base == TrickParams(add=7, trick="print"), "the old ones are as they were"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"add": 300}, "add = 300 is not possible: input should be less than or equal to 255"),
        ({"add": "many"}, "add = 'many' is not possible"),
        ({"trick": "magic"}, "trick = 'magic' is not possible"),
        ({"ad": 1}, "has no parameter 'ad'; did you mean 'add'"),
        ({"zzz": 1}, "it has: trick, add"),
    ],
)
def test_bad_parameters_are_a_sentence(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        parse_params(Tricky, values)
    assert "\n" not in str(caught.value)


def test_parameters_type_is_read_from_the_class() -> None:
    class Child(Tricky):
        name = "child"

    assert Tricky.params_type is TrickParams
    assert Child.params_type is TrickParams
    assert Filter.params_type is Params


class Demanding(Filter[Params]):
    name = "demanding"
    info = FilterInfo(needs=("numpy", "no_such_package"), install="pip install 'some[extra]'")

    def process(self, block: Block, params: Params) -> Block:
        return block


def test_what_is_lacking_is_said_with_the_command_that_adds_it() -> None:
    assert lacking(Tricky) == ""
    assert lacking(Demanding) == "it needs no_such_package; install with: pip install 'some[extra]'"


class Fixed(Params):
    place: str = at_setup("here", "where its weights are")
    level: int = at_setup(3, "of something", ge=1)
    free: int = 0


class Rooted(Filter[Fixed]):
    name = "rooted"

    def process(self, block: Block, params: Fixed) -> Block:
        return block


def test_what_is_read_at_set_up_does_not_change_later() -> None:
    assert setup_fields(Rooted) == {"place", "level"}
    base = parse_params(Rooted, {"place": "there", "level": "4"})
    assert parse_changes(Rooted, {"free": 2, "place": "there"}, base) == Fixed(place="there", level=4, free=2)
    with pytest.raises(UsageError, match="reads place only when it starts"):
        parse_changes(Rooted, {"place": "elsewhere"}, base)
    with pytest.raises(UsageError, match="greater than or equal"):
        parse_params(Rooted, {"level": 0})


@pytest.mark.parametrize("wrong", [{"block": 0}, {"quality_levels": 0}, {"min_scale": 0}, {"min_scale": 2}])
def test_impossible_info_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="FilterInfo needs"):
        FilterInfo(**wrong)  # type: ignore[arg-type]


def test_a_block_without_video_says_so() -> None:
    with pytest.raises(ValueError, match="no video"):
        _ = Block().frames
