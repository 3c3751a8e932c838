"""Feature extractors: images in, features and perhaps class logits out."""

from diffusers_ext.metrics.extractors.feature_extractor import (
    FeatureExtractor,
    FeatureOutput,
    NetworkExtractor,
    extract_features,
)
from diffusers_ext.metrics.extractors.loading import load_feature_extractor


__all__ = ["FeatureExtractor", "FeatureOutput", "NetworkExtractor", "extract_features", "load_feature_extractor"]
