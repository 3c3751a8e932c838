"""Random wrong values of options, in short; `python -m tests.fuzz.fuzz_options` prints as many as wanted."""

import pytest

from tests.fuzz.fuzz_options import COMMANDS, fuzz_options, report


@pytest.mark.slow
def test_wrong_values_of_options_end_in_a_sentence_before_the_training():
    outcomes = fuzz_options(count=300, seed=1)
    print(report(outcomes))
    assert len(outcomes) == 300 + len(COMMANDS)
    assert not any(outcome.kind == "fault" for outcome in outcomes), report(outcomes)
