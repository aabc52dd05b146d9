"""How quickly `fields view` answers: `python -m fields.benchmarks.viewer RUN`.

Talks to the real command as a browser does, but draws nothing: seconds from the command to the first picture, milliseconds from
a camera message to the picture that shows it while the camera moves, seconds to the full picture of 400×400 when it rests.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import viser
import zstandard
from viser import _messages
from websockets.sync.client import ClientConnection, connect

SIDE = 400
MESSAGES_PER_SECOND, SECONDS = 30, 8.0


def camera(angle: float, distance: float) -> bytes:
    """The message of a browser whose camera looks at the origin from a circle."""
    eye = np.array([distance * math.cos(angle), distance * math.sin(angle), 0.5 * distance])
    forward = -eye / np.linalg.norm(eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward], 1)  # OpenCV's axes: right, down, forward
    wxyz = viser.transforms.SO3.from_matrix(rotation).wxyz
    message = _messages.ViewerCameraMessage(
        wxyz=tuple(wxyz.tolist()), position=tuple(eye.tolist()), fov=0.7, near=0.01, far=100.0, image_height=SIDE, image_width=SIDE,
        look_at=(0.0, 0.0, 0.0), up_direction=(0.0, 0.0, 1.0),
    )  # fmt: skip
    return msgspec.msgpack.encode(message.as_serializable_dict())


def received(socket: ClientConnection, until: float) -> list[tuple[float, bool]]:
    """When pictures came until some time, and whether each was sharp."""
    pictures = []
    while (left := until - time.monotonic()) > 0:
        try:
            data = socket.recv(timeout=left)
        except TimeoutError:
            break
        assert isinstance(data, bytes)
        size = int.from_bytes(data[8:16], "little")
        messages = msgspec.msgpack.decode(zstandard.decompress(data[16 : 16 + size]))["messages"]
        if any(m["type"] == "BackgroundImageMessage" for m in messages):
            pictures.append((time.monotonic(), "· sharp" in str(messages)))
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    arguments = parser.parse_args()
    began = time.monotonic()
    command = [sys.executable, "-m", "fields.apps.cli", "view", str(arguments.run), "--port", "7290"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[0].replace("http", "ws")
        with connect(address, subprotocols=[f"viser-v{viser.__version__}"], max_size=None) as socket:  # type: ignore[list-item]
            socket.send(camera(0.0, 4.0))
            pictures: list[tuple[float, bool]] = []
            while not pictures:
                pictures = received(socket, time.monotonic() + 0.02)
            print(f"first picture: {pictures[0][0] - began:.2f} s after the command")
            received(socket, time.monotonic() + 5)

            sent, pictures = [], []
            start = time.monotonic()
            while (now := time.monotonic()) - start < SECONDS:
                socket.send(camera((now - start) / 2, 4.0))
                sent.append(now)
                pictures += received(socket, now + 1 / MESSAGES_PER_SECOND)
            shown = [when for when, _ in pictures]
            # A picture is of the newest camera when it was begun, which was after the one before it had come.
            latencies = [next((b - s for a, b in zip(shown, shown[1:], strict=False) if a >= s), None) for s in sent]
            known = [1000 * v for v in latencies if v is not None]
            print(
                f"moving: {(len(shown) - 1) / (shown[-1] - shown[0]):.1f} pictures per second; from camera to picture "
                f"{statistics.median(known):.0f} ms median, {statistics.quantiles(known, n=10)[-1]:.0f} ms 90 %"
            )
            rest = sent[-1]
            pictures = received(socket, rest + 20)
            sharp = next(when for when, is_sharp in pictures if is_sharp)
            print(f"sharp, {SIDE}×{SIDE}: {sharp - rest:.2f} s after the camera came to rest")
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
