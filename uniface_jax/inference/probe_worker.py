"""Run an ONNX model that anyone may have written, in a process of its own that is held to limits.

Run as a script, so that it imports no more than onnxruntime. It reads from standard input the
length of the model as 8 bytes, the model, and an .npz with the feeds by number; its arguments are
the input's name, the processor seconds and the bytes of memory that are allowed. It writes an .npz
to standard output: "error" where the model cannot be loaded, and for each feed "NUMBER/error", or
"NUMBER/value/INDEX", the array of the output at INDEX.
"""

import io
import os
import resource
import sys

import numpy as np
import onnxruntime

MAX_VALUES = 1 << 24  # of an output that is sent whole; of larger ones only the shape is


def main(input_name: str, seconds: str, memory: str) -> None:
    """Answer on what was standard output, which libraries may write to otherwise."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # pipes are no files
    length = int.from_bytes(sys.stdin.buffer.read(8), "little")
    content = sys.stdin.buffer.read(length)
    feeds = dict(np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False))
    answer.write(_npz(_answers(content, input_name, feeds)))
    answer.flush()


def _answers(
    content: bytes, input_name: str, feeds: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime's exceptions share no base class
        return {"error": np.array(str(e))}
    found = {}
    for number, images in feeds.items():
        try:
            values = session.run(None, {input_name: images})
        except Exception as e:
            found[f"{number}/error"] = np.array(str(e))
            continue
        for index, value in enumerate(values):
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
                if value.size <= MAX_VALUES:
                    found[f"{number}/value/{index}"] = value
                else:
                    found[f"{number}/shape/{index}"] = np.array(value.shape)
    return found


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


if __name__ == "__main__":
    main(*sys.argv[1:])
