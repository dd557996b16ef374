"""Draws people, sticks and rooms with OpenGL through EGL (the software renderer will do)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import UserError
from stages.skeleton import TIP
from training.synth.body import Posed
from training.synth.camera import Camera
from training.synth.dress import Garment, Outfit, normals
from training.synth.rig import Rest, load_rig
from training.synth.rotations import Array
from training.synth.shaders import BODY_FRAGMENT, BODY_VERTEX, DEPTH_FRAGMENT, DEPTH_VERTEX, ROOM_FRAGMENT, ROOM_VERTEX

SHADOW_PX = 1024
SAMPLES = 4  # of a pixel
STICK_SIDES = 12


@dataclass(frozen=True)
class Light:
    """One sun or lamp with a shadow, a second one without, and light from above and below."""

    direction: Array
    colour: Array
    fill_direction: Array
    fill_colour: Array
    sky: Array
    ground: Array


@dataclass(frozen=True)
class Stick:
    """Look of a stick: radius in metres, colours, joints of the cane a metre, tape from the butt."""

    radius_m: float
    colour: tuple[float, float, float]
    second: tuple[float, float, float]
    nodes_per_m: float
    tape_m: float
    tip_band_m: float
    wear: float = 0.0  # 0 new to 1 scuffed all over


class _Uploaded(NamedTuple):
    """What lies in the graphics memory for one picture."""

    buffers: list[Any]
    bodies: list[Any]
    flats: list[Any]


class Renderer:
    """One OpenGL context; `draw` returns an RGBA picture and the depth of body and stick."""

    def __init__(self) -> None:
        os.environ.setdefault("LP_NUM_THREADS", "1")
        load_rig()  # first: torch and warp crash when they are imported after the software renderer's LLVM
        try:
            import moderngl

            self.gl: Any = moderngl
            # EGL hands out OpenGL's functions too; left alone, moderngl wants another library that the system may lack.
            self.context: Any = self.gl.create_context(standalone=True, backend="egl", require=330, libgl="libEGL.so.1")
        except Exception as error:  # moderngl raises plain Exception when EGL is missing
            raise UserError(
                f"cannot open an OpenGL context through EGL ({error}); install libegl1 and libgl1-mesa-dri"
            ) from error
        self.body = self.context.program(vertex_shader=BODY_VERTEX, fragment_shader=BODY_FRAGMENT)
        self.room = self.context.program(vertex_shader=ROOM_VERTEX, fragment_shader=ROOM_FRAGMENT)
        self.flat = self.context.program(vertex_shader=DEPTH_VERTEX, fragment_shader=DEPTH_FRAGMENT)
        self.shadow_map = self.context.depth_texture((SHADOW_PX, SHADOW_PX))
        self.shadow_map.compare_func = ""
        self.shadow = self.context.framebuffer(depth_attachment=self.shadow_map)
        self.photo = self.context.texture((4, 4), 3, bytes(48))
        self.sizes: dict[tuple[int, int], tuple[Any, Any, Any, Any]] = {}
        self.faces = self.context.buffer(load_rig().faces.astype("i4").tobytes())
        self.static: Any = None
        self.rest: Rest | None = None

    def _targets(self, width: int, height: int) -> tuple[Any, Any, Any, Any]:
        if (width, height) not in self.sizes:
            c, size = self.context, (width, height)
            many = c.framebuffer(
                [c.renderbuffer(size, 4, samples=SAMPLES)], c.depth_renderbuffer(size, samples=SAMPLES)
            )
            single = c.framebuffer([c.renderbuffer(size, 4)])
            depth = c.depth_texture(size)
            depth.compare_func = ""
            self.sizes[(width, height)] = (many, single, depth, c.framebuffer(depth_attachment=depth))
        return self.sizes[(width, height)]

    def dress(self, rest: Rest, garment: Garment, outfit: Outfit) -> None:
        """Upload what stays the same for one person."""
        if self.static is not None:
            self.static.release()
        data = np.concatenate([rest.vertices, garment.region, garment.head, garment.grain[:, None]], axis=1).astype(
            "f4"
        )
        self.static = self.context.buffer(data.tobytes())
        self.rest, self.garment, self.outfit = rest, garment, outfit

    def set_photo(self, picture: NDArray[np.uint8]) -> None:
        """Photograph (h, w, 3) RGB that pattern 7 of a room shows."""
        self.photo.release()
        h, w = picture.shape[:2]
        self.photo = self.context.texture((w, h), 3, np.ascontiguousarray(picture[::-1]).tobytes(), alignment=1)

    def draw(
        self, posed: Posed, stick: Stick | None, camera: Camera, light: Light, room: Array | None
    ) -> tuple[NDArray[np.uint8], Array]:
        """RGBA (h, w, 4), alpha 0 where nothing is, and depth in metres of body and stick (h, w), inf elsewhere."""
        many, single, depth_texture, depth_buffer = self._targets(camera.width, camera.height)
        things = self._upload(posed, stick)
        self.context.enable(self.gl.DEPTH_TEST)
        projection, view = camera.projection_matrix(), camera.view_matrix()
        shadow_matrix = _shadow_matrix(light.direction)
        self._depths(self.shadow, shadow_matrix, things.flats)
        self._depths(depth_buffer, projection @ view, things.flats)
        depth = np.frombuffer(depth_texture.read(), "f4").reshape(camera.height, camera.width)[::-1]
        many.use()
        many.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
        self._light({"P": projection, "V": view, "LV": shadow_matrix}, light)
        self.body["eye"].value = tuple(map(float, camera.eye))
        self._outfit_uniforms(stick)
        self.shadow_map.use(0)
        self.photo.use(1)
        self.context.enable(self.gl.CULL_FACE)
        for array in things.bodies:
            array.render()
        self.context.disable(self.gl.CULL_FACE)
        if room is not None:
            self._draw_room(room)
        self.context.copy_framebuffer(single, many)
        picture = np.frombuffer(single.read(components=4), np.uint8).reshape(camera.height, camera.width, 4)[::-1]
        for thing in (*things.bodies, *things.flats, *things.buffers):
            thing.release()
        return picture, _metres(depth, projection)

    def _upload(self, posed: Posed, stick: Stick | None) -> _Uploaded:
        """Body and stick, once with all that colours need and once bare for depths."""
        c = self.context
        vertices = posed.vertices + normals(posed.vertices) * self.garment.offset_m[:, None]
        moving = np.concatenate([vertices, normals(vertices)], axis=1).astype("f4")
        buffers = [c.buffer(moving.tobytes())]
        layout = [(buffers[0], "3f 3f", "p", "n"), (self.static, "3f 4f 4f 1f", "rest", "region", "head", "grain")]
        bodies = [c.vertex_array(self.body, layout, self.faces)]
        flats = [c.vertex_array(self.flat, [(buffers[0], "3f 12x", "p")], self.faces)]
        if stick is not None:
            data = stick_mesh(posed, stick)
            buffers.append(c.buffer(data.astype("f4").tobytes()))
            names = ("p", "n", "rest", "region", "head", "grain")
            bodies.append(c.vertex_array(self.body, [(buffers[-1], "3f 3f 3f 4f 4f 1f", *names)]))
            flats.append(c.vertex_array(self.flat, [(buffers[-1], "3f 60x", "p")]))
        return _Uploaded(buffers, bodies, flats)

    def _depths(self, target: Any, matrix: Array, flats: list[Any]) -> None:
        target.use()
        target.clear(depth=1.0)
        _write(self.flat, "M", matrix)
        for array in flats:
            array.render()

    def _light(self, matrices: dict[str, Array], light: Light) -> None:
        for program in (self.body, self.room):
            for name, matrix in matrices.items():
                _write(program, name, matrix)
            for name, value in (("L", light.direction), ("Lc", light.colour), ("F", light.fill_direction),
                                ("Fc", light.fill_colour), ("sky", light.sky), ("gnd", light.ground)):  # fmt: skip
                program[name].value = tuple(map(float, value))
            program["sm"].value = 0

    def _draw_room(self, room: Array) -> None:
        self.room["photo"].value = 1
        buffer = self.context.buffer(room.astype("f4").tobytes())
        array = self.context.vertex_array(self.room, [(buffer, "3f 3f 2f 3f 3f 1f", "p", "n", "uv", "c1", "c2", "pat")])
        array.render()
        array.release()
        buffer.release()

    def _outfit_uniforms(self, stick: Stick | None) -> None:
        o, p = self.outfit, self.body
        for name, colour in (("skin", o.skin), ("hair", o.hair), ("shirt", o.shirt), ("shirt2", o.shirt_second),
                             ("trous", o.trousers), ("trous2", o.trousers_second), ("shoe", o.shoes),
                             ("belt", o.belt)):  # fmt: skip
            p[name].value = colour
        p["cut"].value = (o.sleeve, o.trouser, o.hem, o.collar)
        p["pattern"].value = (float(o.shirt_pattern), float(o.trouser_pattern), o.pattern_scale, o.hairline)
        p["flags"].value = (float(o.belted), float(o.barefoot))
        if stick is not None:
            p["stick1"].value, p["stick2"].value = stick.colour, stick.second
            p["stickp"].value = (stick.nodes_per_m, stick.tape_m, stick.tip_band_m, stick.wear)


def stick_mesh(posed: Posed, stick: Stick) -> Array:
    """Triangles of a stick from butt to tip; `rest` holds metres from the butt, metres to the tip, and the angle."""
    a, b = posed.butt, posed.keypoints[TIP]
    d = b - a
    length = float(np.linalg.norm(d))
    d = d / length
    x = np.cross(d, (0.3, 0.5, 0.8))
    x /= np.linalg.norm(x)
    y = np.cross(d, x)
    t = np.linspace(0, 2 * np.pi, STICK_SIDES + 1)
    ring = np.cos(t)[:, None] * x + np.sin(t)[:, None] * y
    rows = []

    def corner(point: Array, normal: Array, s: float, angle: float) -> Array:
        return np.concatenate([point, normal, [s, length - s, angle], np.zeros(4), [0, 0, 0, 3, 0]])

    r = stick.radius_m
    for k in range(STICK_SIDES):
        quad = [(a, k, 0.0), (a, k + 1, 0.0), (b, k + 1, length), (a, k, 0.0), (b, k + 1, length), (b, k, length)]
        rows += [corner(p + r * ring[i], ring[i], s, t[i]) for p, i, s in quad]
        for p, n, s in ((a, -d, 0.0), (b, d, length)):
            rows += [corner(p, n, s, 0.0), corner(p + r * ring[k], n, s, t[k]), corner(p + r * ring[k + 1], n, s, t[k])]
    return np.array(rows)


def _write(program: Any, name: str, matrix: Array) -> None:
    program[name].write(matrix.T.astype("f4").tobytes())


def _shadow_matrix(direction: Array) -> Array:
    """Orthographic view from the light over the performer."""
    eye = np.array([0.0, 0.0, 0.9]) + direction * 6
    camera = Camera(eye, np.array([0.0, 0.0, 0.9]) + 1e-3, 50.0, 4, 4)
    half, near, far = 1.9, 1.0, 12.0
    ortho = np.diag([1 / half, 1 / half, -2 / (far - near), 1.0])
    ortho[2, 3] = -(far + near) / (far - near)
    return np.asarray(ortho @ camera.view_matrix())


def _metres(z: NDArray[np.float32], projection: Array) -> Array:
    ndc = z.astype(float) * 2 - 1
    return np.where(z >= 1.0, np.inf, projection[2, 3] / (ndc + projection[2, 2]))
