"""The mutants of Redis stores, and of nodes that stand in for each other."""

from __future__ import annotations

from table import HUBS, LINK, Mutant

__all__ = ["REDIS_MUTANTS"]

FUNCTIONS = "dspex/stores/redis_functions.lua"
SESSIONS = "dspex/stores/redis_sessions.lua"
ARRIVALS = "dspex/stores/redis_moving.lua"
CALLS = "dspex/stores/redis_calls.py"
MOVING = "dspex/stores/redis_moving.py"
PEER = "dspex/stores/redis_peer.py"
EAR = "dspex/stores/redis_ear.py"
READERS = "dspex/stores/redis_readers.py"
STORE = "dspex/stores/redis.py"

AT_REST = "tests/redis/test_at_rest.py"
CONTRACT = "tests/stores/test_contract_redis.py::TestValkey"
DURABILITY = "tests/redis/test_durability.py"
MOVES = "tests/redis/test_moves.py"
NODES = "tests/redis/test_nodes.py"
TOLD = "tests/redis/test_readers.py"
WATCHES = "tests/redis/test_watches.py"

REDIS_MUTANTS = (
    Mutant(
        "redis-no-poll",
        "a hint that was lost is never missed",
        PEER,
        "        self._due = polled + every *",
        "        self._due = 3600 + polled + every *",
        f"{WATCHES}::test_a_hint_that_was_lost_is_found_by_the_poll",
    ),
    Mutant(
        "redis-silence",
        "a server that does not answer is waited for",
        PEER,
        "        elif now >= polled + self.silence:\n",
        "        elif now >= polled + self.silence + 3600:\n",
        f"{WATCHES}::test_a_connection_that_is_dead_without_a_word_is_noticed",
    ),
    Mutant(
        "redis-stale",
        "values are read however old they are",
        PEER,
        "        if age <= limit:\n",
        "        if age <= limit + 3600:\n",
        f"{WATCHES}::test_values_that_are_too_old_are_not_read",
    ),
    Mutant(
        "redis-lent",
        "an answer that was not read is left to who reads next",
        READERS,
        "            if lost is not None and wire is self._wire:\n",
        "            if False:\n",
        f"{TOLD}::test_an_answer_that_was_not_read_is_nobody_elses",
    ),
    Mutant(
        "redis-wanted",
        "who commits takes the turn before those who wait for it",
        EAR,
        "        if self._wanted or not self._turn.acquire(blocking=False):\n",
        "        if not self._turn.acquire(blocking=False):\n",
        f"{TOLD}::test_nobody_borrows_while_another_one_waits_for_the_turn",
    ),
    Mutant(
        "redis-headless",
        "a head that is none is taken for no session",
        FUNCTIONS,
        "  if broken(key) then\n    return {'BROKEN'}\n",
        "  if false then\n    return {'BROKEN'}\n",
        f"{AT_REST}::test_a_head_that_is_none_is_said_once_and_not_asked_for_in_a_loop",
    ),
    Mutant(
        "redis-nonce",
        "a revision is taken for another one with its number",
        SESSIONS,
        "    if applied > rev or (applied == rev and args[3] ~= nonce) then\n",
        "    if applied > rev then\n",
        f"{DURABILITY}::test_a_history_that_was_cut_and_went_on_is_noticed_by_its_nonce",
    ),
    Mutant(
        "redis-large",
        "what is large comes where the server hears, and is cut off",
        SESSIONS,
        "local LARGE = 256 * 1024\n",
        "local LARGE = 256 * 1024 * 1024\n",
        f"{WATCHES}::test_what_is_larger_than_a_server_sends_to_who_hears_comes_all_the_same",
    ),
    Mutant(
        "redis-given",
        "a commit happens at other versions than it was judged at",
        FUNCTIONS,
        "    if tonumber(args[i + 1]) ~= version then\n",
        "    if false then\n",
        f"{CONTRACT}::test_a_commit_happens_only_at_the_versions_that_it_is_given",
    ),
    Mutant(
        "redis-claim",
        "a set of one value does not ask for claims",
        FUNCTIONS,
        "  if claim ~= '0' then\n",
        "  if claim == '9' then\n",
        f"{CONTRACT}::test_only_the_bearer_of_a_claim_sets_what_is_claimed",
    ),
    Mutant(
        "redis-op",
        "a commit that is sent again is made again",
        FUNCTIONS,
        "  redis.call('HSET', key .. 'o' .. gen, op, answer)\n",
        "",
        f"{WATCHES}::test_a_commit_whose_answer_is_lost_is_made_once",
    ),
    Mutant(
        "redis-durability",
        "a commit does not wait for replicas",
        CALLS,
        '            wait = self._wait if any(job.durable for job in todo) else b""\n',
        '            wait = b""\n',
        f"{DURABILITY}::test_a_durability_that_is_not_reached_is_said",
    ),
    Mutant(
        "redis-held",
        "a session that moves takes commits",
        FUNCTIONS,
        "  return tonumber(claim) >= 2 and",
        "  return tonumber(claim) >= 9 and",
        f"{MOVES}::test_what_is_held_waits_whatever_process_it_is_of",
    ),
    Mutant(
        "redis-not-held",
        "a session ends that was not held all the time",
        ARRIVALS,
        "    return 0\n  end\n  redis.call('SET', key .. 'm'",
        "  end\n  redis.call('SET', key .. 'm'",
        f"{MOVES}::test_a_hold_ends_by_itself_and_then_nobody_may_end_the_session",
    ),
    Mutant(
        "redis-taken",
        "a session comes in the place of another one",
        ARRIVALS,
        "    if used + heard > 0 then\n",
        "    if used + heard < 0 then\n",
        f"{MOVES}::test_an_id_that_is_in_use_is_refused_and_an_empty_one_is_not",
    ),
    Mutant(
        "redis-part",
        "a part of a session is taken for all of it",
        ARRIVALS,
        "  if redis.call('HEXISTS', from .. 'v', '') == 0 then\n",
        "  if false then\n",
        f"{MOVES}::test_a_server_that_has_lost_a_part_of_what_came_refuses_it",
    ),
    Mutant(
        "redis-compare",
        "nobody looks at what came out of a move",
        MOVING,
        "        _check_staged(hold, session_id, export)\n",
        "",
        f"{MOVES}::test_what_comes_out_different_is_dropped",
    ),
    Mutant(
        "redis-password",
        "who hears where a session went is told the password",
        STORE,
        "        return self._location.shown\n\n    @property\n    def status",
        '        return f"redis://:{self._location.password}@"\n\n    @property\n    def status',
        f"{MOVES}::test_everybody_hears_where_it_went_and_nobody_hears_the_password",
    ),
    Mutant(
        "next-node",
        "a client of two servers asks only the first",
        LINK,
        "            self._server += 1\n",
        "",
        f"{NODES}::test_a_node_is_killed_under_load_and_its_clients_go_on_at_the_other_with_nothing_missed",
    ),
    Mutant(
        "other-history",
        "the clients of a node are not told that its session has another history",
        HUBS,
        '        if self.ledger.epoch != self.epoch:\n            self.epoch = ""\n',
        '        if False:\n            self.epoch = ""\n',
        f"{NODES}::test_clients_of_a_node_hear_that_the_history_is_another_one",
    ),
)
