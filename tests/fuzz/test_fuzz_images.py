"""Mutated image files, in short; `python -m tests.fuzz.fuzz_images` prints the counts of as many as wanted."""

import pytest

from tests.fuzz.fuzz_images import fuzz


@pytest.mark.slow
def test_mutated_image_files_are_refused_or_right():
    counts = fuzz(count=200, seed=1)
    assert counts.total() == 200
    assert {result for _, result in counts} == {"intact", "refused", "an image"}
