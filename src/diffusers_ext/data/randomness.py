"""Seeds derived by name: every random draw of a run uses a seed from here, and never global random state."""

import hashlib
import operator


PLAIN = {int, str}


def derive_seed(*parts: int | str) -> int:
    """A seed that only depends on its parts, e.g. `derive_seed(seed, "order", epoch)`.

    The parts are hashed with BLAKE2b. So neighbouring seeds, epochs or indices give unrelated random numbers, and the
    result is the same on every machine, in every process and in every version of Python.

    Args:
        parts: integers (of any size and sign, also NumPy's) and strings; their order matters.

    Returns:
        An integer `s` with `0 <= s < 2**63`, for `torch.Generator().manual_seed(s)`.

    Raises:
        TypeError: for a part that is neither an integer nor a string.
    """
    # The repr of a tuple of plain integers and strings is unambiguous: (1, 23) and (12, 3), or 1 and "1", differ.
    key = repr(parts if PLAIN.issuperset(map(type, parts)) else tuple(map(_plain, parts)))
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1


def _plain(part) -> int | str:
    return str(part) if isinstance(part, str) else int(operator.index(part))
