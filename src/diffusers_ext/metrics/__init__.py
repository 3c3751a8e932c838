"""How good generated images are: metrics as plain functions on features, and the networks that give features.

Images become features (`load_feature_extractor`, `extract_features`), features become numbers (`compute_metrics`, or
one metric's function). Likelihoods, which need a model in place of images, are in `metrics.likelihood`.
"""

from diffusers_ext.metrics.accuracy import class_accuracy, match_class_ids
from diffusers_ext.metrics.compute import METRICS, compute_metrics
from diffusers_ext.metrics.edges import edge_f1
from diffusers_ext.metrics.extractors import (
    FeatureExtractor,
    FeatureOutput,
    NetworkExtractor,
    extract_features,
    load_feature_extractor,
)
from diffusers_ext.metrics.frechet import FeatureStatistics, fid, frechet_distance
from diffusers_ext.metrics.inception_score import inception_score
from diffusers_ext.metrics.kernel import kid, polynomial_kernel, rbf_kernel
from diffusers_ext.metrics.modes import class_coverage
from diffusers_ext.metrics.neighbours import prdc, precision_recall
from diffusers_ext.metrics.perceptual import (
    LPIPS,
    DeepFeatureDistance,
    ImageDistance,
    pairwise_diversity,
    perceptual_distance,
)
from diffusers_ext.metrics.restoration import RESTORATION_METRICS, restoration_metrics
from diffusers_ext.metrics.similarity import psnr, ssim


__all__ = [
    "LPIPS",
    "METRICS",
    "RESTORATION_METRICS",
    "DeepFeatureDistance",
    "FeatureExtractor",
    "FeatureOutput",
    "FeatureStatistics",
    "ImageDistance",
    "NetworkExtractor",
    "class_accuracy",
    "class_coverage",
    "compute_metrics",
    "edge_f1",
    "extract_features",
    "fid",
    "frechet_distance",
    "inception_score",
    "kid",
    "load_feature_extractor",
    "match_class_ids",
    "pairwise_diversity",
    "perceptual_distance",
    "polynomial_kernel",
    "prdc",
    "precision_recall",
    "psnr",
    "rbf_kernel",
    "restoration_metrics",
    "ssim",
]
