"""Command line: answers over HTTP with features, comparisons and searches of a gallery.

python -m uniface_jax.serve --model=MODEL [--gallery=GALLERY] [--calibration=metrics.json]

POST /embed, /compare and /search take photographs as multipart forms; GET /openapi.json describes
them, /health and /metrics the server. It listens on 127.0.0.1; on another --host it answers only
who sends the token of --token_file, or of the variable UNIFACE_TOKEN. SIGINT or SIGTERM ends it
after the requests in progress.
"""

from uniface_jax import cli
from uniface_jax.serve import options

_FLAGS = options.define()


def main(argv: list[str]) -> None:
    """Load the model, and answer until a signal."""
    cli.positional(argv)
    _FLAGS.open().run()


if __name__ == "__main__":
    cli.run(main)
