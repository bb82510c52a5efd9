"""What a model looked at, what depends on it, and how far a map of it can be trusted."""

from minivit.explain.attention_distance import attention_distance as attention_distance
from minivit.explain.attention_entropy import attention_entropy as attention_entropy
from minivit.explain.contributions import attention_parts as attention_parts
from minivit.explain.contributions import contributions as contributions
from minivit.explain.examples import Example as Example
from minivit.explain.examples import PhotoExamples as PhotoExamples
from minivit.explain.examples import SceneExamples as SceneExamples
from minivit.explain.filters import filter_components as filter_components
from minivit.explain.interventions import intervene as intervene
from minivit.explain.kept import logits_of_kept as logits_of_kept
from minivit.explain.lens import logit_lens as logit_lens
from minivit.explain.maps import class_attention as class_attention
from minivit.explain.maps import patch_map as patch_map
from minivit.explain.maps import query_attention as query_attention
from minivit.explain.mass import mass_by_kind as mass_by_kind
from minivit.explain.methods import METHODS as METHODS
from minivit.explain.outliers import outlier_tokens as outlier_tokens
from minivit.explain.parts import Recording as Recording
from minivit.explain.parts import record as record
from minivit.explain.ranking import rank_parts as rank_parts
from minivit.explain.rollout import rollout as rollout
from minivit.explain.score_rows import MethodScores as MethodScores
from minivit.explain.scoring import scores as scores
from minivit.explain.similarity import position_similarity as position_similarity
from minivit.explain.stored_attention import StoredAttention as StoredAttention
from minivit.explain.stored_attention import store_queries_keys as store_queries_keys
from minivit.explain.token_similarity import token_similarity as token_similarity

__all__ = [
    "METHODS",
    "Example",
    "MethodScores",
    "PhotoExamples",
    "Recording",
    "SceneExamples",
    "StoredAttention",
    "attention_distance",
    "attention_entropy",
    "attention_parts",
    "class_attention",
    "contributions",
    "filter_components",
    "intervene",
    "logit_lens",
    "logits_of_kept",
    "mass_by_kind",
    "outlier_tokens",
    "patch_map",
    "position_similarity",
    "query_attention",
    "rank_parts",
    "record",
    "rollout",
    "scores",
    "store_queries_keys",
    "token_similarity",
]
