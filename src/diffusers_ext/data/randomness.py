"""Seeds by name: every random draw of a run comes from a seed derived here, never from global state."""

import hashlib
import operator


PLAIN = {int, str}


def derive_seed(*parts: int | str) -> int:
    """A seed that is a function of its parts only, e.g. `derive_seed(seed, "order", epoch)`.

    The parts are hashed with BLAKE2b, so neighbouring seeds, epochs or indices give unrelated streams, and the result
    is the same on every machine, in every process and in every version of Python.

    Args:
        parts: integers (any size and sign, NumPy's too) and strings, in a meaningful order.

    Returns:
        An integer `s` with `0 <= s < 2**63`, good for `torch.Generator().manual_seed(s)`.

    Raises:
        TypeError: for a part that is neither an integer nor a string.
    """
    # repr of a tuple of plain integers and strings is unambiguous: (1, 23) and (12, 3), or 1 and "1", never collide.
    key = repr(parts if PLAIN.issuperset(map(type, parts)) else tuple(map(_plain, parts)))
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1


def _plain(part) -> int | str:
    return str(part) if isinstance(part, str) else int(operator.index(part))
