import json
import re
from pathlib import Path

import numpy as np
import pytest

from pipelines.frame import capture_frame
from pipelines.report import RunRecord, ViewRecord, write_report
from pipelines.report.page import flat, format_value
from pipelines.report.pictures import fit_plot, is_room
from recon.alignment import Fit
from recon.geometry import look_at
from recon.raycasting import RayCaster
from recon.scene import Camera, DepthMap, Mesh, Prediction, Scene, SparseCloud, SparseDepth, View

NASTY = "<script>alert(\"1\")</script> & 'co'.jpg"
ESCAPED = "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#x27;co&#x27;.jpg"
CAMERA = Camera.from_fov(32, 24, 60.0)
DOWN = np.array([0.0, 1.0, 0.0])
STEPS = [
    {
        "artifact": "mesh",
        "stage": "ExtractMesh",
        "seconds": 2.5,
        "computed": 1,
        "reused": 0,
        "peak_memory_bytes": 3 << 30,
    },
    {
        "artifact": "aligned",
        "stage": "Align",
        "seconds": 0.5,
        "computed": 3,
        "reused": 2,
        "peak_memory_bytes": 1 << 30,
    },
]


def make_fit(held_out_error: float = 0.02) -> Fit:
    x = np.linspace(0.1, 0.9, 30)
    target = 2 * x + 0.3
    target[3] = 9.0
    x[7] = np.nan
    return Fit(
        space="disparity",
        scale=2.0,
        shift=0.3,
        covariance=np.eye(2) * 1e-4,
        inliers=(np.arange(30) != 3) & (np.arange(30) != 7),
        predicted=x,
        target=target,
        median_error=0.01,
        held_out_errors=np.full(30, held_out_error),
        corrected=False,
        plain_held_out_error=held_out_error,
    )


def make_record(name: str, fit: Fit | None = None) -> ViewRecord:
    depth = np.full((24, 32), 2.0, np.float32)
    depth[:6] = 0
    normals = np.zeros((24, 32, 3), np.float32)
    normals[..., 2] = -1
    values = np.linspace(0, 1, 24 * 32, dtype=np.float32).reshape(24, 32)
    values[0, 0] = np.nan
    return ViewRecord(
        name=name,
        image=np.full((24, 32, 3), 120, np.uint8),
        prediction=Prediction(values, "affine_disparity", normals),
        depth_map=DepthMap(CAMERA, depth, normals, 0.1 * depth),
        fit=fit or make_fit(),
        anchors=SparseDepth(np.ones((30, 2)), np.ones(30), np.ones(30)),
    )


def ring(names: list[str], radius: float = 3.0, outward: bool = False) -> tuple[View, ...]:
    angles = 2 * np.pi * np.arange(len(names)) / len(names)
    centers = radius * np.stack([np.sin(angles), np.full(len(names), -0.2), np.cos(angles)], axis=1)
    targets = 2 * centers if outward else np.zeros_like(centers)
    return tuple(
        View(name, CAMERA, look_at(center, target, DOWN))
        for name, center, target in zip(names, centers, targets, strict=True)
    )


def box(half: float) -> Mesh:
    corners = np.array([[x, y, z] for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)]) * half
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], np.int64)
    return Mesh(corners, faces, colors=np.full((8, 3), 90, np.uint8))


def make_scene(names: list[str]) -> Scene:
    points = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    cloud = SparseCloud(
        points, np.full((50, 3), 99, np.uint8), np.ones(50), np.zeros((0, 2), np.int64), np.zeros((0, 2))
    )
    return Scene(ring(names), cloud)


def report_of(folder: Path, views: list[ViewRecord], **changes: object) -> tuple[dict, str]:
    arguments: dict = {
        "title": "Cup",
        "notes": ["Small model."],
        "summary": {},
        "dropped": {},
        "steps": [],
        "options": {},
    }
    write_report(folder, RunRecord(**(arguments | changes)), iter(views))
    return json.loads((folder / "report.json").read_text()), (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str, Path]:
    names = [NASTY, "b.jpg", "sub/c.jpg"]
    folder = tmp_path_factory.mktemp("full")
    report, html = report_of(
        folder,
        [make_record(name) for name in names],
        dropped={"blurred<1>.jpg": "3 matches & no more"},
        steps=STEPS,
        scene=make_scene(names),
        mesh=box(1.0),
        options={"fuse": {"voxel_size": None}, "until": "mesh", "folder": Path("in/photos")},
        summary={"predictor": "Lotus <small>", "seconds": 2.0},
    )
    return report, html, folder


def test_json_holds_what_was_put_in(full):
    report = full[0]
    assert report["title"] == "Cup"
    assert report["notes"] == ["Small model."]
    assert report["dropped"] == {"blurred<1>.jpg": "3 matches & no more"}
    assert report["steps"] == STEPS
    assert report["options"] == {"fuse": {"voxel_size": None}, "until": "mesh", "folder": "in/photos"}
    assert "numpy" in report["versions"]


def test_json_counts_what_is_not_given_and_keeps_what_is(full):
    assert full[0]["summary"] == {
        "views_used": 3,
        "photos": 4,
        "sparse_points": 50,
        "vertices": 8,
        "faces": 12,
        "held_out_error": 0.02,
        "seconds": 2.0,
        "peak_memory_bytes": 3 << 30,
        "predictor": "Lotus <small>",
    }


def test_json_of_a_view_holds_fit_coverage_and_sigma(full):
    view = full[0]["views"][0]
    assert view["name"] == NASTY
    assert view["registered"] is True
    assert view["anchors"] == 30
    assert view["coverage"] == 0.75
    assert view["median_relative_sigma"] == pytest.approx(0.1)
    assert view["fit"] == {
        "space": "disparity",
        "scale": 2.0,
        "shift": 0.3,
        "covariance": [[1e-4, 0], [0, 1e-4]],
        "anchors": 29,
        "inliers": 28,
        "median_error": 0.01,
        "held_out_error": 0.02,
        "corrected": False,
        "plain_held_out_error": 0.02,
    }


def test_page_shows_every_name_escaped(full):
    html = full[1]
    assert f"<h3>{ESCAPED}</h3>" in html
    assert "<h3>sub/c.jpg</h3>" in html
    assert "<script" not in html
    assert "Lotus &lt;small&gt;" in html


def test_page_shows_dropped_photos_with_their_reason(full):
    assert "<td>blurred&lt;1&gt;.jpg</td><td>3 matches &amp; no more</td>" in full[1]


def test_page_fetches_nothing(full):
    addresses = re.findall(r'(?:src|href)="([^"]*)"', full[1]) + re.findall(r"url\(([^)]*)\)", full[1])
    assert addresses
    assert [address for address in addresses if not address.startswith(("data:", "#"))] == []
    assert "http" not in re.sub(r"data:[^\"]*", "", full[1])


def test_equal_runs_write_equal_bytes_and_no_other_files(tmp_path):
    for name in ("one", "two"):
        report_of(
            tmp_path / name, [make_record("a.jpg")], scene=make_scene(["a.jpg"]), mesh=box(1.0), steps=STEPS
        )
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["report.html", "report.json"]
    for name in ("report.html", "report.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_view_of_which_nothing_is_known_has_all_keys(tmp_path, full):
    report, html = report_of(tmp_path, [ViewRecord("a.jpg")])
    assert report["views"][0].keys() == full[0]["views"][0].keys()
    assert report["views"][0]["registered"] is False
    assert "<h3>a.jpg</h3>" in html


def test_a_run_without_views_says_so(tmp_path):
    report, html = report_of(tmp_path, [], mesh=Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64)))
    assert report["views"] == []
    assert report["summary"]["views_used"] == 0
    assert html.endswith("</html>\n")


def test_single_photo_mesh_without_scene_has_pictures(tmp_path):
    _, html = report_of(tmp_path, [make_record("a.jpg")], mesh=box(1.0))
    assert html.count('<figure class="mesh">') == 8


def test_nan_becomes_null_and_a_dash(tmp_path):
    empty = DepthMap(
        CAMERA,
        np.zeros((24, 32), np.float32),
        np.zeros((24, 32, 3), np.float32),
        np.zeros((24, 32), np.float32),
    )
    unknown = Prediction(np.full((24, 32), np.nan, np.float32), "affine")
    record = ViewRecord("a.jpg", None, unknown, empty, make_fit(held_out_error=np.nan), None)
    report, html = report_of(tmp_path, [record], summary={"score": np.float32(np.nan), "best": np.inf})
    assert report["views"][0]["held_out_error"] is None
    assert report["summary"]["score"] is None
    assert report["summary"]["best"] is None
    assert report["views"][0]["coverage"] == 0
    assert "nan" not in re.sub(r"data:[^\"]*", "", html).lower()


def test_a_long_run_pictures_the_first_views_only(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.report.writing.MAX_PICTURED_VIEWS", 2)
    _, html = report_of(tmp_path, [make_record(f"{row}.jpg") for row in range(4)])
    assert html.count("<article") == 4
    assert html.count('alt="photo"') == 2


def test_views_are_read_one_at_a_time(tmp_path):
    alive: list[int] = []

    class Counted(np.ndarray):
        def __del__(self) -> None:
            alive.remove(1) if self.base is None else None

    def records():
        for row in range(3):
            image = Counted((24, 32, 3), np.uint8)
            image[:] = 7
            alive.append(1)
            assert len(alive) <= 2
            yield ViewRecord(f"{row}.jpg", image)

    run = RunRecord(title="", notes=[], summary={}, dropped={}, steps=[], options={})
    write_report(tmp_path, run, records())
    assert len(json.loads((tmp_path / "report.json").read_text())["views"]) == 3


def test_fit_plot_draws_every_usable_anchor_and_the_line():
    svg = fit_plot(make_fit())
    dots = {
        name: re.search(f'class="{name}" d="([^"]*)"', svg)[1].count("h0") for name in ("inlier", "outlier")
    }
    assert dots == {"inlier": 28, "outlier": 1}
    assert 'class="line"' in svg


def test_fitted_line_passes_through_exact_inliers():
    svg = fit_plot(make_fit())
    u0, v0, u1, v1 = map(float, re.search(r'class="line" d="M(\S+) (\S+)L(\S+) (\S+)"', svg).groups())
    dots = np.array(re.findall(r"M(\S+) (\S+)h0", re.search('class="inlier" d="([^"]*)"', svg)[1]), float)
    on_line = v0 + (dots[:, 0] - u0) / (u1 - u0) * (v1 - v0)
    np.testing.assert_allclose(dots[:, 1], on_line, atol=0.2)  # coordinates are rounded to 0.1 px


def test_upright_direction_of_a_ring_that_looks_down_is_the_rings_axis():
    frame = capture_frame(ring([f"{row}" for row in range(3)], radius=3.0))
    np.testing.assert_allclose(frame.axes[1], DOWN, atol=1e-9)
    assert frame.from_all_sides
    np.testing.assert_allclose(frame.axes @ frame.axes.T, np.eye(3), atol=1e-12)


def test_cameras_inside_a_box_are_in_a_room_and_around_it_are_not():
    names = [f"{row}" for row in range(5)]
    inside, around = ring(names, radius=0.5), ring(names, radius=4.0)
    assert is_room(RayCaster(box(2.0)), inside, capture_frame(inside))
    assert not is_room(RayCaster(box(1.0)), around, capture_frame(around))


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("seconds", 0.25, "0.25 s"),
        ("seconds", 3725, "1 h 02 min"),
        ("peak_memory_bytes", 3 << 29, "1.5 GiB"),
        ("held_out_error", 0.01234, "1.23 %"),
        ("faces", 1234567, "1\u202f234\u202f567"),
        ("flag", True, "True"),
        ("x", None, "-"),
    ],
)
def test_values_are_written_in_their_unit(key, value, text):
    assert format_value(key, value) == text


def test_nested_options_get_dotted_names():
    assert flat({"a": {"b": {"c": 1}}, "d": {}}) == {"a.b.c": 1, "d": {}}
