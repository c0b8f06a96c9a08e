"""A network learns a scene from what its photos told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lotus.data import Told, TrainingSample
from lotus.predictor import LotusPredictor
from pipelines.graph import build_graph
from pipelines.multi_view import MultiView
from pipelines.predictors import FromFiles
from pipelines.runner import run
from pipelines.sources import find_photos
from pipelines.stages import GivenModel, InterpolatePoints, LearnScene, Match, Predict, PredictLearnt
from recon.scene import Prediction
from tests.pipelines.rooms import Room


def test_a_network_learns_the_scene(room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LearnScene, "helped", 0.9)  # a few steps have to do
    match = Match(neighbours=2, max_size=160)
    pipeline = MultiView(cameras=GivenModel(room.sparse), match=match, learn_steps=8)
    outcome = run(pipeline, find_photos(room.photos, tmp_path), {}, until="prediction")
    learnt = outcome.get("learnt")
    assert learnt.has_learnt
    assert learnt.after < 0.9 * learnt.before
    before, after = (
        np.mean([_affine_error(outcome.get(name, view), room, view) for view in outcome.views(name)])
        for name in ("early_prediction", "prediction")
    )
    assert after < 0.8 * before


def test_a_network_that_learns_noise_stays_as_it_was() -> None:
    rng, size = np.random.default_rng(0), (64, 96)
    told = {}
    for name in ("a", "b"):
        image = rng.integers(0, 255, (*size, 3)).astype(np.uint8)
        depth = np.exp(0.5 * rng.standard_normal(size)).astype(np.float32)
        depth[:20] = 0  # or there were nothing left to learn
        sample = TrainingSample(name, image, depth, np.zeros((*size, 3), np.float32), np.zeros(size, bool))
        told[name] = Told(sample, np.indices(size)[1] % 24 < 8)
    stage = LearnScene(LotusPredictor("lotus-tiny", device="cpu"), steps=2)
    learnt = stage(told=told, progress=lambda *_: None)
    assert not learnt.has_learnt
    assert learnt.before is not None
    early = Prediction(np.ones(size, np.float32), "affine_disparity")
    predict = PredictLearnt(stage.predictor)
    assert predict(image=told["a"].sample.image, learnt=learnt, early_prediction=early) is early
    untold = {name: replace(each, held_out=np.ones(size, bool)) for name, each in told.items()}
    assert stage(told=untold, progress=lambda *_: None).before is None


def _affine_error(prediction: Prediction, room: Room, view: str) -> float:
    """Returns the mean relative error of depth after the best scale and shift of disparity."""
    values, truth = prediction.values, room.capture.depth_maps[view].depth
    rows, columns = (
        ((np.arange(count) + 0.5) * full / count).astype(int)
        for count, full in zip(values.shape, truth.shape, strict=True)
    )
    disparity = 1 / truth[rows][:, columns]
    found = np.polyval(np.polyfit(values.ravel(), disparity.ravel(), 1), values)
    return float(np.mean(np.abs(disparity / np.maximum(found, 0.05) - 1)))


def test_only_a_small_joint_network_learns_a_scene(tmp_path: Path) -> None:
    published = Predict(LotusPredictor("jingheya/lotus-depth-d-v2-0-disparity"))
    for predict in (InterpolatePoints(), FromFiles(tmp_path), published):
        assert MultiView(predict=predict).learner is None
    assert MultiView(learn_scene=False).learner is None
    assert MultiView().learner is not None


def test_planes_are_those_of_what_was_measured_before_learning() -> None:
    for pipeline in (MultiView(), MultiView(second_pass=True)):
        graph = build_graph(pipeline.stages)
        assert "early_measured" in graph.predecessors("planes")
        assert "measured" not in graph.predecessors("planes")


def test_what_the_photos_tell_themselves_need_not_be_learnt() -> None:
    size = (64, 96)
    sample = TrainingSample(
        "a",
        np.zeros((*size, 3), np.uint8),
        np.ones(size, np.float32),
        np.zeros((*size, 3), np.float32),
        np.zeros(size, bool),
    )
    told = {"a": Told(sample, np.zeros(size, bool))}
    learnt = LearnScene(LotusPredictor("lotus-tiny", device="cpu"))(told=told, progress=lambda *_: None)
    assert not learnt.has_learnt
    assert not learnt.is_needed
