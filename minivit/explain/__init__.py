"""What a model looked at, and what depends on it: maps, interventions, shares of a logit."""

from minivit.explain.contributions import attention_parts as attention_parts
from minivit.explain.contributions import contributions as contributions
from minivit.explain.interventions import intervene as intervene
from minivit.explain.lens import logit_lens as logit_lens
from minivit.explain.maps import class_attention as class_attention
from minivit.explain.maps import patch_map as patch_map
from minivit.explain.maps import query_attention as query_attention
from minivit.explain.methods import METHODS as METHODS
from minivit.explain.parts import Recording as Recording
from minivit.explain.parts import record as record
from minivit.explain.ranking import rank_parts as rank_parts
from minivit.explain.rollout import rollout as rollout
from minivit.explain.similarity import position_similarity as position_similarity
from minivit.explain.stored_attention import StoredAttention as StoredAttention
from minivit.explain.stored_attention import store_queries_keys as store_queries_keys

__all__ = [
    "METHODS",
    "Recording",
    "StoredAttention",
    "attention_parts",
    "class_attention",
    "contributions",
    "intervene",
    "logit_lens",
    "patch_map",
    "position_similarity",
    "query_attention",
    "rank_parts",
    "record",
    "rollout",
    "store_queries_keys",
]
