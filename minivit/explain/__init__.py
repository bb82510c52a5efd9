"""What a model looked at: maps from attention weights, and similarities of its positions."""

from minivit.explain.maps import class_attention as class_attention
from minivit.explain.maps import patch_map as patch_map
from minivit.explain.maps import query_attention as query_attention
from minivit.explain.rollout import rollout as rollout
from minivit.explain.similarity import PositionScores as PositionScores
from minivit.explain.similarity import position_scores as position_scores
from minivit.explain.similarity import position_similarity as position_similarity
from minivit.explain.stored_attention import StoredAttention as StoredAttention
from minivit.explain.stored_attention import store_queries_keys as store_queries_keys

__all__ = [
    "PositionScores",
    "StoredAttention",
    "class_attention",
    "patch_map",
    "position_scores",
    "position_similarity",
    "query_attention",
    "rollout",
    "store_queries_keys",
]
