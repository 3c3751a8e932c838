import pytest

from tests.fuzz.fuzz_checkpoints import fuzz_checkpoints, fuzz_loras, report


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "fuzz", "count"), [("checkpoints", fuzz_checkpoints, 50), ("LoRA files", fuzz_loras, 30)]
)
def test_mutated_files_end_in_a_sentence_or_a_right_result(kind, fuzz, count):
    outcomes = fuzz(count)
    print(report(kind, outcomes))
    assert len(outcomes) == count
    assert not any(outcome.fault for outcome in outcomes), report(kind, outcomes)
    assert {outcome.is_refused for outcome in outcomes} == {True, False}
