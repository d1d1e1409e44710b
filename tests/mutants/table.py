"""The mutants: what is broken, where, and which test notices."""

from __future__ import annotations

import attrs

__all__ = ["MUTANTS", "Mutant"]

DATABASE = "dspex/stores/sqlite_database.py"
FILE = "dspex/stores/sqlite_file.py"
SQLITE = "dspex/stores/sqlite_ledger.py"
LEDGER = "dspex/stores/ledger.py"
ADDRESS = "dspex/rpc/address.py"
AUTH = "dspex/rpc/auth.py"
AWAITED = "tests/test_awaited.py"
CALLS = "dspex/rpc/calls.py"
HUBS = "dspex/rpc/hubs.py"
INCOMING = "dspex/rpc/incoming.py"
LINK = "dspex/rpc/link.py"
LISTENING = "dspex/rpc/listening.py"
OUTBOX = "dspex/rpc/outbox.py"
PATTERNS = "dspex/rpc/patterns.py"
REPLICA = "dspex/rpc/replica.py"
REQUESTS = "dspex/rpc/requests.py"
SERVICE = "dspex/rpc/service.py"
POOL = "dspex/pool"
POOLS = "tests/pool/test_contract_local.py::TestLocal"
FAULTS = "tests/pool/test_promises.py"
FORKS = "tests/pool/test_forkserver.py"
MOVING = "tests/pool/test_moving.py"
LEAVING = "tests/modules/test_leaving.py"

STORE = "tests/stores/test_sqlite.py"
SHARING = "tests/stores/test_sqlite_sharing.py"
ORDER = "tests/stores/test_sqlite_order.py"
PROMISES = "tests/stores/test_sqlite_promises.py"
MEMORY = "tests/stores/test_contract_memory.py::TestMemory"
CONTRACT = "tests/stores/test_contract_sqlite.py::TestSqlite"
WATCHES = "tests/rpc/test_watches.py"
LOAD = "tests/rpc/test_load.py"
CONSISTENCY = "tests/rpc/test_consistency.py"
RECONNECTING = "tests/rpc/test_reconnecting.py"
JUMPS = "tests/rpc/test_jumps.py"
INPUT = "tests/rpc/test_bad_input.py"
WHO = "tests/rpc/test_auth.py"
SIZES = "tests/rpc/test_sizes.py"


@attrs.frozen
class Mutant:
    """One way to break one file."""

    name: str
    breaks: str
    file: str
    old: str
    """Occurs once in the file."""
    new: str
    test: str
    """Fails with `new` in the place of `old`."""


APPLY = """        with self.lock:
            for job, schema, changes in plans:
                job.receipt = job.ledger._apply(job.commit, schema, changes)
                job.sink = job.ledger._sink
"""

MUTANTS = (
    Mutant(
        "ack-before-commit",
        "a set returns before the file has it",
        DATABASE,
        f"        interrupt = self._end()\n{APPLY}",
        f"        interrupt = None\n{APPLY}",
        f"{PROMISES}::test_no_acknowledged_commit_is_lost_to_kill_9",
    ),
    Mutant(
        "publish-before-commit",
        "readers and watchers see what the file may still refuse",
        DATABASE,
        f"        interrupt = self._end()\n{APPLY}",
        f"{APPLY}        interrupt = self._end()\n        with self.lock:\n",
        f"{ORDER}::test_nobody_sees_a_commit_before_the_file_has_it",
    ),
    Mutant(
        "ack-before-commit-alone",
        "a set of a thread that is alone returns before the file has it",
        DATABASE,
        "            return self._end()\n",
        "            return None\n",
        f"{ORDER}::test_a_watcher_finds_in_the_file_what_it_is_told",
    ),
    Mutant(
        "publish-before-commit-alone",
        "what a thread sets alone is seen before the file has it",
        SQLITE,
        "        interrupt = database.write_now(\n",
        "        change = Change(name, value, version, rev, self.epoch, source, None, now, last.value)\n"
        "        self._keep((change,))\n"
        "        interrupt = database.write_now(\n",
        f"{ORDER}::test_nobody_sees_a_set_before_the_file_has_it",
    ),
    Mutant(
        "torn-batch-on-disk",
        "a batch is written in two transactions",
        SQLITE,
        "            write(sql.RECORD, (key, rev, name, version, now, source, why, job.packed[name]))\n",
        "            write(sql.RECORD, (key, rev, name, version, now, source, why, job.packed[name]))\n"
        "            self._database._end()\n",
        f"{PROMISES}::test_wherever_the_disk_fails_a_commit_is_whole_or_not_at_all",
    ),
    Mutant(
        "torn-batch-in-memory",
        "what is good of a commit that is refused is applied",
        LEDGER,
        "                self._refuse(write.name, error)\n        return values, None",
        "                if not values:\n"
        "                    self._refuse(write.name, error)\n"
        "        return values, None",
        f"{MEMORY}::test_what_is_refused_leaves_everything_as_it_was",
    ),
    Mutant(
        "double-apply-on-retry",
        "an op is done each time it is asked for",
        LEDGER,
        "        return None if commit.op is None else self._rarely().ops.get(commit.op)\n",
        "        return None\n",
        f"{MEMORY}::test_a_commit_that_is_tried_again_is_made_once",
    ),
    Mutant(
        "ops-only-in-memory",
        "an op is done again after a restart",
        SQLITE,
        "            write(sql.REMEMBER, (key, commit.op, time.time(), rev, made))\n",
        "",
        f"{CONTRACT}::test_a_commit_that_is_tried_again_after_opening_again_is_made_once",
    ),
    Mutant(
        "op-twice-in-a-group",
        "an op that waits twice for the disk is done twice",
        DATABASE,
        "                twins[ledger, op] = job\n",
        "                pass\n",
        f"{ORDER}::test_one_op_twice_in_a_group_is_one_commit",
    ),
    Mutant(
        "group-without-stage",
        "commits of a group do not see each other",
        DATABASE,
        "ledger.stage() if several and several[ledger] > 1 else ledger",
        "ledger",
        f"{ORDER}::test_of_a_group_only_what_is_refused_fails",
    ),
    Mutant(
        "one-fails-all-fail",
        "a refusal takes its neighbours along",
        DATABASE,
        "            except errors.DspexError as error:\n"
        "                job.error = error\n"
        "                continue\n",
        "            except errors.DspexError:\n                raise\n",
        f"{ORDER}::test_of_a_group_only_what_is_refused_fails",
    ),
    Mutant(
        "no-rollback",
        "a transaction that failed stays open",
        DATABASE,
        '                self._connection.execute("ROLLBACK")\n',
        "                pass\n",
        f"{PROMISES}::test_wherever_the_disk_fails_a_commit_is_whole_or_not_at_all",
    ),
    Mutant(
        "doubt-is-not-resolved",
        "a COMMIT whose outcome is not known is taken for one that failed",
        DATABASE,
        "        self.broken = True  # until memory has it too\n",
        "",
        f"{PROMISES}::test_wherever_the_disk_fails_a_commit_is_whole_or_not_at_all",
    ),
    Mutant(
        "half-a-set",
        "Ctrl-C in the middle of a set leaves what is left of it undone",
        LEDGER,
        "                self._finish((change,))\n",
        "                pass\n",
        "tests/test_interrupts.py::test_a_set_that_is_interrupted_is_whole_or_not_at_all",
    ),
    Mutant(
        "lost-turn",
        "Ctrl-C before a leader begins leaves those waiting who come after it",
        "dspex/stores/groups.py",
        "        except BaseException:\n            self._pass_on(job)\n            raise\n",
        "        finally:\n            pass\n",
        "tests/stores/test_sqlite_interrupts.py::test_a_turn_that_is_interrupted_is_passed_on",
    ),
    Mutant(
        "lost-wakeup",
        "the leader leaves without looking who waits",
        "dspex/stores/groups.py",
        "            heir = self._waiting[0] if self._waiting else None\n",
        "            heir = None\n",
        f"{ORDER}::test_commits_that_wait_share_one_transaction",
    ),
    Mutant(
        "no-lock",
        "two processes write one file",
        FILE,
        "        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "        pass\n",
        f"{PROMISES}::test_of_two_processes_that_open_a_store_one_wins",
    ),
    Mutant(
        "lock-crosses-fork",
        "a child goes on with its parent's connection",
        DATABASE,
        "os.register_at_fork(after_in_child=_leave_to_parent)\n",
        "",
        f"{SHARING}::test_a_child_cannot_use_the_store_and_the_parent_is_undisturbed",
    ),
    Mutant(
        "follows-links",
        "a store is opened where a link points",
        FILE,
        " | os.O_NOFOLLOW",
        "",
        f"{STORE}::test_a_symbolic_link_is_refused",
    ),
    Mutant(
        "others-may-read",
        "a file keeps the mode that it has",
        FILE,
        "        if mode & 0o177:\n",
        "        if False:\n",
        f"{STORE}::test_a_store_that_others_may_read_is_made_private",
    ),
    Mutant(
        "full-is-normal",
        "a power cut may undo what was acknowledged",
        FILE,
        '{"full": "FULL", "fast": "NORMAL"}',
        '{"full": "NORMAL", "fast": "NORMAL"}',
        f"{STORE}::test_full_is_the_default_and_fast_is_normal",
    ),
    Mutant(
        "epoch-of-each-opening",
        "who resumes after a restart starts from nothing",
        SQLITE,
        "            self._epoch, self.rev, self.schema = epoch, rev, schema\n",
        "            self._epoch, self.rev, self.schema = str(time.time()), rev, schema\n",
        f"{CONTRACT}::test_everything_is_there_after_opening_again",
    ),
    Mutant(
        "claims-only-in-memory",
        "a restart frees what an optimizer has claimed",
        SQLITE,
        "                self._rarely().claims = claims_of(claims)\n",
        "                pass\n",
        f"{CONTRACT}::test_claims_hold_after_opening_again",
    ),
    Mutant(
        "history-grows-on-disk",
        "the file keeps what memory forgets",
        SQLITE,
        "            write(sql.SHORTEN, (self._key, log.start, json.dumps(kept)))\n",
        "",
        f"{STORE}::test_history_is_bounded_on_disk",
    ),
    Mutant(
        "versions-are-not-looked-at",
        "a write happens whatever version it expects",
        LEDGER,
        "            if type(expect) is not int or expect != version:\n"
        "                raise refusals.version_conflict(self.id, name, version, expect)\n",
        "",
        f"{CONTRACT}::test_no_swap_is_lost",
    ),
    Mutant(
        "sinks-before-records",
        "a watcher that reads finds the old value",
        LEDGER,
        "        self._adopt(schema)\n        self._keep(changes)\n",
        "        if self._sink is not None:\n"
        "            self._sink.apply(changes)\n"
        "        self._adopt(schema)\n"
        "        self._keep(changes)\n",
        f"{MEMORY}::test_a_sink_hears_what_is_already_so",
    ),
    Mutant(
        "gap-not-seen",
        "a client applies what comes, whatever is missing before it",
        REPLICA,
        "            if prev > known:\n                return None\n",
        "",
        f"{JUMPS}::test_an_event_after_a_gap_is_not_applied",
    ),
    Mutant(
        "told-twice",
        "a client applies again what it has",
        REPLICA,
        "            if rev <= known:\n                return False\n",
        "",
        f"{JUMPS}::test_an_event_that_comes_again_changes_nothing",
    ),
    Mutant(
        "jump-not-told",
        "who wants every change is not told that some are missing",
        "dspex/stores/replica.py",
        "        if self._sink is not None and (not same or rev > before + 1):\n",
        "        if False:\n",
        f"{JUMPS}::test_who_wants_every_change_is_told_that_some_are_missing",
    ),
    Mutant(
        "checksum-ignored",
        "a client never finds out that its copy is wrong",
        REPLICA,
        "        return messages.digest(records) == message.digest\n",
        "        return True\n",
        f"{JUMPS}::test_a_checksum_that_differs_is_noticed",
    ),
    Mutant(
        "epoch-ignored",
        "a client goes on in another history as if it were the same",
        SERVICE,
        "        if resume.epoch != ledger.epoch or resume.rev > ledger.rev:\n",
        "        if resume.rev > ledger.rev:\n",
        f"{INPUT}::test_a_resume_from_nowhere_is_a_snapshot_that_says_so",
    ),
    Mutant(
        "snapshot-then-subscribe",
        "what is committed between the snapshot and the first event is lost",
        SERVICE,
        "        outbox.sent[hub] = request.resume.rev if snapshot is None else snapshot.revision.rev\n",
        "        outbox.sent[hub] = hub.rev\n",
        f"{WATCHES}::test_what_is_too_old_is_said",
    ),
    Mutant(
        "compaction-not-told",
        "what the server has forgotten is left out",
        SERVICE,
        "                return pb.START_COMPACTED\n",
        "                pass\n",
        f"{WATCHES}::test_what_is_too_old_is_said",
    ),
    Mutant(
        "torn-batch",
        "the changes of a commit are told one by one",
        HUBS,
        "                frames = list(messages.events(schema, channel, told.rev - 1, told.rev, changes))\n"
        "            told.frames = frames\n",
        "                frames = [messages.event(schema, channel, change) for change in changes]\n"
        "            told.frames = frames\n",
        f"{WATCHES}::test_six_promises_under_disconnects",
    ),
    Mutant(
        "part-applied-alone",
        "a commit in parts is applied part by part",
        REPLICA,
        "            if message.more:\n                return False\n            parts",
        "            parts",
        "tests/rpc/test_remote.py::test_a_large_commit_arrives_whole",
    ),
    Mutant(
        "double-apply",
        "a commit that is sent again is made again",
        SERVICE,
        "        if op and ops is not None and op in ops:\n",
        "        if False:\n",
        f"{CONSISTENCY}::test_a_retry_is_not_a_second_write",
    ),
    Mutant(
        "not-sent-again",
        "a commit whose answer was lost is forgotten",
        LINK,
        "                    outgoing.put(pending.data)\n        with self.guard:",
        "                    pass\n        with self.guard:",
        f"{CONSISTENCY}::test_a_retry_is_not_a_second_write",
    ),
    Mutant(
        "own-write-unseen",
        "a set returns before its value can be read",
        REPLICA,
        "            self.advance(own, rev)\n",
        "            pass\n",
        f"{CONSISTENCY}::test_an_own_write_is_never_read_older",
    ),
    Mutant(
        "unbounded-backlog",
        "the server keeps all commits for whoever is behind",
        HUBS,
        "(self._size > BACKLOG or len(ring) > HISTORY)",
        "False",
        f"{LOAD}::test_stopped_readers_hurt_nobody",
    ),
    Mutant(
        "unbounded-buffer",
        "commits wait in the buffer of each stream",
        OUTBOX,
        "            self._dirty[hub] = None\n            if self.began is None and not self.held:",
        "            self.catch_up(hub, hub.rev)\n            if self.began is None and not self.held:",
        f"{LOAD}::test_stopped_readers_hurt_nobody",
    ),
    Mutant(
        "answers-made-at-once",
        "large answers are made before anybody takes them",
        OUTBOX,
        "            self._out.append(data)\n            if self.began is None and not self.held:",
        "            self._out.extend([data] if isinstance(data, bytes) else data)\n"
        "            if self.began is None and not self.held:",
        f"{SIZES}::test_large_answers_to_one_who_does_not_read_wait_unmade",
    ),
    Mutant(
        "silence-not-noticed",
        "a connection that says nothing is believed to be good",
        LINK,
        "now - self.heard > timers.silence:",
        "now - self.heard > 1e9:",
        f"{RECONNECTING}::test_a_dead_connection_is_noticed_and_replaced",
    ),
    Mutant(
        "stale-is-read",
        "values are read however old they are",
        LINK,
        "now - self.fresh > self.address.max_staleness:",
        "now - self.fresh > 1e9:",
        f"{RECONNECTING}::test_a_stale_value_is_not_read",
    ),
    Mutant(
        "final-is-tried-again",
        "a client asks again and again with a token that was refused",
        LINK,
        "            if error.code() in status.FINAL:\n",
        "            if False:\n",
        f"{RECONNECTING}::test_a_final_answer_is_not_asked_for_again",
    ),
    Mutant(
        "record-after-name",
        "a variable is known before it has a record",
        "dspex/stores/replica.py",
        "            self.live.setdefault(one.name, schema.initial[one.name])\n",
        "            pass\n",
        f"{RECONNECTING}::test_what_is_declared_while_a_client_is_away_has_its_initial_value",
    ),
    Mutant(
        "tokens-compared-quickly",
        "how long a refusal takes says how much of a token is right",
        AUTH,
        "            if hmac.compare_digest(token.digest, digest):\n",
        "            if token.digest == digest:\n",
        f"{WHO}::test_all_tokens_are_compared_whatever_the_first_says",
    ),
    Mutant(
        "first-token-wins",
        "how long it takes says which token it is",
        AUTH,
        "                found = token\n        if found",
        "                found = token\n                break\n        if found",
        f"{WHO}::test_all_tokens_are_compared_whatever_the_first_says",
    ),
    Mutant(
        "expired-is-good",
        "a token goes on after its end",
        AUTH,
        "        if self.over:\n            raise _unauthenticated()\n",
        "",
        f"{WHO}::test_every_method_with_every_bad_credential",
    ),
    Mutant(
        "grants-not-asked",
        "whoever has a token may do all",
        SERVICE,
        "            caller.must(verb, session)\n",
        "            pass\n",
        f"{WHO}::test_every_method_with_every_bad_credential",
    ),
    Mutant(
        "commits-not-asked",
        "who may watch may set",
        CALLS,
        '                self._caller.must("set", request.session)\n',
        "                pass\n",
        f"{WHO}::test_a_reader_sees_what_is_there_and_can_do_nothing",
    ),
    Mutant(
        "open-to-all",
        "a port without TLS is served",
        LISTENING,
        "    if not (tls and tokens):\n",
        "    if not tokens:\n",
        f"{WHO}::test_a_server_starts_only_where_it_is_safe",
    ),
    Mutant(
        "token-in-the-clear",
        "a client sends its token where others can read it",
        ADDRESS,
        "    if not safe:\n",
        "    if False:\n",
        f"{WHO}::test_a_token_is_not_sent_where_others_can_read_it",
    ),
    Mutant(
        "unknown-fields-ignored",
        "what a server does not know is left out of what it does",
        REQUESTS,
        "        _refuse_unknown(message.FromString(data))\n",
        "        pass\n",
        f"{INPUT}::test_a_field_that_a_server_does_not_know_is_refused",
    ),
    Mutant(
        "any-pattern",
        "a client may have the server match for ever",
        REQUESTS,
        "            check_patterns(plain[1])\n",
        "            pass\n",
        "tests/rpc/test_patterns.py::test_a_server_refuses_to_be_kept_busy",
    ),
    Mutant(
        "capitals-not-seen",
        "letters that are the same where capitals do not count are taken for others",
        PATTERNS,
        "            return _Cost(self._most, (self._flags | more) & ~fewer)._of(inner)\n",
        "            return self._of(inner)\n",
        "tests/rpc/test_patterns.py::test_what_could_take_for_ever_is_refused",
    ),
    Mutant(
        "no-resume-point",
        "a server that stops does not say how far each stream was told",
        CALLS,
        "            outbox.bookmarks()\n            outbox.tell(last)\n",
        "            outbox.tell(last)\n",
        "tests/rpc/test_stores.py::test_a_server_that_stops_says_how_far_each_stream_was_told",
    ),
    Mutant(
        "started-call-runs-again",
        "a call whose worker was lost is run again without being asked for",
        f"{POOL}/scheduling.py",
        "        again = call.idempotent and call.attempts < self.settings.attempts\n",
        "        again = call.attempts < self.settings.attempts\n",
        f"{POOLS}::test_a_lost_worker_fails_its_call_and_no_other",
    ),
    Mutant(
        "no-lifeline",
        "the kernel does not end a worker whose pool is gone",
        f"{POOL}/worker.py",
        "        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())\n",
        "        return\n",
        f"{FAULTS}::test_a_killed_parent_leaves_nobody",
    ),
    Mutant(
        "stale-run",
        "a run does not wait for what its caller had set",
        f"{POOL}/running.py",
        "    if (ledger.epoch != epoch or ledger.rev < rev) and",
        "    if ledger.epoch != epoch and",
        f"{POOLS}::test_a_run_sees_every_set_that_its_caller_had_made",
    ),
    Mutant(
        "endless-queue",
        "the queue has no end",
        f"{POOL}/scheduling.py",
        "        if self._queued >= self.settings.queue:\n",
        "        if self._queued >= 10**9:\n",
        f"{POOLS}::test_a_full_queue_refuses_at_once",
    ),
    Mutant(
        "loose-affinity",
        "a session goes to whoever is free",
        f"{POOL}/scheduling.py",
        '        if call.reference is None or self.settings.affinity == "none":\n',
        "        if True:\n",
        f"{POOLS}::test_a_session_stays_with_its_worker",
    ),
    Mutant(
        "endless-restarts",
        "a worker that cannot start is started for ever",
        f"{POOL}/supervision.py",
        "        if len(slot.failures) < settings.restarts:\n",
        "        if len(slot.failures) < 10**9:\n",
        "tests/pool/test_local.py::test_a_worker_that_cannot_start_is_told_at_once_and_tried_five_times",
    ),
    Mutant(
        "same-dice",
        "the workers of a fork server draw the same numbers",
        f"{POOL}/forkserver.py",
        "        random.seed()\n",
        "        pass\n",
        f"{FORKS}::test_every_worker_has_dice_of_its_own",
    ),
    Mutant(
        "unsafe-fork",
        "a process with threads is forked",
        f"{POOL}/forkserver.py",
        "    if not (threads or sockets):\n",
        "    if not sockets:\n",
        f"{FORKS}::test_what_cannot_be_forked_is_refused_with_its_module",
    ),
    Mutant(
        "forked-group-stays",
        "what a forked worker has started outlives it",
        f"{POOL}/forked.py",
        "        self._life = os.dup(given[2])\n",
        "",
        f"{FORKS}::test_what_a_worker_has_started_ends_with_it_and_how_it_ended_is_told",
    ),
    Mutant(
        "old-surroundings",
        "a worker is forked off a server that was started elsewhere",
        f"{POOL}/forked.py",
        'return environment(settings), list(sys.path), _identity("."), _identity(1), _identity(2)\n',
        "return environment(settings), list(sys.path), _identity(1), _identity(2)\n",
        f"{FORKS}::test_workers_find_what_has_changed_since_the_first_was_started",
    ),
    Mutant(
        "successor-of-nobody",
        "a worker that was not wanted any more is followed by one that nobody ends",
        f"{POOL}/supervision.py",
        "        return not self._closing and (slot.index < 0 or self._slots.get(slot.index) is slot)\n",
        "        return not self._closing\n",
        "tests/pool/test_resizing.py::test_a_worker_that_starts_and_is_not_wanted_has_no_successor",
    ),
    Mutant(
        "deaf-supervisor",
        "heartbeats that are missed do not count",
        f"{POOL}/supervision.py",
        "                if member.pings >= self.settings.misses:\n",
        "                if member.pings >= 10**9:\n",
        f"{FAULTS}::test_a_stopped_worker_is_found_by_its_heartbeats",
    ),
    Mutant(
        "nobody-listens",
        "the thread of the pool does not look again after a caller has read for itself",
        f"{POOL}/process.py",
        "        self.listened(attended=call.attended)\n",
        "        pass\n",
        f"{POOLS}::test_who_waits_at_once_and_who_waits_later_may_take_turns",
    ),
    Mutant(
        "unbounded-stream",
        "a stream does not wait for who reads it",
        f"{POOL}/worker.py",
        "        self._room.acquire()\n",
        "",
        f"{POOLS}::test_a_stream_that_nobody_reads_waits",
    ),
    Mutant(
        "one-budget-for-all",
        "a worker that awaits keeps the budget of its first call",
        "dspex/crossing.py",
        "        return self._runner.run(awaited(), context=contextvars.copy_context())\n",
        "        return self._runner.run(awaited())\n",
        f"{POOLS}::test_a_budget_is_that_of_the_call_and_not_of_the_one_before",
    ),
    Mutant(
        "left-behind",
        "a call that waits looks for its session where it was",
        f"{POOL}/scheduling.py",
        "                self._renew(call)\n                if len(call.inputs)",
        "                if len(call.inputs)",
        f"{MOVING}::test_calls_that_wait_lose_nothing_when_their_session_moves",
    ),
    Mutant(
        "gone-is-failed",
        "a call whose session moved on the way to the worker fails",
        f"{POOL}/scheduling.py",
        '            if getattr(error, "begun", True) or not self._again(call):\n',
        "            if True:\n",
        f"{MOVING}::test_a_call_that_found_its_session_gone_is_begun_where_it_is",
    ),
    Mutant(
        "anybody-runs",
        "who may read a session may run programs in it",
        f"{POOL}/serving.py",
        '            caller.must("set", request.session or "*")\n',
        "",
        "tests/pool/test_serving.py::test_a_run_needs_the_right_to_set",
    ),
    Mutant(
        "endless-stream",
        "a stream goes on after its deadline",
        "dspex/streaming.py",
        "                if _left(end) == 0.0:\n",
        "                if False:\n",
        "tests/test_streaming.py::test_no_piece_comes_after_the_deadline",
    ),
    Mutant(
        "leaked-budget",
        "who takes pieces has the budget of the stream",
        "dspex/streaming.py",
        "                with deadlines.within(_left(end)), taking(True), run.step():\n",
        "                deadlines.within(_left(end)).__enter__()\n                if run:\n",
        "tests/test_streaming.py::test_the_budget_of_a_stream_is_not_that_of_who_takes_its_pieces",
    ),
    Mutant(
        "unbounded-text",
        "a model writes as far ahead as it likes",
        "dspex/pieces.py",
        "ROOM = 32\n",
        "ROOM = 10**9\n",
        f"{LEAVING}::test_nobody_runs_far_ahead_of_who_takes_the_pieces",
    ),
    Mutant(
        "model-goes-on",
        "a model goes on when its stream was left",
        "dspex/modules/dspy_streams.py",
        "    finally:\n        channel.leave()\n",
        "    finally:\n        pass\n",
        f"{LEAVING}::test_who_leaves_ends_the_answer",
    ),
    Mutant(
        "asks-on",
        "a model is asked again when its stream was left",
        "dspex/modules/dspy_streams.py",
        "inputs: dict[str, Any]) -> None:\n        self._check()\n\n    def on_tool_start",
        "inputs: dict[str, Any]) -> None:\n        pass\n\n    def on_tool_start",
        f"{LEAVING}::test_after_the_answer_was_left_nothing_is_asked",
    ),
    Mutant(
        "said-twice",
        "what was just streamed is repeated as what forward returned",
        "dspex/streaming.py",
        "        if not channel.has_said(result):\n            yield result\n        return",
        "        yield result\n        return",
        "tests/modules/test_speaking.py::test_a_module_that_speaks_is_heard_where_forward_does_not_yield",
    ),
    Mutant(
        "half-of-a-mark",
        "the beginning of the end of a text is taken for text",
        "dspex/modules/texts.py",
        "        return max(sizes, default=0)\n",
        "        return 0\n",
        "tests/modules/test_streaming.py::test_the_pieces_are_the_text_of_the_last_output",
    ),
    Mutant(
        "parent-on-the-loop",
        "a fork commits to a parent that waits on the event loop",
        "dspex/aio.py",
        "        asked = self._parent or self  # a fork is in memory, and its parent wherever it is\n",
        "        asked = self\n",
        f"{AWAITED}::test_the_loop_goes_on_while_a_store_is_asked[acommit_to_parent]",
    ),
    Mutant(
        "bound-on-the-loop",
        "the first run of a class asks its store on the event loop",
        "dspex/runs.py",
        "            self._program = await session._call(self._made, session)\n",
        "            self._program = self._made(session)\n",
        f"{AWAITED}::test_the_loop_goes_on_while_a_store_is_asked[arun]",
    ),
    Mutant(
        "released-on-the-loop",
        "the end of a claim is told its store on the event loop",
        "dspex/claims.py",
        "        await self.session._call(self._end, failed=kind is not None)\n",
        "        self._end(failed=kind is not None)\n",
        f"{AWAITED}::test_the_loop_goes_on_while_a_store_is_asked[aclaim]",
    ),
    Mutant(
        "moved-on-the-loop",
        "who awaits a session on its way elsewhere stops the event loop",
        "dspex/placing.py",
        "                self._check_may_wait()\n                if waited > PATIENCE:\n",
        "                if waited > PATIENCE:\n",
        f"{AWAITED}::test_who_awaits_a_session_on_its_way_elsewhere_does_not_stop_the_loop[aset]",
    ),
)
