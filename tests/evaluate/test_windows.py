"""Windows and scored positions: those of llama.cpp's tools/perplexity."""

import numpy as np
import pytest

from trit.errors import UsageError
from trit.evaluate.perplexity import windows


def test_the_second_half_of_each_window_is_scored() -> None:
    tokens = np.arange(100, 127, dtype=np.int32)
    first, second, third = windows(tokens, 8, None, None)
    np.testing.assert_array_equal(first.read, tokens[:8])
    np.testing.assert_array_equal(third.read, tokens[16:24])
    assert list(second.asked) == [4, 5, 6]  # ctx // 2 … ctx − 2
    np.testing.assert_array_equal(second.expected, [113, 114, 115])


def test_an_odd_window_scores_what_llama_perplexity_scores() -> None:
    (window,) = windows(np.arange(9, dtype=np.int32), 9, None, None)
    assert list(window.asked) == [4, 5, 6, 7]
    np.testing.assert_array_equal(window.expected, [5, 6, 7, 8])


def test_bos_stands_in_place_of_the_first_token() -> None:
    tokens = np.arange(16, dtype=np.int32)
    for window in windows(tokens, 8, 99, None):
        assert window.read[0] == 99 and 99 not in window.read[1:]
        assert 99 not in window.expected
    np.testing.assert_array_equal(tokens, np.arange(16))


def test_the_limit_takes_the_first_ones() -> None:
    tokens = np.arange(40, dtype=np.int32)
    assert len(windows(tokens, 8, None, None)) == 5
    assert [w.read[0] for w in windows(tokens, 8, None, 2)] == [0, 8]
    assert len(windows(tokens, 8, None, 99)) == 5


@pytest.mark.parametrize(
    ("count", "ctx", "limit", "says"),
    [
        (7, 8, None, "7 tokens, one window needs 8"),
        (100, 4, None, "--ctx 4"),
        (100, 8, 0, "--chunks 0"),
        (0, 512, None, "0 tokens"),
    ],
)
def test_what_makes_no_sense(count: int, ctx: int, limit: int | None, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        windows(np.zeros(count, dtype=np.int32), ctx, None, limit)
