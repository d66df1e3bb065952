"""Attention on the item under a token: compared with a loop over tokens and pixels; and the command over scenes."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from test_insight_attention import ATTENDING, IMAGE, network
from test_scenes import write_fashion

from hrvit_lab.__main__ import main
from hrvit_lab.errors import ConfigError
from hrvit_lab.files import try_lock
from hrvit_lab.insight import items_command
from hrvit_lab.insight.attention import BlockAttention, block_attention
from hrvit_lab.insight.kept_scenes import keep_scene, read_scenes
from hrvit_lab.insight.on_item import OnItem, attention_on_item
from hrvit_lab.train.data.composites import BACKGROUND, open_composites


def by_loop(one: BlockAttention, items: np.ndarray) -> tuple[float, float, int]:
    """(attended, chance, tokens) from dense maps, pixel by pixel."""
    attended, chance, tokens = [], [], 0
    (H, W), (down, right) = one.size, one.place.stride
    for i in range(H):
        for j in range(W):
            y, x = min(i * down + down // 2, items.shape[0] - 1), min(j * right + right // 2, items.shape[1] - 1)
            if items[y, x] == 0:
                continue
            tokens += 1
            own = np.zeros((H, W))
            for a in range(H):
                for b in range(W):
                    covered = items[a * down : (a + 1) * down, b * right : (b + 1) * right]
                    own[a, b] = (covered == items[y, x]).mean()
            for weights in one.of_token((i, j)):
                attended.append((weights * own).sum())
                chance.append(own[weights > 0].mean())
    return float(np.mean(attended)), float(np.mean(chance)), tokens


@pytest.mark.parametrize("variant", [name for name in ATTENDING if name != "spatial_reduction"])
def test_attention_on_items_equals_a_loop(variant: str) -> None:
    torch.manual_seed(0)
    items = np.zeros(IMAGE, np.uint8)
    items[3:30, 5:22], items[20:49, 18:33] = 1, 2
    for one in block_attention(network(variant), torch.randn(1, 3, *IMAGE)):
        found = attention_on_item(one, items)
        attended, chance, tokens = by_loop(one, items)
        assert (found.place, found.tokens) == (one.place, tokens) and tokens > 3
        assert found.attended == pytest.approx(attended, abs=1e-6)
        assert found.chance == pytest.approx(chance, abs=1e-6)


def test_merged_keys_count_by_their_share_of_an_item() -> None:
    one = block_attention(network("spatial_reduction"), torch.randn(1, 3, 64, 64))[0]
    assert one.heads.cell != (1, 1)
    full, half = np.ones((64, 64), np.uint8), np.ones((64, 64), np.uint8)
    half[:, 1::2] = 0
    assert attention_on_item(one, full)[1:3] == pytest.approx((1, 1))
    side = one.place.stride[1] // 2  # tokens' centres are on even columns, and each key is half on the item
    assert side % 2 == 0
    assert attention_on_item(one, half)[1:3] == pytest.approx((0.5, 0.5))


def test_without_items_there_is_no_share_and_items_have_the_images_size() -> None:
    one = block_attention(network("cross_shaped"), torch.randn(1, 3, *IMAGE))[0]
    found = attention_on_item(one, np.zeros(IMAGE, np.uint8))
    assert np.isnan(found.attended) and np.isnan(found.chance) and found.tokens == 0
    with pytest.raises(ConfigError, match="give one for each pixel"):
        attention_on_item(one, np.zeros((8, 8), np.uint8))


def test_items_of_a_scene_are_the_pixels_of_its_labels(tmp_path: Path) -> None:
    samples = open_composites("val", write_fashion(tmp_path), size=64)
    for index in range(20):
        image, labels, items = samples.drawn(index)
        assert np.array_equal(np.asarray(samples[index][0]), image)
        assert np.array_equal(np.asarray(samples[index][1]), labels)
        assert np.array_equal(items > 0, labels != BACKGROUND) and items.max() <= 6
        assert all(len(np.unique(labels[items == number])) == 1 for number in np.unique(items))


def test_the_command_writes_table_summary_and_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_fashion(tmp_path)
    out = tmp_path / "out"
    asked = ["insight", "items", "hrvit_nano.fashion_mnist", "--scenes", "3", "--size", "64", "--root", str(root)]
    assert main([*asked, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    about = json.loads((out / "items.json").read_text())
    table = pd.read_csv(out / "items.csv")
    assert about["finding"] in " ".join(said.split()) and "3 of 3 scenes" in said
    assert len(table) == 19 and table["branch"].nunique() == 4
    for name in ("trained", "random", "equal_attention"):
        assert about[name] == pytest.approx(table[name].mean(), abs=1e-9)  # every scene has a token on an item
    assert about["over_random"]["mean"] == pytest.approx(about["trained"] - about["random"])
    assert (out / "items.png").exists() and (out / "items.svg").exists()


@pytest.mark.parametrize("with_out", [True, False])
def test_an_interrupted_command_continues_to_the_same_numbers(
    with_out: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["insight", "items", "hrvit_nano.fashion_mnist", "--scenes", "4", "--size", "64"]
    asked += ["--root", str(write_fashion(tmp_path))]
    assert main([*asked, "--out", "whole"]) == 0
    real, calls = items_command.attention_on_item, iter(range(1000))

    def stopped(one: BlockAttention, items_HW: np.ndarray) -> OnItem:
        if next(calls) == 2 * 38 + 5:  # in the third scene
            raise KeyboardInterrupt
        return real(one, items_HW)

    out = Path("again") if with_out else Path("results/insight/hrvit_nano.fashion_mnist-items")
    ours = [*asked, "--out", "again"] if with_out else asked
    monkeypatch.setattr(items_command, "attention_on_item", stopped)
    assert main(ours) == 130
    assert f"kept in {out}" in capsys.readouterr().out and len((out / "scenes.jsonl").read_text().splitlines()) == 2
    with (out / "scenes.jsonl").open("a") as file:
        file.write('{"digest": "')  # a process that was killed while writing
    computed: list[int] = []

    def counted(one: BlockAttention, items_HW: np.ndarray) -> OnItem:
        computed.append(1)
        return real(one, items_HW)

    monkeypatch.setattr(items_command, "attention_on_item", counted)
    assert main(ours) == 0 and len(computed) == 2 * 38
    assert (out / "items.csv").read_bytes() == Path("whole/items.csv").read_bytes()
    assert json.loads((out / "items.json").read_text())["finding"]
    assert not (out / "scenes.jsonl").exists()
    if not with_out:
        assert main(ours) == 0 and Path(f"{out}-2").exists()  # finished results are never replaced


def scene_line(**changes: Any) -> str:
    return json.dumps({"digest": "d", "scene": 0, "shares": [[0.5, 0], [0, 0], [0, 0]]} | changes)


@pytest.mark.parametrize(
    "line",
    [
        "[]", "x", "{}", scene_line(shares=[[1], [1], [1]]), scene_line(shares=[[2, 0], [0, 0], [0, 0]]),
        scene_line(shares=[[math.nan, 0], [0, 0], [0, 0]]), scene_line(shares=[["0.5", 0], [0, 0], [0, 0]]),
        scene_line(digest="other"), scene_line(scene=-1), scene_line(scene=True), scene_line(scene=0.5),
        scene_line(scene=math.inf), scene_line(scene=10**400), scene_line(more=1),
    ],
)  # fmt: skip
def test_lines_that_are_no_scene_are_left_out(line: str, tmp_path: Path) -> None:
    path = tmp_path / "scenes"
    keep_scene(path, "d", 7, ((0.5, np.nan), (0.25, 0.0), (1.0, np.nan)))
    with path.open("a") as file:
        file.write(f"{line}\n")
    found = read_scenes(path, "d", 2)
    assert list(found) == [7] and found[7][1] == (0.25, 0.0) and np.isnan(found[7][0][1])
    with path.open("a") as file:
        file.write(f"{scene_line()}\n")
    assert list(read_scenes(path, "d", 2)) == [7, 0]  # the line itself is right without the change


def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *out: str) -> list[str]:
    """A command that was interrupted in its second scene."""
    monkeypatch.chdir(tmp_path)
    asked = ["insight", "items", "hrvit_nano.fashion_mnist", "--scenes", "3", "--size", "32", *out]
    real, calls = items_command.attention_on_item, iter(range(1000))

    def stopped(one: BlockAttention, items_HW: np.ndarray) -> OnItem:
        if next(calls) == 40:
            raise KeyboardInterrupt
        return real(one, items_HW)

    with monkeypatch.context() as patched:
        patched.setattr(items_command, "attention_on_item", stopped)
        assert main([*asked, "--root", str(write_fashion(tmp_path))]) == 130
    return asked


def test_an_error_in_between_loses_no_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = interrupted(tmp_path, monkeypatch, "--out", "out")
    kept = Path("out/scenes.jsonl").read_bytes()
    assert main([*asked, "--root", "nowhere"]) == 2

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(items_command, "keep_scene", full)
        assert main([*asked, "--root", str(tmp_path)]) == 2
    assert Path("out/scenes.jsonl").read_bytes() == kept
    assert main([*asked, "--root", str(tmp_path)]) == 0


def test_scenes_of_other_weights_are_not_mixed_and_a_running_command_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*interrupted(tmp_path, monkeypatch, "--out", "out"), "--root", str(tmp_path)]
    assert main([*asked, "--seed", "5"]) == 2  # other random weights
    assert "unfinished results of another network or other scenes" in capsys.readouterr().err
    lock = try_lock(Path("out/writing.lock"))
    assert lock is not None
    assert main(asked) == 2 and "another process writes out" in capsys.readouterr().err
    lock.release(unlink=True)
    assert main(asked) == 0
    # Without --out, a second command takes a folder of its own.
    asked = [*interrupted(tmp_path, monkeypatch), "--root", str(tmp_path)]
    first = Path("results/insight/hrvit_nano.fashion_mnist-items")
    lock = try_lock(first / "writing.lock")
    assert lock is not None
    assert main(asked) == 0 and Path(f"{first}-2", "items.csv").exists() and not (first / "items.csv").exists()
    lock.release(unlink=True)
    assert main(asked) == 0 and (first / "items.csv").exists()


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ("hrvit_nano", "hrvit_nano has random weights; give an HRViT with trained weights"),
        ("timm:test_vit", "has no config of an HRViT"),
        ("hrvit_nano.fashion_mnist --size 8", "--size"),
        ("hrvit_nano.fashion_mnist --scenes 1", "--scenes"),
        ("hrvit_nano.fashion_mnist --root nowhere", "nowhere"),
    ],
)
def test_bad_requests_are_one_sentence(arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["insight", "items", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error


def test_blocks_and_scenes_without_a_token_on_an_item_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the first scene no token lies on an item; in the others, none of the last stage does."""
    real = items_command.attention_on_item
    calls = iter(range(3 * 2 * 19))

    def sometimes(one: BlockAttention, items_HW: np.ndarray) -> OnItem:
        found, scene = real(one, items_HW), next(calls) // 38
        return found._replace(attended=np.nan, chance=np.nan) if scene == 0 or one.place.stage == 5 else found

    monkeypatch.setattr(items_command, "attention_on_item", sometimes)
    root, out = write_fashion(tmp_path), tmp_path / "out"
    asked = ["insight", "items", "hrvit_nano.fashion_mnist", "--scenes", "3", "--size", "64", "--root", str(root)]
    assert main([*asked, "--out", str(out)]) == 0
    assert capsys.readouterr().err == ""
    table = pd.read_csv(out / "items.csv")
    assert table["trained"].isna().tolist() == (table["stage"] == 5).tolist() and table["trained"].notna().any()
    about = json.loads((out / "items.json").read_text(), parse_constant=pytest.fail)
    assert about["over_random"]["n"] == 2 and about["trained"] == pytest.approx(table["trained"].mean())
    # Without any token on an item there is nothing to say; the scenes are kept for a command with more of them.
    monkeypatch.setattr(items_command, "attention_on_item", lambda one, _: OnItem(one.place, np.nan, np.nan, 0))
    monkeypatch.chdir(tmp_path)
    assert main(asked) == 2
    assert "tokens lie on items in 0 of 3 scenes; use more with --scenes" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "results" / "insight").glob("*/*")] == ["scenes.jsonl"]


def test_results_of_other_inputs_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = write_fashion(tmp_path), tmp_path / "out"
    asked = ["insight", "items", "hrvit_nano.fashion_mnist", "--size", "32", "--root", str(root), "--out", str(out)]
    assert main([*asked, "--scenes", "3"]) == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()
    assert main([*asked, "--scenes", "2"]) == 2
    assert "(scenes differs), which are never overwritten; choose another folder with --out" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in out.iterdir()}
