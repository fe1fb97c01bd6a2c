"""What the properties here are tried with: streams that were right before they were changed."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hypothesis import strategies as st

from fuzz.mutation import INTERESTING


@st.composite
def changed(draw: st.DrawFn, parts: Sequence[bytes]) -> list[bytes]:
    """`parts`, some left out, doubled, moved or with other bytes in them."""
    result = list(parts)
    for _ in range(draw(st.integers(0, 3))):
        if not result:
            break
        index = draw(st.integers(0, len(result) - 1))
        match draw(st.sampled_from(["bytes", "bytes", "cut", "drop", "double", "move"])):
            case "bytes":
                result[index] = draw(with_other_bytes(result[index]))
            case "cut":
                result[index] = result[index][: draw(st.integers(0, len(result[index])))]
            case "drop":
                del result[index]
            case "double":
                result.insert(index, result[index])
            case _:
                result.append(result.pop(index))
    return result


@st.composite
def with_other_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with a few bytes in place of others, or between them."""
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 4)))
    new = draw(st.sampled_from(INTERESTING) | st.binary(max_size=4))
    return data[:start] + new + data[end:]


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` in pieces; some may be empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Fail when the block ever holds more than `size` bytes that it has allocated."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= size, f"{peak:,} bytes were held, where {size:,} are allowed"
