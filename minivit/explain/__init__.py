"""What a model looked at: maps, similarities of its positions, and how far maps can be trusted."""

from minivit.explain.examples import Example as Example
from minivit.explain.examples import PhotoExamples as PhotoExamples
from minivit.explain.examples import SceneExamples as SceneExamples
from minivit.explain.maps import class_attention as class_attention
from minivit.explain.maps import patch_map as patch_map
from minivit.explain.maps import query_attention as query_attention
from minivit.explain.methods import METHODS as METHODS
from minivit.explain.rollout import rollout as rollout
from minivit.explain.score_rows import MethodScores as MethodScores
from minivit.explain.scoring import scores as scores
from minivit.explain.similarity import position_similarity as position_similarity
from minivit.explain.stored_attention import StoredAttention as StoredAttention
from minivit.explain.stored_attention import store_queries_keys as store_queries_keys

__all__ = [
    "METHODS",
    "Example",
    "MethodScores",
    "PhotoExamples",
    "SceneExamples",
    "StoredAttention",
    "class_attention",
    "patch_map",
    "position_similarity",
    "query_attention",
    "rollout",
    "scores",
    "store_queries_keys",
]
