"""Feature extractors: networks that turn images into features, and into class logits if they classify."""

from diffusers_ext.metrics.extractors.by_name import load_feature_extractor as load_feature_extractor
from diffusers_ext.metrics.extractors.feature_extractor import (
    FeatureExtractor as FeatureExtractor,
    FeatureOutput as FeatureOutput,
    NetworkExtractor as NetworkExtractor,
    extract_features as extract_features,
)
