"""Meshes as Universal Scene Description, with Pixar's own library."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fields.errors import ConfigError
from fields.geometry.shapes import Mesh, TexturedMesh
from fields.io.atomic import write_atomically
from fields.io.images import png_of_bytes
from fields.io.shapes import linear


def write_usd(path: Path, mesh: Mesh, facts: dict[str, str]) -> None:
    """A stage with the mesh; `facts` become its custom data, and its up axis if that is Y or Z. One unit is declared to be a
    metre, since files of pictures do not know.

    Colours are linear light and leave the surface by themselves, as `displayColor` per vertex; or a texture, a PNG beside it,
    that glows.

    Raises:
        ConfigError: `usd-core` is not installed.
    """
    try:
        from pxr import Gf, Sdf, Usd, UsdGeom, Vt
    except ImportError:
        raise ConfigError("Writing USD needs usd-core: pip install 'fields[usd]'.") from None
    stage = Usd.Stage.CreateInMemory()
    if facts.get("up", "").lstrip("+") in ("Y", "Z"):
        UsdGeom.SetStageUpAxis(stage, facts["up"][-1])
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.GetRootLayer().customLayerData = dict(facts)
    shape = UsdGeom.Mesh.Define(stage, "/surface")
    stage.SetDefaultPrim(shape.GetPrim())
    shape.CreateSubdivisionSchemeAttr("none")
    shape.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(mesh.positions.astype(np.float32)))
    shape.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(mesh.faces), 3, np.int32)))
    shape.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(np.ascontiguousarray(mesh.faces, np.int32).reshape(-1)))
    shape.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(mesh.normals.astype(np.float32)))
    shape.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    low, high = (Gf.Vec3f(*map(float, edge)) for edge in (mesh.positions.min(0), mesh.positions.max(0)))
    shape.CreateExtentAttr(Vt.Vec3fArray([low, high]))
    primvars = UsdGeom.PrimvarsAPI(shape)
    if isinstance(mesh, TexturedMesh):
        picture, image = path.with_suffix(".png"), png_of_bytes(mesh.texture)
        write_atomically(picture, lambda file: file.write_bytes(image))
        upward = np.stack([mesh.uv[:, 0], 1 - mesh.uv[:, 1]], -1).astype(np.float32)
        st = primvars.CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex)
        st.Set(Vt.Vec2fArray.FromNumpy(upward))
        _bind_texture(stage, shape, picture.name)
    else:
        colours = linear(mesh.colours / 255).astype(np.float32)
        shown = primvars.CreatePrimvar("displayColor", Sdf.ValueTypeNames.Color3fArray, UsdGeom.Tokens.vertex)
        shown.Set(Vt.Vec3fArray.FromNumpy(colours))
    write_atomically(path, lambda file: stage.GetRootLayer().Export(str(file)))


def _bind_texture(stage, shape, picture: str) -> None:
    """A material of UsdPreviewSurface that glows with the picture."""
    from pxr import Sdf, UsdShade

    material = UsdShade.Material.Define(stage, "/surface/material")
    surface, texture, reader = (
        UsdShade.Shader.Define(stage, f"/surface/material/{name}") for name in ("preview", "texture", "reader")
    )
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
    texture.CreateIdAttr("UsdUVTexture")
    texture.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(f"./{picture}")
    texture.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set("sRGB")
    texture.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(reader.ConnectableAPI(), "result")
    surface.CreateIdAttr("UsdPreviewSurface")
    surface.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f).Set((0.0, 0.0, 0.0))
    surface.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(1.0)
    glow = surface.CreateInput("emissiveColor", Sdf.ValueTypeNames.Color3f)
    glow.ConnectToSource(texture.ConnectableAPI(), "rgb")
    material.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
    UsdShade.MaterialBindingAPI.Apply(shape.GetPrim()).Bind(material)
