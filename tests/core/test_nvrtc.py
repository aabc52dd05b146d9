import pytest

from fields.core import _backend, _nvrtc
from fields.errors import BackendError

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")


@pytest.fixture(scope="module", autouse=True)
def nvrtc():
    try:
        return _nvrtc.find_nvrtc()
    except BackendError as error:
        pytest.skip(str(error))


# Double serves derivative checks, and its source is the same: one architecture stands for all.
@pytest.mark.parametrize(("architecture", "scalar"), [*((a, "float") for a in ARCHITECTURES), ("sm_75", "double")])
def test_every_kernel_compiles(architecture, scalar):
    want = {f"{k}_{'f32' if scalar == 'float' else 'f64'}" for k in _backend.kernels() if not k.startswith("decoder_")}
    assert _nvrtc.entries(_nvrtc.compile_kernels(architecture, scalar)) == want and len(want) > 20


def test_the_compilers_words_reach_the_user(monkeypatch):
    monkeypatch.setattr(_nvrtc, "source", lambda: "__global__ void broken() { int x = ; }")
    with pytest.raises(BackendError, match="expected an expression"):
        _nvrtc.compile_kernels("sm_80")
