"""How good generated images are: metrics as plain functions on features, and the networks that give features.

Images become features (`load_feature_extractor`, `extract_features`), features become numbers (`compute_metrics`, or
one metric's function).
"""

from diffusers_ext.metrics.accuracy import class_accuracy, match_class_ids
from diffusers_ext.metrics.compute import METRICS, compute_metrics
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
from diffusers_ext.metrics.likelihood import (
    LIKELIHOODS,
    ODELikelihood,
    VariationalBound,
    discrete_process,
    likelihood_rows,
    ode_bits_per_dim,
    vlb_bits_per_dim,
)
from diffusers_ext.metrics.neighbours import prdc, precision_recall


__all__ = [
    "LIKELIHOODS",
    "METRICS",
    "FeatureExtractor",
    "FeatureOutput",
    "FeatureStatistics",
    "NetworkExtractor",
    "ODELikelihood",
    "VariationalBound",
    "class_accuracy",
    "compute_metrics",
    "discrete_process",
    "extract_features",
    "fid",
    "frechet_distance",
    "inception_score",
    "kid",
    "likelihood_rows",
    "load_feature_extractor",
    "match_class_ids",
    "ode_bits_per_dim",
    "polynomial_kernel",
    "prdc",
    "precision_recall",
    "rbf_kernel",
    "vlb_bits_per_dim",
]
