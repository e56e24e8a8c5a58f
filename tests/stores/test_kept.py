"""What is kept of things that are costly to open."""

from __future__ import annotations

import os
import pickle

from s3prl_stream.stores.kept import Kept


def test_the_last_ones_asked_for_are_kept_and_a_pickle_has_none() -> None:
    made: list[str] = []

    def get(kept: Kept[str, int], key: str) -> int:
        return kept.get(key, lambda: made.append(key) or len(made))  # type: ignore[func-returns-value]

    kept: Kept[str, int] = Kept(2)
    assert [get(kept, key) for key in "abacab"] == [1, 2, 1, 3, 1, 4]
    kept.forget("a")
    assert [get(kept, key) for key in "ba"] == [4, 5]
    other: Kept[str, int] = pickle.loads(pickle.dumps(kept))
    assert [get(other, key) for key in "aba"] == [6, 7, 6]


def test_a_child_that_is_forked_while_a_value_is_in_use_makes_its_own() -> None:
    kept: Kept[str, int] = Kept(2)
    with kept.using("a", os.getpid) as parent:
        child = os.fork()
        if not child:
            os._exit(0 if kept.get("a", os.getpid) != parent else 1)
        assert os.waitpid(child, 0)[1] == 0
