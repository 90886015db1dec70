"""Files of weights, kind and hostile."""

import io
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest

from uniface_jax.errors import UserError
from uniface_jax.weights.state_files import _unwrapped, read_state, write_safetensors

STATE = {
    "conv1.weight": np.random.default_rng(0).normal(size=(2, 3, 1, 1)).astype(np.float32),
    "bn1.num_batches_tracked": np.array(5),
}


def assert_same(found, expected=STATE):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def refused(path):
    with pytest.raises(UserError) as caught:
        read_state(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_safetensors(tmp_path):
    path = tmp_path / "new" / "w.safetensors"
    write_safetensors(path, STATE, {"family": "release"})
    assert [entry.name for entry in path.parent.iterdir()] == ["w.safetensors"]
    assert_same(read_state(path))
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    assert "cannot be read as .safetensors weights" in refused(path)
    path.write_bytes((1 << 60).to_bytes(8, "little") + whole[8:])
    assert "cannot be read" in refused(path)


def test_transposed_arrays_are_written_as_they_look(tmp_path):
    turned = {"a": np.arange(6.0).reshape(2, 3).T}
    write_safetensors(tmp_path / "w.safetensors", turned, {})
    assert_same(read_state(tmp_path / "w.safetensors"), turned)


def test_bfloat16(tmp_path):
    import ml_dtypes

    values = np.array([1.0, -2.5], ml_dtypes.bfloat16)
    write_safetensors(tmp_path / "w.safetensors", {"a": values}, {})
    assert_same(read_state(tmp_path / "w.safetensors"), {"a": np.array([1, -2.5], np.float32)})


def test_npz(tmp_path):
    path = tmp_path / "w.npz"
    np.savez_compressed(path, **STATE)
    assert_same(read_state(path))
    path.write_bytes(path.read_bytes()[:-20])
    assert "cannot be read as .npz weights" in refused(path)


class Bomb:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_npz_with_a_pickle_runs_nothing(tmp_path):
    path, touched = tmp_path / "w.npz", tmp_path / "touched"
    np.savez(path, a=np.array([Bomb(touched)], object))
    assert "cannot be read" in refused(path)
    assert not touched.exists()


def _npy_header(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def test_npz_that_declares_more_than_it_has(tmp_path):
    path = tmp_path / "w.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", _npy_header((1 << 40,)) + bytes(64))
    assert "a.npy declares (1099511627776,) float32" in refused(path)


def test_npz_that_unfolds_without_end(tmp_path):
    path = tmp_path / "w.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", _npy_header((1 << 20,)) + bytes(1 << 22))
    assert "allowed are" in refused(path)


def test_other_files(tmp_path):
    assert "allowed are .pth, .pt, .ckpt, .tar, .safetensors, .npz" in refused(tmp_path / "w.h5")
    assert "no such file" in refused(tmp_path / "w.npz")
    (tmp_path / "w.npz").write_bytes(b"")
    assert "cannot be read" in refused(tmp_path / "w.npz")
    np.savez(tmp_path / "w.npz")
    assert "holds no tensor" in refused(tmp_path / "w.npz")


def test_pth_without_torch(tmp_path, monkeypatch):
    path, touched = tmp_path / "w.pth", tmp_path / "touched"
    path.write_bytes(pickle.dumps({"state_dict": Bomb(touched)}))
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install torch" in refused(path)
    assert not touched.exists()


def test_dicts_in_dicts_keep_the_names_of_all_keys(tmp_path):
    own, averaged = {"conv1.weight": np.ones(2)}, {"conv1.weight": np.zeros(2)}
    loop = {"epoch": 3}
    loop |= {"self": loop, "model": own, "ema": {"module": averaged}}
    deep = found = {}
    for _ in range(100_000):
        found["x"] = found = {}
    found["w"] = np.ones(1)
    loop["deep"] = deep
    assert set(_unwrapped(tmp_path, loop)) == {"model.conv1.weight", "ema.module.conv1.weight"}
    assert _unwrapped(tmp_path, own) is own


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("wrap", [None, "state_dict", "state_dict_backbone"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pth(torch, tmp_path, wrap, zipped):
    path = tmp_path / "w.pth"
    state = {name: torch.tensor(array) for name, array in STATE.items()}
    whole = {wrap: state, "epoch": 3} if wrap else state
    torch.save(whole, path, _use_new_zipfile_serialization=zipped)
    assert_same(read_state(path))
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    reason = "cut short" if zipped else ""
    assert f"cannot be read as .pth weights ({reason}" in refused(path)


@pytest.fixture
def release_module(torch, monkeypatch):
    """Builds modules of the classes that UniFace's release pickles, by their names there."""
    nn = torch.nn

    class IRBlock(nn.Module):
        def __init__(self):
            super().__init__()
            self.downsample = None
            self.bn0, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, bias=False)
            self.prelu = nn.PReLU(4)

    class Unified_Cross_Entropy_Loss(nn.Module):  # noqa: N801
        bias_shape = (1,)

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(7, 5))
            self.bias = nn.Parameter(torch.ones(self.bias_shape))
            self.register_buffer("weight_mom", torch.zeros(7, 5))

    class Normalized_BCE_Loss(Unified_Cross_Entropy_Loss):  # noqa: N801
        bias_shape = (1, 7)

    class LResNetXEIR(nn.Module):
        def __init__(self, loss=Unified_Cross_Entropy_Loss):
            super().__init__()
            self.layer1 = nn.Sequential(IRBlock(), IRBlock())
            self.dropout, self.bn5 = nn.Dropout(0.4), nn.BatchNorm1d(5)
            self.bn5.weight.requires_grad = False
            self.loss = loss()

        def forward(self, x):
            raise AssertionError("no code of a module may run")

    for name, classes in (
        ("backbone", (LResNetXEIR, IRBlock)),
        ("head", (Unified_Cross_Entropy_Loss, Normalized_BCE_Loss)),
    ):
        module = types.ModuleType(name)
        for each in classes:
            each.__module__, each.__qualname__ = name, each.__name__
            setattr(module, each.__name__, each)
        monkeypatch.setitem(sys.modules, name, module)
    return LResNetXEIR


@pytest.mark.parametrize("head", ["Unified_Cross_Entropy_Loss", "Normalized_BCE_Loss"])
def test_a_whole_module_of_the_release(torch, release_module, tmp_path, monkeypatch, head):
    module = release_module(getattr(sys.modules["head"], head))
    torch.save(module, tmp_path / "LResNet50EIR_28th_epoch.pth")
    torch.save(torch.nn.DataParallel(module), tmp_path / "parallel.pth")
    expected = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    for name in ("backbone", "head"):  # a user does not have them
        monkeypatch.delitem(sys.modules, name)
    assert "loss.weight_mom" in expected
    assert_same(read_state(tmp_path / "LResNet50EIR_28th_epoch.pth"), expected)
    prefixed = {f"module.{name}": array for name, array in expected.items()}
    assert_same(read_state(tmp_path / "parallel.pth"), prefixed)


def test_a_checkpoint_of_the_release(torch, release_module, tmp_path):
    module = release_module()
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    state = module.state_dict()
    whole = {"epoch": 28, "state_dict": state, "optimizer": optimizer.state_dict()}
    torch.save(whole, tmp_path / "LResNet50EIR_28th_checkpoint.tar")
    expected = {name: tensor.numpy() for name, tensor in state.items()}
    assert_same(read_state(tmp_path / "LResNet50EIR_28th_checkpoint.tar"), expected)


def test_hostile_modules_run_nothing(torch, release_module, tmp_path):
    path, touched = tmp_path / "w.pth", tmp_path / "touched"
    bomb = release_module()
    bomb.layer1[0].extra = Bomb(touched)  # beside the modules, where state_dict() never looks
    torch.save(bomb, path)
    assert "open, which is not run" in refused(path)
    assert not touched.exists()

    other = torch.nn.Sequential(torch.nn.Linear(2, 2))  # a class that is not the release's
    torch.save(other, path)
    assert "holds torch.nn.modules.linear.Linear, which is not run" in refused(path)

    hollow = release_module()
    hollow.__dict__ = {"training": False}
    torch.save(hollow, path)
    assert "the module is not built as PyTorch's modules are" in refused(path)

    endless = torch.nn.Sequential()
    endless._modules["0"] = endless
    torch.save(endless, path)
    assert "is not built as PyTorch's modules are" in refused(path)


def test_pth_of_half_precision(torch, tmp_path):
    tensors = {"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.ones(2, dtype=torch.float16)}
    torch.save(tensors, tmp_path / "w.pt")
    expected = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float16)}
    assert_same(read_state(tmp_path / "w.pt"), expected)


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_pth_runs_nothing(torch, tmp_path, zipped):
    path, touched = tmp_path / "w.pth", tmp_path / "touched"
    content = {"state_dict": {"a": Bomb(touched)}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert "open, which is not run" in refused(path)
    assert not touched.exists()
    path.write_bytes(pickle.dumps(content))
    assert "cannot be read" in refused(path)
    assert not touched.exists()


def test_pth_of_something_else(torch, tmp_path):
    path = tmp_path / "w.pth"
    torch.save([torch.ones(2)], path)
    assert "holds a list, expected a state dict" in refused(path)
    torch.save({"a": torch.ones(2), "epoch": 3}, path)
    assert "'epoch' is a int, not a tensor" in refused(path)
    torch.save({"a": torch.ones(200)}, path)
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "z.pth", "w", 8) as packed:
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member))
    assert "compressed" in refused(tmp_path / "z.pth")


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    metadata = {f"key{i}": "Mü" * i for i in range(20)}
    for name in ("a", "b"):
        write_safetensors(tmp_path / name, STATE, metadata)
        metadata = dict(reversed(metadata.items()))
    content = (tmp_path / "a").read_bytes()
    assert content == (tmp_path / "b").read_bytes()
    header = content[8 : 8 + int.from_bytes(content[:8], "little")].decode()
    assert header.index('"key0"') < header.index('"key1"') < header.index('"key10"')
    (tmp_path / "a").rename(tmp_path / "a.safetensors")
    assert_same(read_state(tmp_path / "a.safetensors"))
