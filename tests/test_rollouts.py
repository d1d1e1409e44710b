"""Feedback, and giving a share of the runs another value."""

import random

import pytest

from dspex import (
    Boolean,
    Choice,
    Claimed,
    Float,
    Guard,
    Integer,
    InvalidCall,
    InvalidValue,
    ModuleChoice,
    Program,
    Prompt,
    RuleBroken,
    Session,
    UnknownVariable,
    defvariable,
    rule,
)
from dspex.optimizers import Bandit

GOOD = {"a": 0.2, "b": 0.5, "c": 0.7}


class Agent(Program):
    """Is as good as its strategy."""

    strategy = defvariable(Choice("a", "b", "c"), initial="a")
    temperature = defvariable(Float(min=0.0, max=1.0), initial=0.5)

    def forward(self, user):
        return self.strategy

    @rule
    def not_hot(self):
        return "c must be cold" if self.strategy == "c" and self.temperature > 0.9 else None


@pytest.fixture
def live(store):
    with Session("live", store=store, source="tests") as session:
        Agent.bind(session)
        yield session


def scored(live, rollout, users, seed, good=GOOD):
    """Run for so many users and score each by chance, until the rollout ends; how many it took."""
    dice = random.Random(seed)
    for user in range(users):
        if rollout.state != "running":
            return user
        run = rollout.run(Agent, user=user)
        live.feedback(run, dice.random() < good[run.output])
    return users


# ---- rollouts ------------------------------------------------------------------------------------


def test_the_share_of_each_value_is_what_was_asked_and_stable_by_key(live, store):
    with live.rollout("strategy", {"a": 0.9, "b": 0.1}, key="user") as rollout:
        chosen = [rollout.choose(user) for user in range(5000)]
        assert 0.08 < chosen.count("b") / 5000 < 0.12
        with Session("live", store=store) as other, other.rollout("strategy", {"a": 0.9, "b": 0.1}) as again:
            assert chosen == [again.choose(user) for user in range(5000)]


def test_runs_get_their_share_and_the_session_keeps_its_value(live):
    with live.rollout("strategy", {"a": 0.5, "b": 0.5}, key="user") as rollout:
        outputs = {rollout.run(Agent, user=user).output for user in range(20)}
        assert {"a", "b"} == outputs
        assert "a" == live.get("strategy")
        assert rollout.choose(7) == rollout.run(Agent, user=7).values["strategy"]
        assert rollout.choose("vip") == rollout.run(Agent, user=7, key="vip").output


def test_a_program_that_nobody_has_bound_yet_is_bound_first():
    class Late(Program):
        more = defvariable(Float(), initial=0.5)

        def forward(self):
            return self.more

    with Session() as session:
        Agent.bind(session)
        with session.rollout("strategy", {"a": 0.5, "b": 0.5}) as rollout:
            assert rollout.run(Late, key=1).output == 0.5


def test_a_module_gets_its_share_too(store):
    class Modular(Program):
        step = defvariable(ModuleChoice("one", "two"), initial="one")

        def init(self):
            self.modules["one"] = lambda x: x * 0 + 1
            self.modules["two"] = lambda x: x * 0 + 2

        def forward(self, x):
            return self.step(x=x)

    with Session(store=store) as session:
        Modular.bind(session)
        with session.rollout("step", {"one": 0.5, "two": 0.5}, key="x") as rollout:
            runs = [rollout.run(Modular, x=x) for x in range(20)]
            assert [1 if rollout.choose(x) == "one" else 2 for x in range(20)] == [run.output for run in runs]


def test_a_better_value_is_promoted_and_history_says_why(live):
    rollout = live.rollout("strategy", {"a": 0.5, "b": 0.5}, key="user")
    scored(live, rollout, 2000, seed=1)
    assert ("promoted", "b") == (rollout.state, live.get("strategy"))
    started, ended = live.history("strategy")
    assert "started" == started.metadata["rollout"]
    assert "rollout" == ended.source
    why = ended.metadata
    assert why["p"] <= 0.05 / 4
    assert why["scores"]["a"]["n"] >= 50
    assert why["test"].startswith("Welch")
    assert {"b"} == {rollout.choose(user) for user in range(20)}


def test_a_worse_value_is_rolled_back(live):
    live.set("strategy", "c")
    rollout = live.rollout("strategy", {"c": 0.5, "a": 0.5}, key="user")
    took = scored(live, rollout, 2000, seed=2)
    assert ("rolled back", "c") == (rollout.state, live.get("strategy"))
    assert took < 400


def test_what_somebody_sets_meanwhile_stays_and_ends_the_rollout(live):
    with live.rollout("strategy", {"a": 0.5, "b": 0.5}, key="user") as rollout:
        run = rollout.run(Agent, user=1)
        live.set("strategy", "c", source="operator")
        assert {"c"} == {rollout.run(Agent, user=user).output for user in range(20)}
        live.feedback(run, 1.0)
        assert [0, 0] == [sample.count for sample in rollout.samples.values()]
    assert ("overtaken", "c", "operator") == (
        rollout.state,
        live.get("strategy"),
        live.record("strategy").source,
    )


def test_what_somebody_sets_while_it_ends_stays(live, monkeypatch):
    rollout = live.rollout("strategy", {"a": 0.5, "b": 0.5}, key="user")
    set_ = Session.set

    def overtaking(self, *arguments, **options):
        monkeypatch.undo()
        set_(self, "strategy", "c", source="operator")
        return set_(self, *arguments, **options)

    monkeypatch.setattr(Session, "set", overtaking)
    rollout.close()
    assert ("overtaken", "c") == (rollout.state, live.get("strategy"))


def test_a_second_process_with_the_same_rollout_does_not_end_the_first(live, store):
    shares = {"a": 0.5, "b": 0.5}
    with live.rollout("strategy", shares, key="user") as first:
        with (
            Session("live", store=store) as there,
            there.rollout("strategy", shares, key="user") as second,
        ):
            assert {"running"} == {first.state, second.state}
            assert first.run(Agent, user=1).output == second.run(Agent, user=1).output
        assert "closed" == second.state
        scored(live, first, 5000, seed=1)
        assert "promoted" == first.state


def test_values_that_are_equally_good_are_seldom_told_apart():
    equal = dict.fromkeys("abc", 0.5)
    wrong = 0
    for seed in range(60):
        with Session() as session:
            Agent.bind(session)
            rollout = session.rollout(
                "strategy", {"a": 0.5, "b": 0.5}, key="user", guard=Guard(min_sample=20)
            )
            scored(session, rollout, 2000, seed=seed, good=equal)
            assert rollout.state in ("promoted", "rolled back", "inconclusive")
            wrong += rollout.state != "inconclusive"
            assert rollout.state == "promoted" or session.get("strategy") == "a"
    assert wrong <= 8  # 3 are expected at most; 9 of 60 would be a chance in 300


def test_a_run_is_scored_once_and_others_not_at_all(live):
    with live.rollout("strategy", {"a": 0.5, "b": 0.5}, key="user") as rollout:
        run = rollout.run(Agent, user=1)
        for _ in range(3):
            live.feedback(run, 1.0)
        live.feedback(Agent.record(1, session=live), 1.0)
        rollout.feedback(1, 0.0)
        assert 2 == sum(sample.count for sample in rollout.samples.values())


def test_feedback_must_be_of_a_run_of_the_session_and_a_number(live, store):
    run = Agent.record(1, session=live)
    assert 0 == live.feedback(run, 1.0)
    with Session("another", store=store) as other, pytest.raises(InvalidValue, match="run must be a run of"):
        other.feedback(run, 1.0)
    for wrong in (float("nan"), "good", None):
        with pytest.raises(InvalidValue, match="score must be a finite number"):
            live.feedback(run, wrong)
    with pytest.raises(InvalidValue, match=r"run must be a Run, as record\(…\)"):
        live.feedback("x", 1)


@pytest.mark.parametrize(
    ("shares", "sentence"),
    [
        ({"a": 1.0}, "shares must be two or more values"),
        ({"a": 0.5, "b": 0.6}, "shares must be two or more values"),
        ({"b": 0.5, "c": 0.5}, "shares must be values with the present one, 'a'"),
        ({"a": 0.5, "z": 0.5}, "strategy must be one of 'a', 'b', 'c'"),
    ],
)
def test_shares_that_cannot_be_are_refused(live, state, shares, sentence):
    before = state(live)
    with pytest.raises(InvalidValue, match=sentence):
        live.rollout("strategy", shares)
    assert before == state(live)


def test_a_value_that_a_rule_is_against_is_not_rolled_out(live):
    live.set("temperature", 1.0)
    with pytest.raises(RuleBroken):
        live.rollout("strategy", {"a": 0.5, "c": 0.5})


def test_a_run_without_a_key_is_refused(live):
    with (
        live.rollout("strategy", {"a": 0.5, "b": 0.5}) as rollout,
        pytest.raises(InvalidValue, match="key must be given"),
    ):
        rollout.run(Agent, user=1)


def test_the_key_may_be_made_of_all_inputs(live):
    with live.rollout("strategy", {"a": 0.5, "b": 0.5}, key=lambda named: named["user"] % 10) as rollout:
        outputs = [rollout.run(Agent, user=user).output for user in range(20)]
        assert outputs[:10] == outputs[10:] == [rollout.choose(user) for user in range(10)]


def test_scores_that_come_too_late_change_nothing(live):
    shares = {"a": 0.5, "b": 0.5}
    with live.rollout("strategy", shares, key="user") as rollout:
        rollout.feedback(1, 1.0)
        live.set("strategy", "c")
        rollout.feedback(2, 1.0)
        assert ("overtaken", 1) == (rollout.state, sum(one.count for one in rollout.samples.values()))
    live.set("strategy", "a")
    rollout = live.rollout("strategy", shares, key="user")
    rollout.close()
    rollout.feedback(1, 1.0)
    assert "<Rollout of 'strategy' closed; scores a: 0, b: 0>" == repr(rollout)


@pytest.mark.parametrize(("good", "state"), [(1.0, "promoted"), (0.5, "inconclusive")])
def test_scores_that_never_vary_are_told_apart_if_they_differ(live, good, state):
    guard = Guard(min_sample=20, looks=1)
    rollout = live.rollout("strategy", {"a": 0.5, "b": 0.5}, key="user", guard=guard)
    for user in range(200):
        rollout.feedback(user, 0.5 if rollout.choose(user) == "a" else good)
    assert state == rollout.state


def test_runs_that_nobody_holds_are_forgotten(live):
    with live.rollout("strategy", {"a": 0.5, "b": 0.5}, key="user") as rollout:
        held = [rollout.run(Agent, user=user) for user in range(100)]
        assert 100 == len(rollout._tried._choices)
        held.clear()
        last = rollout.run(Agent, user=100)
        assert 1 == len(rollout._tried._choices)
        live.feedback(last, 1.0)
        assert 1 == sum(sample.count for sample in rollout.samples.values())


def test_long_values_are_told_apart_in_a_history_that_stays_short(session):
    session.register("prompt", Prompt(), initial="x" * 10_000)
    longer = ["x" * 9_999 + end for end in "xyz"]
    guard = Guard(min_sample=20, looks=1)
    rollout = session.rollout("prompt", dict.fromkeys(longer, 1 / 3), guard=guard)
    for user in range(200):
        rollout.feedback(user, 0.5 if rollout.choose(user)[-1] == "x" else 0.1)
    assert "rolled back" == rollout.state
    started, ended = session.history("prompt")
    short = "x" * 59 + "…"
    assert [short, f"{short} (2)", f"{short} (3)"] == list(started.metadata["shares"])
    assert [0.5, 0.1, 0.1] == [
        pytest.approx(ended.metadata["scores"][one]["mean"]) for one in started.metadata["shares"]
    ]
    assert len(repr(rollout)) < 300


def test_no_more_values_than_the_history_can_tell(session):
    session.register("number", Integer(min=0, max=100), initial=0)
    with pytest.raises(InvalidValue, match="shares must be of at most 32 values"):
        session.rollout("number", dict.fromkeys(range(40), 1 / 40))
    session.rollout("number", dict.fromkeys(range(32), 1 / 32)).close()


def decided(live, rollout):
    """Score until the better one is known, whether or not it can be set."""
    for user in range(200):
        rollout.feedback(user, 0.5 if rollout.choose(user) == "a" else 1.0)


def test_what_is_decided_while_somebody_holds_a_claim_is_set_when_it_has_ended(live, store):
    rollout = live.rollout("strategy", {"a": 0.5, "b": 0.5}, guard=Guard(min_sample=20))
    with Session("live", store=store) as other, other.claim(["strategy"], owner="operator", ttl=60.0):
        decided(live, rollout)
        assert ("running", "a") == (rollout.state, live.get("strategy"))
        assert {"a", "b"} == {rollout.choose(user) for user in range(20)}
        assert isinstance(rollout.hindered, Claimed)
        assert "not set yet: " in repr(rollout)
        counts = [one.count for one in rollout.samples.values()]
    rollout.feedback(1, 0.0)
    assert ("promoted", "b", None) == (rollout.state, live.get("strategy"), rollout.hindered)
    noted = live.record("strategy").metadata["scores"]
    assert counts == [noted[one]["n"] for one in "ab"]


def test_what_was_decided_is_tried_once_more_when_a_rollout_is_closed(live, store):
    shares, guard = {"a": 0.5, "b": 0.5}, Guard(min_sample=20)
    rollout = live.rollout("strategy", shares, guard=guard)
    with Session("live", store=store) as other, other.claim(["strategy"], owner="operator", ttl=60.0):
        decided(live, rollout)
        with pytest.raises(Claimed):
            rollout.close()
        assert ("closed", "a") == (rollout.state, live.get("strategy"))
    rollout = live.rollout("strategy", shares, guard=guard)
    with Session("live", store=store) as other, other.claim(["strategy"], owner="operator", ttl=60.0):
        decided(live, rollout)
    rollout.close()
    assert ("promoted", "b") == (rollout.state, live.get("strategy"))


def test_what_is_set_to_the_value_that_was_decided_is_promoted(live, store):
    rollout = live.rollout("strategy", {"a": 0.5, "b": 0.5}, guard=Guard(min_sample=20))
    with (
        Session("live", store=store) as other,
        other.claim(["strategy"], owner="operator", ttl=60.0) as claim,
    ):
        decided(live, rollout)
        claim.set("strategy", "b")
    rollout.feedback(1, 0.0)
    assert "promoted" == rollout.state


def test_nothing_is_a_value_as_any_other(session):
    session.register("style", Choice(None, "b"), initial="b")
    rollout = session.rollout("style", {None: 0.5, "b": 0.5}, guard=Guard(min_sample=20, looks=1))
    for user in range(200):
        rollout.feedback(user, 1.0 if rollout.choose(user) is None else 0.5)
    assert ("promoted", None) == (rollout.state, session.get("style"))

    class Styled(Program):
        style = defvariable(Choice(None, "b"), initial="b")

        def forward(self, user):
            return self.style

    with Session() as live:
        Styled.bind(live)
        with live.rollout("style", {None: 0.5, "b": 0.5}, key="user") as scored_by_runs:
            for user in range(20):
                live.feedback(scored_by_runs.run(Styled, user=user), 1.0)
            assert 20 == sum(one.count for one in scored_by_runs.samples.values())


def test_a_variable_has_one_rollout_at_a_time(live):
    shares = {"a": 0.5, "b": 0.5}
    first = live.rollout("strategy", shares, key="user")
    with pytest.raises(
        InvalidCall, match=r"'live' has a rollout of 'strategy' that still runs: <Rollout .*a: 0"
    ):
        live.rollout("strategy", shares, key="user")
    live.rollout("temperature", {0.5: 0.5, 0.1: 0.5}).close()  # another variable
    first.close()
    second = live.rollout("strategy", shares, key="user")
    live.set("strategy", "c")  # which ends the second, although it has not looked yet
    third = live.rollout("strategy", {"c": 0.5, "a": 0.5}, key="user")
    assert ("overtaken", "running") == (second.state, third.state)
    third.close()


def test_a_rollout_that_could_not_begin_is_in_nobodys_way(live, store):
    with (
        Session("live", store=store) as other,
        other.claim(["strategy"], owner="operator", ttl=60.0),
        pytest.raises(Claimed),
    ):
        live.rollout("strategy", {"a": 0.5, "b": 0.5})
    live.rollout("strategy", {"a": 0.5, "b": 0.5}).close()


def test_what_was_closed_gives_no_more_runs(live):
    with live.rollout("strategy", {"a": 0.5, "b": 0.5}, key="user") as rollout:
        pass
    with pytest.raises(InvalidCall, match="the rollout of 'strategy' in session 'live' was closed"):
        rollout.run(Agent, user=1)
    with Bandit(live, "strategy") as bandit:
        pass
    with pytest.raises(InvalidCall, match="the bandit on 'strategy' in session 'live' was closed"):
        bandit.run(Agent, 1)
    bandit.promote()


def test_a_rollout_that_was_decided_runs_with_what_it_has_set(live):
    rollout = live.rollout("strategy", {"a": 0.5, "b": 0.5}, key="user", guard=Guard(min_sample=20))
    decided(live, rollout)
    assert ("promoted", "b") == (rollout.state, rollout.run(Agent, user=1).output)


def test_runs_can_be_made_in_a_pool(store):
    pytest.importorskip("grpc")
    from dspex.pool import Pool
    from dspex.testing.pool_programs import Knobs

    with Pool([Knobs], workers=1, spares=0) as pool, Session("pooled", store=store) as live:
        knobs = Knobs.bind(live)
        live.tag("first")
        with live.rollout("steps", {0: 0.5, 5: 0.5}) as rollout:
            runs = [rollout.run(Knobs, key=user, pool=pool, timeout=60.0) for user in range(6)]
            assert [[0.7, rollout.choose(user)] for user in range(6)] == [list(run.output) for run in runs]
            assert {0, 5} == {run.values["steps"] for run in runs}
            assert ("pooled", True, live.revision) == (runs[0].session, runs[0].pinned, runs[0].first)
            assert 1 == live.feedback(runs[0], 1.0)
            assert 1 == sum(one.count for one in rollout.samples.values())
        live.update({"steps": 7, "temperature": 0.1})
        live.tag("second")
        with Bandit(live, labels=["first", "second"], seed=0) as bandit:
            outputs = {tuple(bandit.run(knobs, pool=pool).output) for _ in range(12)}
        assert {(0.7, 0), (0.1, 7)} == outputs
        assert (0.1, 7) == knobs()


# ---- bandits -------------------------------------------------------------------------------------


def regret(seed, rounds):
    """What a bandit lost against always choosing the best, in the first and in the second half."""
    dice = random.Random(seed)
    lost = []
    with Session() as session:
        Agent.bind(session)
        with Bandit(session, "strategy", seed=seed) as bandit:
            for user in range(rounds):
                run = bandit.run(Agent, user)
                assert run.output in GOOD
                lost.append(GOOD["c"] - GOOD[run.output])
                session.feedback(run, dice.random() < GOOD[run.output])
            assert "a" == session.get("strategy")
            bandit.promote()
            assert "c" == session.get("strategy") == bandit.best.value
    return sum(lost[: rounds // 2]), sum(lost[rounds // 2 :])


def test_the_regret_of_a_bandit_is_bounded():
    halves = [regret(seed, 600) for seed in range(10)]
    mean = sum(map(sum, halves)) / 10
    assert mean < 40  # choosing evenly loses 140
    assert sum(second for _, second in halves) < sum(first for first, _ in halves) / 2


def test_a_bandit_chooses_among_labelled_revisions(live):
    live.tag("old")
    live.update({"strategy": "c", "temperature": 0.1})
    live.tag("new")
    live.set("strategy", "b")
    dice = random.Random(3)
    with Bandit(live, labels=["old", "new"], seed=3) as bandit:
        for user in range(200):
            run = bandit.run(Agent, user)
            assert run.output in ("a", "c")
            live.feedback(run, dice.random() < GOOD[run.output])
        assert "new" == bandit.best.label
        bandit.promote()
    assert ("c", 0.1) == (live.get("strategy"), live.get("temperature"))
    assert {"old", "new"} == set(live.record("strategy").metadata["bandit"])


def test_a_bandit_takes_scores_from_0_to_1_and_needs_a_choice(live):
    with Bandit(live, "strategy", values=["a", "b"]) as bandit:
        run = bandit.run(Agent, 1)
        for _ in range(2):
            with pytest.raises(InvalidValue, match="score must be from 0 to 1"):
                live.feedback(run, 7.0)
        live.feedback(run, 1.0)
        assert 1 == sum(arm.count for arm in bandit.arms)
        assert {"a", "b"} == {bandit.run(Agent, user).output for user in range(40)}
    with pytest.raises(InvalidValue, match="without declared choices"):
        Bandit(live, "temperature")
    with pytest.raises(InvalidValue, match="two choices or more"):
        Bandit(live, "strategy", values=["a"])
    with pytest.raises(TypeError):
        Bandit(live)


def test_a_bandit_on_prompts_can_be_promoted(session):
    prompts = ["x" * 10_000, "x" * 9_999 + "y"]
    session.register("prompt", Prompt(), initial=prompts[0])
    with Bandit(session, "prompt", values=prompts) as bandit:
        bandit.promote()
        assert {arm.label for arm in bandit.arms} == set(session.record("prompt").metadata["bandit"])
    assert 2 == len({arm.label for arm in bandit.arms})


def test_a_bandit_with_many_choices_can_be_promoted(session):
    session.register("one", Choice(*(f"{number:060d}" for number in range(300))), initial="0" * 60)
    with Bandit(session, "one") as bandit:
        bandit.promote()
    assert 40 == len(session.record("one").metadata["bandit"])


def test_a_bandit_tells_itself_and_what_it_knows(live):
    with Bandit(live, "strategy", values=["a", "b"]) as bandit:
        assert "<Bandit on 'strategy': a 0.50 of 0, b 0.50 of 0>" == repr(bandit)
        run = bandit.run(Agent, 1)
        assert 1 == live.feedback(run, 1.0)
        live.feedback(run, 1.0)  # a run teaches once
        live.feedback(Agent.record(1, session=live), 1.0)  # and one of somebody else never
        assert f"{run.output} 0.67 of 1" in repr(bandit)
        assert [0, 1] == sorted(arm.count for arm in bandit.arms)


def test_a_bandit_on_a_switch_has_both_positions(session):
    session.register("loud", Boolean(), initial=False)
    with Bandit(session, "loud") as bandit:
        assert [("False", False), ("True", True)] == [(arm.label, arm.value) for arm in bandit.arms]
    with pytest.raises(UnknownVariable, match="Did you mean 'loud'"):
        Bandit(session, "luod")
