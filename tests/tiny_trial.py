"""A trial that takes a second: two domains of 16-pixel images in the fixture `tiny_root`."""

TINY = {
    "data.benchmark": "image_folder",
    "data.source": "plain",
    "data.target": "inverted",
    "data.image_size": 16,
    "data.resize": 16,
    "data.holdout": 0.25,
    "views.crop_scale": (0.8, 1.0),
    "views.strong": "colour_affine",
    "model.backbone": "lenet",
    "model.weights": "none",
    "model.hidden_dim": 16,
    "model.projection_dim": 8,
    "optim.steps": 12,
    "optim.warmup_steps": 2,
    "optim.batch_size": 8,
    "optim.learning_rate": 0.05,
    "optim.encoder_factor": 1.0,
    "losses.threshold": 0.4,
    "evaluate_every": 4,
}
