"""What the declarations of a program let an optimizer try."""

import itertools
import random
import sys

import pytest

from dspex import (
    Boolean,
    Choice,
    Demos,
    Float,
    Integer,
    InvalidDeclaration,
    InvalidValue,
    LimitExceeded,
    MissingExtra,
    ModuleChoice,
    Program,
    Prompt,
    Secret,
    Text,
    UnknownVariable,
    defprogram,
    defvariable,
    rule,
)


class Retriever(Program):
    mode = defvariable(Choice("bm25", "dense"), initial="bm25")
    k = defvariable(Integer(min=1, max=9), initial=3, when=(mode, "dense"))
    rerank = defvariable(bool, initial=False, when=(k, 8, 9))


class Agent(Program):
    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7, description="How free.")
    strategy = defvariable(ModuleChoice("Predict", "ReAct"), initial="Predict")
    max_iters = defvariable(Integer(min=1, max=8), initial=4, when=(strategy, "ReAct"))
    rate = defvariable(Float(min=1e-4, max=1.0, log=True), initial=0.1)
    half = defvariable(Float(min=0.0, max=1.2, step=0.5), initial=0.5)
    grade = defvariable(Choice("low", "mid", "high", ordered=True), initial="mid")
    demos = defvariable(Demos(), initial=[])
    hidden = defvariable(Float(min=0.0, max=1.0), initial=0.0, tunable=False)
    free = defvariable(Float(), initial=0.0)
    key = defvariable(Secret(), initial="")
    retriever = defprogram(Retriever)

    @rule
    def a_cool_head(self):
        if self.strategy == "ReAct" and self.temperature > 1.0:
            return "ReAct needs a temperature of at most 1.0"
        return None


DEMOS = [[{"q": "1"}], [{"q": "1"}, {"q": "2"}]]


@pytest.fixture
def space():
    return Agent.search_space({"demos": DEMOS})


def points(space, count=200):
    return [space.sample(random.Random(seed)) for seed in range(count)]


def test_each_kind_is_a_dimension_of_the_whole_tree(space):
    assert [
        "temperature",
        "strategy",
        "max_iters",
        "rate",
        "half",
        "grade",
        "demos",
        "retriever.mode",
        "retriever.k",
        "retriever.rerank",
    ] == list(space)


def test_what_is_left_out_says_why(space):
    assert {
        "hidden": "it is declared with tunable=False",
        "free": "it has no min and max to search between",
        "key": "it is secret",
    } == dict(space.left_out)


def test_a_sample_is_of_its_kinds_and_has_what_matters_and_no_more(space):
    for point in points(space):
        for name, value in point.items():
            assert space[name].kind.takes(value)
        assert ("max_iters" in point) == (point["strategy"] == "ReAct")
        assert ("retriever.k" in point) == (point["retriever.mode"] == "dense")
        assert ("retriever.rerank" in point) == (point.get("retriever.k") in (8, 9))


def test_conditions_and_rules_hold_in_samples_and_in_the_grid(space):
    for point in itertools.chain(points(space), space.grid(3)):
        assert point["strategy"] != "ReAct" or point["temperature"] <= 1.0


def test_the_grid_has_each_point_once(space):
    encoded = [tuple(sorted(space.encode(point).items())) for point in space.grid(2)]
    assert len(encoded) == len(set(encoded)) > 100


def test_the_same_dice_give_the_same_samples(space):
    assert points(space, 5) == points(space, 5)


def test_a_range_by_magnitude_is_sampled_by_magnitude():
    drawn = [point["rate"] for point in points(Agent.search_space(), 400)]
    below = sum(rate < 1e-2 for rate in drawn)
    assert 140 < below < 260


def test_the_steps_of_a_range_that_does_not_end_on_one():
    assert (0.0, 0.5, 1.0) == Agent.search_space()["half"].points(10)
    assert {0.0, 0.5, 1.0} == {point["half"] for point in points(Agent.search_space())}


def test_the_search_starts_where_the_session_is():
    space = Agent.search_space(at={"temperature": 0.2, "strategy": "ReAct"})
    assert (0.2, "ReAct", 4) == tuple(
        space.initial[name] for name in ("temperature", "strategy", "max_iters")
    )


def test_a_condition_on_what_stays_as_it_is_is_decided():
    class Fixed(Program):
        mode = defvariable(Choice("a", "b"), initial="a", tunable=False)
        x = defvariable(Integer(min=0, max=3), initial=0, when=(mode, "a"))
        y = defvariable(Integer(min=0, max=3), initial=0, when=(mode, "b"))

    space = Fixed.search_space()
    assert ["x"] == list(space)
    assert space["x"].when is None
    assert "it matters only while mode is 'b'" == space.left_out["y"]


def test_candidates_join_what_the_variable_has_anyway(space):
    assert ((), ({"q": "1"},), ({"q": "1"}, {"q": "2"})) == space["demos"].over.values


def test_labels_of_long_values_name_what_is_in_them():
    class Prompted(Program):
        task = defvariable(Prompt(), initial="Answer.")

    long = "Think step by step, and answer with one number and nothing else at all, please."
    (first, second) = Prompted.search_space({"task": [long]})["task"].over.labels
    assert first.endswith(" Answer.")
    assert "Think step by step" in second
    assert len(second) < 60


def test_values_that_engines_hold_for_the_same_get_labels():
    class Mixed(Program):
        x = defvariable(Choice(1, 1.0, True), initial=1)

    dimension = Mixed.search_space()["x"]
    assert 3 == len(set(dimension.over.labels))
    for value in (1, 1.0, True):
        assert type(value) is type(dimension.decode(dimension.encode(value)))


def test_candidates_must_fit():
    with pytest.raises(InvalidValue, match=r"candidate 0 for temperature must be at most 1.5"):
        Agent.search_space({"temperature": [9.0]})
    with pytest.raises(UnknownVariable, match="Did you mean 'demos'"):
        Agent.search_space({"demoes": []})
    with pytest.raises(InvalidDeclaration, match="key cannot be searched: it is secret"):
        Agent.search_space({"key": ["x"]})


def test_what_is_not_in_the_space_is_no_point_of_it(space):
    for values, sentence in (
        ({"temprature": 0.5}, "Did you mean 'temperature'"),
        ({"demos": [{"q": "3"}]}, "demos must be one of the 3 candidates"),
    ):
        with pytest.raises((UnknownVariable, InvalidValue), match=sentence):
            space.completed(values)
    other = Agent.search_space({"demos": []})
    assert [()] == list(other["demos"].points(5))


def test_a_grid_has_at_least_one_value_of_each_range(space):
    with pytest.raises(InvalidValue, match="points must be at least 1 \\(got 0\\)"):
        space.grid(0)
    assert {0.0} == {point["temperature"] for point in space.grid(1)}


def test_a_condition_on_what_is_not_searched_is_decided(space):
    only = space.only(["max_iters", "temperature"])
    assert ["temperature", "max_iters"] == list(only)
    assert {"temperature": 0.7, "max_iters": 4} == only.initial
    assert "the search is for others" == only.left_out["strategy"]


def test_a_range_says_its_ends_and_its_steps(space):
    assert "0 to 1.2, in steps of 0.5" == str(space["half"].over)
    assert "0.0001 to 1, by magnitude" == str(space["rate"].over)
    assert "1 to 8" == str(space["max_iters"].over)


def test_a_rule_that_refuses_every_sample_ends_the_sampling():
    class Stuck(Program):
        z = defvariable(Float(min=0.0, max=1.0), initial=0.0)

        @rule
        def zero(self):
            return None if self.z == 0.0 else "z must be 0"

    with pytest.raises(LimitExceeded, match="refused 1000 candidates in a row, most often: z must be 0"):
        Stuck.search_space().sample(random.Random(1))


# ---- declarations --------------------------------------------------------------------------------


def test_when_must_name_a_variable_and_values_that_it_can_have():
    strategy = defvariable(Choice("a", "b"), initial="a")
    with pytest.raises(InvalidDeclaration, match="a value in when= must be one of 'a', 'b'"):
        defvariable(int, initial=0, when=(strategy, "c"))
    for wrong in (strategy, ("strategy", "a"), (strategy,)):
        with pytest.raises(InvalidDeclaration, match="when= must be a variable declared before"):
            defvariable(int, initial=0, when=wrong)


def test_when_must_be_of_the_same_class():
    other = defvariable(Choice("a", "b"), initial="a")
    with pytest.raises(InvalidDeclaration, match="which is no variable of Lonely"):

        class Lonely(Program):
            x = defvariable(int, initial=0, when=(other, "a"))


def test_when_must_not_lead_back():
    class Base(Program):
        a = defvariable(Choice(1, 2), initial=1)
        b = defvariable(Choice(1, 2), initial=1, when=(a, 1))

    with pytest.raises(InvalidDeclaration, match="leads back to"):

        class Circle(Base):
            a = defvariable(Choice(1, 2), initial=1, when=(Base.b, 1))


def test_a_parent_that_is_declared_again_must_still_have_the_values():
    class Base(Program):
        mode = defvariable(Choice("a", "b"), initial="a")
        x = defvariable(int, initial=0, when=(mode, "b"))

    with pytest.raises(InvalidDeclaration, match=r"names the value 'b', which Narrow.mode can never have"):

        class Narrow(Base):
            mode = defvariable(Choice("a"), initial="a")


# ---- as others know it ---------------------------------------------------------------------------


def test_optuna_is_given_every_dimension_and_suggests_what_matters(space):
    optuna = pytest.importorskip("optuna")
    distributions = space.to_optuna()
    assert list(distributions) == list(space)
    assert optuna.distributions.FloatDistribution(1e-4, 1.0, log=True) == distributions["rate"]
    assert optuna.distributions.FloatDistribution(0.0, 1.0, step=0.5) == distributions["half"]
    assert optuna.distributions.IntDistribution(0, 2) == distributions["grade"]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(30):
        trial = study.ask()
        point = space.suggest(trial)
        assert set(trial.params) == set(point) == set(space.active(point))
        for name, value in point.items():
            assert space[name].kind.takes(value)
        study.tell(trial, 0.0)


def test_whole_numbers_are_searched_by_magnitude_where_the_step_says_nothing():
    optuna = pytest.importorskip("optuna")

    class Wide(Program):
        k = defvariable(Integer(min=1, max=1_000, step=1, log=True), initial=1)

    assert {"k": optuna.distributions.IntDistribution(1, 1_000, log=True)} == Wide.search_space().to_optuna()


def test_configspace_has_the_conditions(space):
    pytest.importorskip("ConfigSpace")
    exported = space.to_configspace()
    assert set(space) == set(exported)
    for configuration in exported.sample_configuration(50):
        values = dict(configuration)
        assert ("max_iters" in values) == (values["strategy"] == "ReAct")
        assert ("retriever.rerank" in values) == (values.get("retriever.k") in (8, 9))


def test_configspace_lists_steps_and_has_no_range_of_one_number():
    space = pytest.importorskip("ConfigSpace")

    class Fixed(Program):
        x = defvariable(Float(min=0.5, max=0.5), initial=0.5)
        half = defvariable(Float(min=0.0, max=2.0, step=0.5), initial=1.0)

    exported = Fixed.search_space().to_configspace()
    assert space.Constant("x", 0.5) == exported["x"]
    assert (0.0, 0.5, 1.0, 1.5, 2.0) == tuple(exported["half"].sequence)

    class Fine(Program):
        x = defvariable(Float(min=0.0, max=1.0, step=1e-6), initial=0.0)

    with pytest.raises(InvalidDeclaration, match="x has 1000001 steps, and ConfigSpace has none"):
        Fine.search_space().to_configspace()


@pytest.mark.parametrize(
    ("package", "extra"),
    [("optuna", "optuna"), ("ConfigSpace", "configspace")],
    ids=["optuna", "configspace"],
)
def test_without_a_package_its_extra_is_named(space, monkeypatch, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"dspex\[{extra}\]"):
        getattr(space, f"to_{extra}")()


def test_the_json_schema_takes_the_points_and_nothing_else(space):
    jsonschema = pytest.importorskip("jsonschema")
    from dspex.kinds.plain import thaw

    schema = space.to_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)

    def plain(point):
        return {name: thaw(space[name].kind.dump(value)) for name, value in point.items()}

    for point in points(space, 50):
        validator.validate(plain(point))
    react = plain(space.completed({"strategy": "ReAct"}))
    assert validator.is_valid(react)
    assert not validator.is_valid({**react, "strategy": "Predict"})
    assert not validator.is_valid({name: one for name, one in react.items() if name != "max_iters"})
    assert not validator.is_valid({**react, "unknown": 1})
    assert "How free." == schema["properties"]["temperature"]["description"]


# ---- another space -------------------------------------------------------------------------------


class Older(Program):
    temperature = defvariable(Float(min=0.0, max=1.0), initial=0.5)
    style = defvariable(Text(choices=("a", "b", "c")), initial="a")
    gone = defvariable(Integer(min=0, max=3), initial=1)


class Newer(Program):
    temperature = defvariable(Float(min=0.0, max=0.8), initial=0.5)
    style = defvariable(Text(choices=("a", "b")), initial="a")
    fresh = defvariable(Boolean(), initial=True)


def test_points_of_an_older_declaration_are_mapped_where_they_can_be():
    old, new = Older.search_space(), Newer.search_space()
    start = old.encode(old.initial)

    kept = new.map({"temperature": 0.2, "style": "b", "gone": 1}, start)
    assert {"temperature": 0.2, "style": "b", "fresh": True} == kept.point
    assert (
        "gone is no dimension any more, and had the value that it began with",
        "fresh is new, and stands at its initial value",
    ) == kept.notes

    for lost, why in (
        ({"temperature": 0.9, "style": "a"}, "value must be at most 0.8"),
        ({"temperature": 0.2, "style": "c"}, "style must be one of"),
        ({"temperature": 0.2, "style": "a", "gone": 2}, "gone is no dimension any more, and had been 2"),
    ):
        mapped = new.map(lost, start)
        assert mapped.point is None
        assert mapped.notes[0].startswith(why)


def test_a_mapped_point_has_only_what_matters_there_and_no_rule_against_it(space):
    before = space.encode(space.completed({"strategy": "ReAct"}))
    mapped = space.map({**before, "strategy": "Predict"})
    assert space.completed({"strategy": "Predict"}) == mapped.point
    assert ("max_iters does not matter there now",) == mapped.notes
    refused = space.map({**before, "temperature": 1.2})
    assert (None, ("ReAct needs a temperature of at most 1.0",)) == (refused.point, refused.notes)


def test_equal_declarations_have_equal_fingerprints():
    assert Older.search_space().fingerprint == Older.search_space(at={"temperature": 0.1}).fingerprint
    assert Older.search_space().fingerprint != Newer.search_space().fingerprint


class Stepped(Program):
    temperature = defvariable(Float(min=0.0, max=1.5, step=0.1), initial=0.7)


TENTHS = [tenth / 10 for tenth in range(16)]


def test_the_numbers_of_a_step_are_those_that_its_decimals_name():
    space = Stepped.search_space()
    assert TENTHS == [point["temperature"] for point in space.grid(16)]
    dice = random.Random(1)
    assert {space.sample(dice)["temperature"] for _ in range(200)} == set(TENTHS)


def test_what_an_engine_proposes_is_one_of_the_numbers_of_a_step():
    optuna = pytest.importorskip("optuna")
    space = Stepped.search_space()
    trials = [
        optuna.trial.FixedTrial({"temperature": 3 * 0.1}),
        optuna.trial.FixedTrial({"temperature": 0.7}),
    ]
    assert [0.3, 0.7] == [space.suggest(trial)["temperature"] for trial in trials]
    assert 0.3 == space["temperature"].decode(3 * 0.1)
