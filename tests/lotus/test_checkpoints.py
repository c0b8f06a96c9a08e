"""Damaged and foreign checkpoints are refused in one line that names file and tensor; good ones shared."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import lotus
from lotus.checkpoints import PROMPT, embed_prompt, find_checkpoint, read_vae, task_of
from lotus.devices import resolve_device, resolve_dtype
from recon.errors import InputError

UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"


def change_weights(file: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(weights)
    save_file(weights, file)


def change_config(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def message(source: str | Path) -> str:
    """The error of loading, which must be one line."""
    with pytest.raises(InputError) as caught:
        lotus.load(source, "cpu", "float32")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_importing_lotus_does_not_import_torch() -> None:
    code = "import sys, lotus, lotus.predictor, lotus.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_missing_tensor_is_named_with_its_file(broken: Path) -> None:
    change_weights(broken / UNET, lambda weights: weights.pop("mid_block.resnets.0.conv1.weight"))
    assert message(broken).startswith(f"{broken / UNET}: tensor mid_block.resnets.0.conv1.weight is missing")


def test_a_tensor_of_another_shape_is_named_with_both_shapes(broken: Path) -> None:
    change_weights(broken / UNET, lambda weights: weights.update({"conv_in.weight": torch.zeros(8, 5, 3, 3)}))
    expected = "tensor conv_in.weight has shape (8, 5, 3, 3), config.json says (8, 4, 3, 3)"
    assert message(broken) == f"{broken / UNET}: {expected}"


def test_an_unknown_tensor_is_named(broken: Path) -> None:
    change_weights(broken / VAE, lambda weights: weights.update(surplus=torch.zeros(1)))
    assert message(broken) == f"{broken / VAE}: tensor surplus has no place in the network of config.json"


def test_integer_weights_are_refused(broken: Path) -> None:
    change_weights(broken / VAE, lambda weights: weights.update({k: v.char() for k, v in weights.items()}))
    assert "is I8, wanted one of F16, BF16, F32, F64" in message(broken)


def test_a_truncated_file_names_the_first_tensor_that_is_cut(broken: Path) -> None:
    file = broken / "text_encoder/model.safetensors"
    os.truncate(file, file.stat().st_size - 4)
    assert message(broken).startswith(f"{file}: truncated, tensor text_model.")


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x10" + bytes(7) + b"no header at all"])
def test_a_file_that_is_no_safetensors_is_refused(broken: Path, content: bytes) -> None:
    (broken / UNET).write_bytes(content)
    assert message(broken).startswith(f"{broken / UNET}: not a safetensors file")


@pytest.mark.parametrize(
    ("content", "complaint"), [("{", "not JSON"), ("[]", "a JSON list, wanted an object")]
)
def test_a_broken_config_is_named(broken: Path, content: str, complaint: str) -> None:
    (broken / "vae/config.json").write_text(content)
    assert message(broken).startswith(f"{broken / 'vae/config.json'}: {complaint}")


def test_a_plain_stable_diffusion_unet_is_told_from_lotus(broken: Path) -> None:
    change_config(broken / "unet/config.json", class_embed_type=None)
    assert "class_embed_type is None, in a Lotus checkpoint it is 'projection'" in message(broken)


def test_a_config_that_builds_no_network_is_named(broken: Path) -> None:
    change_config(broken / "unet/config.json", down_block_types=["NoSuchBlock"])
    assert message(broken).startswith(f"{broken / 'unet/config.json'}: no network can be built from it: ")


def test_a_text_encoder_of_another_width_is_refused(broken: Path) -> None:
    change_config(broken / "unet/config.json", cross_attention_dim=20)
    narrow = {
        k: v[:, :20].contiguous()
        for k, v in load_file(broken / UNET).items()
        if ".attn2.to_" in k and v.ndim == 2
    }
    narrow = {k: v for k, v in narrow.items() if ".to_k." in k or ".to_v." in k}
    change_weights(broken / UNET, lambda weights: weights.update(narrow))
    assert "the text encoder has 24 channels, the UNet's cross_attention_dim is 20" in message(broken)


def test_a_folder_says_all_that_it_lacks(broken: Path) -> None:
    shutil.rmtree(broken / "tokenizer")
    (broken / VAE).unlink()
    lacking = f"{VAE}, tokenizer/vocab.json, tokenizer/merges.txt"
    assert message(broken) == f"{broken}: not a Lotus checkpoint, it lacks {lacking}"


def test_pickles_are_refused_by_name(broken: Path) -> None:
    (broken / VAE).rename(broken / "vae/diffusion_pytorch_model.bin")
    assert message(broken).startswith(f"{broken / 'vae/diffusion_pytorch_model.bin'}: a pickle can run code")
    assert message("model.ckpt").startswith("model.ckpt: a pickle can run code")


def test_a_hub_id_that_cannot_be_reached_is_one_line() -> None:
    text = message("jingheya/lotus-no-such-checkpoint")
    assert text.startswith(
        "jingheya/lotus-no-such-checkpoint: no such folder here, not in the Hugging Face cache"
    )


def test_a_source_that_is_neither_folder_nor_hub_id_says_so(tmp_path: Path) -> None:
    assert message(tmp_path / "none") == f"{tmp_path / 'none'}: no such folder, and not a hub id (owner/name)"


def test_weights_that_are_not_finite_are_said_when_used(broken: Path, photo: Any) -> None:
    change_weights(broken / UNET, lambda weights: weights["conv_in.weight"].fill_(float("nan")))
    model = lotus.load(broken, "cpu", "float32")
    with pytest.raises(InputError, match="not finite"):
        model.annotate(photo, processing_res=64)


def test_the_same_checkpoint_is_loaded_once_until_its_files_change(broken: Path) -> None:
    first = lotus.load(broken, "cpu", "float32")
    assert lotus.load(str(broken), "cpu", torch.float32) is first
    change_weights(broken / UNET, lambda weights: weights["conv_in.bias"].add_(1))
    assert lotus.load(broken, "cpu", "float32") is not first


def test_a_loaded_model_does_not_change_with_its_file(broken: Path) -> None:
    model = lotus.load(broken, "cpu", "float32")
    before = model.unet.conv_in.bias.clone()
    with (broken / UNET).open("r+b") as file:
        file.seek(-300_000, os.SEEK_END)
        file.write(bytes(300_000))
    torch.testing.assert_close(model.unet.conv_in.bias, before, rtol=0, atol=0)


def test_old_names_of_attention_weights_are_understood(broken: Path) -> None:
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in load_file(broken / VAE).items():
        old = next((name.replace(f".{k}.", f".{v}.") for k, v in new.items() if f".{k}." in name), name)
        renamed[old] = tensor
    expected = read_vae(broken).state_dict()
    save_file(renamed, broken / "renamed.safetensors")
    shutil.move(broken / "renamed.safetensors", broken / VAE)
    assert any(".query." in name for name in renamed)
    for name, tensor in read_vae(broken).state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


def test_a_truncated_prompt_is_named(tmp_path: Path) -> None:
    save_file({"prompt": torch.zeros(2, 8)}, tmp_path / PROMPT)
    (tmp_path / PROMPT).write_bytes((tmp_path / PROMPT).read_bytes()[:-10])
    with pytest.raises(InputError, match=r"prompt\.safetensors: cannot be read: "):
        embed_prompt(tmp_path)


def test_tasks_are_read_from_names() -> None:
    assert task_of("jingheya/lotus-depth-g-v2-1-disparity") == "disparity"
    assert task_of("jingheya/lotus-depth-d-v1-0") == "depth"
    assert task_of("/models/depth/lotus-normal-d-v1-1/") == "normal"
    assert task_of("/models/depth/mine") is None


def test_devices_and_dtypes_that_do_not_exist_are_named(lotus_golden: Path) -> None:
    with pytest.raises(InputError, match="device 'cuda:99': not on this machine"):
        resolve_device("cuda:99")
    with pytest.raises(InputError, match="dtype 'int8', wanted auto, float32"):
        resolve_dtype("int8", torch.device("cpu"))
    assert find_checkpoint(lotus_golden / "checkpoint_d").name == "checkpoint_d"
