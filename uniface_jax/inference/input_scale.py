"""Scale of the pixels that the MFR-ongoing server feeds a graph."""

import onnx


def feeds_raw_pixels(graph: onnx.GraphProto) -> bool:
    """Return True where the server feeds 0..255, and False where it feeds (x - 127.5) / 127.5.

    It infers that from names: raw when among the first eight nodes one's name starts with Sub or
    _minus and one's with Mul, _mul or Div; what the nodes compute does not matter to it.
    """
    names = [node.name for node in graph.node[:8]]
    return any(name.startswith(("Sub", "_minus")) for name in names) and any(
        name.startswith(("Mul", "_mul", "Div")) for name in names
    )
