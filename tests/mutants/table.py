"""The mutants: what is broken, where, and which test notices."""

from __future__ import annotations

import attrs

__all__ = ["MUTANTS", "Mutant"]

DATABASE = "dspex/stores/sqlite_database.py"
FILE = "dspex/stores/sqlite_file.py"
SQLITE = "dspex/stores/sqlite_ledger.py"
LEDGER = "dspex/stores/ledger.py"

STORE = "tests/stores/test_sqlite.py"
SHARING = "tests/stores/test_sqlite_sharing.py"
ORDER = "tests/stores/test_sqlite_order.py"
PROMISES = "tests/stores/test_sqlite_promises.py"
MEMORY = "tests/stores/test_contract_memory.py::TestMemory"
CONTRACT = "tests/stores/test_contract_sqlite.py::TestSqlite"


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
        "            self.broken = not self._connection.in_transaction\n",
        "",
        f"{PROMISES}::test_wherever_the_disk_fails_a_commit_is_whole_or_not_at_all",
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
        "            if expect != version:\n"
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
)
