"""Hostile images, configs, checkpoints, addresses and names, each given to one running server: one sentence each."""

import io
import json
import pickle
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from browsing import Server, ask, chosen, connected, elements, serve, uploaded, visit
from PIL import Image
from streamlit.proto.Alert_pb2 import Alert
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from test_look_inside import png_of_size
from websockets.sync.client import ClientConnection

from hrvit_lab import create_model
from hrvit_lab.app.subjects import UPLOADED
from hrvit_lab.config import PRESETS

NETWORK = "hrvit_nano.fashion_mnist (trained)"
MARKUP = "<img src=x onerror=alert(1)>[evil](evil.test) **strong**"
NANO = PRESETS["hrvit_nano"].to_yaml()


def huge_png() -> bytes:
    """A complete PNG of 200 megapixels in 0.2 MB."""
    rows = zlib.compress(bytes(10_000 * (1 + 20_000 // 8)))
    start = png_of_size(20_000, 10_000)[:16]
    header = start[12:] + (20_000).to_bytes(4, "big") + (10_000).to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])

    def chunk(content: bytes) -> bytes:
        return (len(content) - 4).to_bytes(4, "big") + content + zlib.crc32(content).to_bytes(4, "big")

    return start[:8] + chunk(header) + chunk(b"IDAT" + rows) + chunk(b"IEND")


def halved_png() -> bytes:
    """The first half of an image."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()[: len(file.getvalue()) // 2]


def tensors(**changes: torch.Tensor) -> bytes:
    """A checkpoint of hrvit_nano with some tensors changed."""
    file = io.BytesIO()
    torch.save(create_model("hrvit_nano").state_dict() | changes, file)
    return file.getvalue()


class Evil:
    """Would run a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return eval, ("1 + 1",)


ABSURD = {"depths": [[64] * 5] * 32, "widths": 4096, "head_dims": 1024, "mlp_ratios": 8, "stem_width": 1024}
NO_IMAGE = "no image that can be read"

IMAGES = {
    "empty": (b"", NO_IMAGE),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", NO_IMAGE),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n", NO_IMAGE),
    "header only": (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, NO_IMAGE),
    "200 megapixels": (huge_png(), "too many pixels; scale it below 40,000,000"),
    "4 gigapixels": (png_of_size(65_000, 65_000), "too many pixels"),
    "no data": (png_of_size(64, 64), "cannot be decoded"),
    "half": (halved_png(), "cannot be decoded"),
}
"""Uploads to "Look inside": content, and what is said."""

CONFIGS = {
    "not text": (b"\xff\xfe\0\0", "not UTF-8 text"),
    "not YAML": (b"{[", "not valid YAML"),
    "aliases": (b"a: &a [x]\nb: [*a, *a]\n", "aliases"),
    "object": (b"!!python/object/apply:os.system ['true']\n", "not valid YAML"),
    "nested": (b"[" * 5000, "nested too deeply"),
    "large": (b"# " + b"x" * 70_000, "larger than 64 KiB"),
    "a list": (b"- 1\n", "must be a mapping"),
    "infinite": (b"preset: hrvit_b1\nmlp_ratios: .inf\n", "mlp_ratios"),
    "a billion branches": (b"depths: [[1, 1, 1, 1, 1, 1, 1, 1, 1]]\n", "branches"),
    "markup": (f"preset: '{MARKUP}'\n".encode(), "preset"),
}
"""Uploads to "Build"."""

NETWORKS = {
    "absurd": (json.dumps(ABSURD), tensors(), "MiB of weights, and the app builds networks of at most 1,024 MiB"),
    "channels": ("preset: hrvit_nano\nin_chans: 64\n", tensors(), "in_chans = 64, but images have 3"),
    "wrong config": ("preset: hrvit_b1\n", tensors(), "has shape"),
    "broken config": ("{[", tensors(), "not valid YAML"),
    "unknown preset": ("preset: ../../etc/passwd\n", tensors(), "unknown"),
    "text": (NANO, b"no weights", "neither a PyTorch nor a safetensors file"),
    "nothing": (NANO, b"", "it is empty"),
    "code": (NANO, pickle.dumps({"state_dict": Evil()}, 2), "only tensors are loaded"),
    "safetensors": (NANO, (2**60).to_bytes(8, "little") + b'{"', "can't be read"),
    "other tensors": (NANO, tensors(**{"stem.conv1.weight": torch.zeros(1)}), "has shape"),
    "no numbers": (NANO, tensors(**{"stem.conv1.weight": torch.zeros(1).to_sparse()}), "dense"),
    MARKUP.replace("/", ""): ("depths: 7\n", tensors(), "depths"),
}
"""Folders of "Look inside": config, weights."""

ADDRESSES = {
    "preset": ("build", {"preset": "../../etc/passwd"}, "unknown"),
    "code": ("build", {"widths": "__import__('os')"}, "widths"),
    "shape": ("build", {"depths": "1_" * 40}, "depths"),
    "resolution": ("build", {"resolution": "-1~nan"}, "the address has resolution="),
    "long": ("build", {"resolution": "9" * 5000}, "the address has 5000 characters in resolution"),
    "markup": ("build", {"cost": MARKUP}, "the address has cost="),
    "limit": ("explore", {"limits": "<script>alert(1)</script>"}, "is not a limit"),
    "limit without a number": ("explore", {"limits": "macs < nan"}, "macs"),
    "study": ("studies", {"study": "../../etc"}, "table.csv"),
}
"""Addresses: page, query."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    results, runs = tmp_path_factory.mktemp("results"), tmp_path_factory.mktemp("runs")
    for name, (config, weights, _) in NETWORKS.items():
        (runs / name).mkdir()
        (runs / name / "config.yaml").write_text(config)
        (runs / name / "weights.pth").write_bytes(weights)
    (results / MARKUP.replace("/", "")).mkdir()
    (results / MARKUP.replace("/", "") / "table.csv").write_bytes(b'"\0\xff')
    with serve(results, runs) as running:
        yield running


def the_sentence(server: Server, messages: list[ForwardMsg]) -> str:
    """The only error on a page, a sentence; there is no exception, and the server lives."""
    assert elements(messages, "exception") == []
    [alert] = [alert for alert in elements(messages, "alert") if alert.format == Alert.ERROR]
    shown = str(alert.body).strip()
    assert "\n" not in shown and "Traceback" not in shown and len(shown) < 700
    assert not re.search(r"(?<!\\)[<\[*]", shown), "markup is escaped"
    assert server.lives
    return shown.replace("\\", "").replace("\u2060", "")


def test_there_are_thirty() -> None:
    assert len(IMAGES) + len(CONFIGS) + len(NETWORKS) + len(ADDRESSES) >= 30


class Uploader(NamedTuple):
    """A session with a page on which files are uploaded one after another."""

    server: Server
    connection: ClientConnection
    page: str
    query: str
    states: tuple[WidgetState, ...]
    messages: list[ForwardMsg]

    def give(self, content: bytes) -> list[ForwardMsg]:
        """Upload a file; the page that follows."""
        file = uploaded(self.server, self.connection, self.messages, content)
        return list(ask(self.connection, self.page, self.query, [*self.states, file]))


@pytest.fixture(scope="module")
def images(server: Server) -> Iterator[Uploader]:
    query = urlencode({"network": NETWORK})
    with connected(server) as connection:
        image = chosen(list(ask(connection, "look-inside", query)), "Image", UPLOADED)
        empty = list(ask(connection, "look-inside", query, [image]))
        assert "no image is uploaded yet" in the_sentence(server, empty)
        yield Uploader(server, connection, "look-inside", query, (image,), empty)


@pytest.fixture(scope="module")
def configs(server: Server) -> Iterator[Uploader]:
    with connected(server) as connection:
        yield Uploader(server, connection, "build", "", (), list(ask(connection, "build")))


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image(server: Server, images: Uploader, kind: str) -> None:
    content, said = IMAGES[kind]
    assert said in the_sentence(server, images.give(content))


def test_after_all_of_them_an_image_is_shown(images: Uploader) -> None:
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "JPEG")
    messages = images.give(file.getvalue())
    assert elements(messages, "alert") == [] and len(elements(messages, "imgs")) > 0


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config(server: Server, configs: Uploader, kind: str) -> None:
    content, said = CONFIGS[kind]
    assert said in the_sentence(server, configs.give(content))


def test_after_all_of_them_a_config_is_opened(configs: Uploader) -> None:
    messages = configs.give(b"preset: hrvit_nano\nnum_classes: 10\n")
    assert elements(messages, "alert") == []
    [preset] = [box for box in elements(messages, "selectbox") if box.label == "Start from"]
    assert preset.raw_value == "hrvit_nano"


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network(server: Server, kind: str) -> None:
    query = urlencode({"network": f"weights {kind}/weights.pth"})
    assert NETWORKS[kind][2] in the_sentence(server, visit(server, "look-inside", query))


@pytest.mark.parametrize("kind", ADDRESSES)
def test_an_address(server: Server, kind: str) -> None:
    page, query, said = ADDRESSES[kind]
    assert said in the_sentence(server, visit(server, page, urlencode(query)))
