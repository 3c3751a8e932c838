"""Metrics of generated and restored images: plain functions on features and images, and the feature extractors.

Extractors turn images into features (`load_feature_extractor`, `extract_features`); metrics turn features into values
(`compute_metrics`, or the function of a single metric). Likelihoods, which need a model instead of images, are in
`diffusers_ext.likelihoods`.
"""

from diffusers_ext.metrics.accuracy import class_accuracy as class_accuracy, match_class_ids as match_class_ids
from diffusers_ext.metrics.classification_score import (
    classification_accuracy_score as classification_accuracy_score,
)
from diffusers_ext.metrics.compute import METRICS as METRICS, compute_metrics as compute_metrics
from diffusers_ext.metrics.edge_agreement import edge_f1 as edge_f1
from diffusers_ext.metrics.extractors import (
    FeatureExtractor as FeatureExtractor,
    FeatureOutput as FeatureOutput,
    NetworkExtractor as NetworkExtractor,
    extract_features as extract_features,
    load_feature_extractor as load_feature_extractor,
)
from diffusers_ext.metrics.frechet import (
    FeatureStatistics as FeatureStatistics,
    fid as fid,
    frechet_distance as frechet_distance,
)
from diffusers_ext.metrics.inception_score import inception_score as inception_score
from diffusers_ext.metrics.kernel import (
    kid as kid,
    polynomial_kernel as polynomial_kernel,
    rbf_kernel as rbf_kernel,
)
from diffusers_ext.metrics.modes import class_coverage as class_coverage
from diffusers_ext.metrics.neighbours import prdc as prdc, precision_recall as precision_recall
from diffusers_ext.metrics.outliers import auroc as auroc
from diffusers_ext.metrics.perceptual_distances import (
    LPIPS as LPIPS,
    DeepFeatureDistance as DeepFeatureDistance,
    ImageDistance as ImageDistance,
    pairwise_diversity as pairwise_diversity,
    perceptual_distance as perceptual_distance,
)
from diffusers_ext.metrics.restoration import (
    RESTORATION_METRICS as RESTORATION_METRICS,
    restoration_metrics as restoration_metrics,
)
from diffusers_ext.metrics.retrieval import (
    linear_probe_accuracy as linear_probe_accuracy,
    retrieval_recall as retrieval_recall,
)
from diffusers_ext.metrics.similarity import psnr as psnr, ssim as ssim
from diffusers_ext.metrics.single_image import (
    PatchPixels as PatchPixels,
    shuffle_patches as shuffle_patches,
    single_image_fid as single_image_fid,
)
