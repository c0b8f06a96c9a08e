from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from recon.errors import InputError
from recon.io.images import extract_frames, find_photos, is_video, read_photo
from recon.io.images.video import choose_frames

WIDTH, HEIGHT = 192, 128


def texture() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, 600, 3)).astype(np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX)


def write_video(path: Path, shifts: list[float], blurred: set[int] = frozenset()) -> Path:
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 30, (WIDTH, HEIGHT))
    for number, shift in enumerate(shifts):
        frame = texture()[:, round(shift) : round(shift) + WIDTH]
        writer.write(cv2.GaussianBlur(frame, (0, 0), 3) if number in blurred else frame)
    writer.release()
    return path


def numbers(paths: list[Path]) -> list[int]:
    return [int(path.stem.removeprefix("frame_")) for path in paths]


def pan(frames: int, step: float = 4) -> list[float]:
    return [step * number for number in range(frames)]


@pytest.mark.parametrize("ending", [".avi", ".mp4"])
def test_a_steady_pan_gives_evenly_spaced_frames(tmp_path, ending):
    video = write_video(tmp_path / f"pan{ending}", pan(60))
    kept = numbers(extract_frames(video, tmp_path / "frames", max_frames=8))
    assert len(kept) == 8
    assert np.abs(np.diff(kept) - 7.5).max() <= 5.5  # 7.5 frames each; within the inner 60 % of a stretch


def test_blurred_frames_are_passed_over(tmp_path):
    blurred = set(range(60)) - {5, 15, 25, 35, 45, 55}
    video = write_video(tmp_path / "a.avi", pan(60), blurred)
    kept = set(numbers(extract_frames(video, tmp_path / "frames", max_frames=6)))
    assert len(kept & blurred) == 0


def test_a_camera_that_stands_still_gives_one_frame(tmp_path):
    assert len(extract_frames(write_video(tmp_path / "a.avi", [0] * 30), tmp_path / "frames")) == 1


def test_a_pause_adds_no_frames(tmp_path):
    moving = write_video(tmp_path / "a.avi", pan(40))
    pausing = write_video(tmp_path / "b.avi", pan(20) + [76.0] * 30 + [76 + way for way in pan(21)][1:])
    first = extract_frames(moving, tmp_path / "a")
    second = extract_frames(pausing, tmp_path / "b")
    assert abs(len(first) - len(second)) <= 1
    pictures = [read_photo(path) for path in second]
    assert min(np.abs(a.astype(int) - b).mean() for a, b in pairwise(pictures)) > 5


def test_frames_are_those_of_the_video_in_rgb_and_found_as_photos(tmp_path):
    video = write_video(tmp_path / "a.avi", pan(20))
    paths = extract_frames(video, tmp_path / "frames", max_frames=3)
    assert find_photos(tmp_path / "frames") == paths
    shift = 4 * numbers(paths)[1]
    expected = texture()[:, shift : shift + WIDTH, ::-1].astype(int)
    assert np.abs(read_photo(paths[1]) - expected).mean() < 8  # MJPG and JPEG; swapped channels give 40


def test_two_runs_give_the_same_bytes_and_old_frames_are_gone(tmp_path):
    video = write_video(tmp_path / "a.avi", pan(30))
    first = [path.read_bytes() for path in extract_frames(video, tmp_path / "frames", max_frames=9)]
    extract_frames(video, tmp_path / "frames", max_frames=4)
    assert len(find_photos(tmp_path / "frames")) == 4
    again = [path.read_bytes() for path in extract_frames(video, tmp_path / "frames", max_frames=9)]
    assert again == first


def test_progress_rises_to_its_total(tmp_path):
    seen = []
    video = write_video(tmp_path / "a.avi", pan(10))
    extract_frames(video, tmp_path / "frames", on_progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, 21))
    assert {total for _, total in seen} == {20}


def test_what_is_no_video_is_said_in_one_line(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    for name, fault in [("text.mp4", "cannot be decoded"), ("absent.mp4", "no such file")]:
        with pytest.raises(InputError, match=fault):
            extract_frames(tmp_path / name, tmp_path / "frames")


def test_a_video_is_known_by_its_ending(tmp_path):
    for name in ["a.MP4", "b.jpg"]:
        (tmp_path / name).touch()
    assert [is_video(tmp_path / name) for name in ["a.MP4", "b.jpg", "absent.mp4"]] == [True, False, False]


def test_of_each_stretch_of_motion_the_sharpest_frame_is_chosen():
    sharpness = np.zeros(100)
    sharpness[[9, 30, 52, 61, 88]] = [2, 1, 1, 3, 1]
    assert choose_frames(sharpness, np.arange(100) / 99, 5).tolist() == [9, 30, 52, 64, 88]


def test_fewer_frames_are_kept_where_motion_is_small():
    motion = np.linspace(0, 0.2, 50)
    assert len(choose_frames(np.ones(50), motion, 200)) == 5  # 0.2 / 0.04
