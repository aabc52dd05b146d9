import subprocess
import sys


def test_importing_the_data_layer_is_light():
    """Nothing beyond torch, numpy and Pillow is loaded until a picture is drawn or a report printed."""
    heavy = ("matplotlib", "rich", "scipy", "imageio")
    code = f"import fields.data, sys; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
