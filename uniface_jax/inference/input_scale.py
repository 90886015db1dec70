"""How the MFR-ongoing server decides on the scale of the pixels that it feeds a graph."""

import onnx


def feeds_raw_pixels(graph: onnx.GraphProto) -> bool:
    """Whether the server feeds 0..255 rather than (x - 127.5)/127.5, which it infers from names.

    Raw when among the first eight nodes one's name starts with Sub or _minus and one's with Mul,
    _mul or Div; what the nodes compute does not matter to it.
    """
    names = [node.name for node in graph.node[:8]]
    return any(name.startswith(("Sub", "_minus")) for name in names) and any(
        name.startswith(("Mul", "_mul", "Div")) for name in names
    )
