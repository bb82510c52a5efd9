"""What a model looked at, what depends on it, and how far a map of it can be trusted."""

from minivit.explain.describe.attention_distance import attention_distance as attention_distance
from minivit.explain.describe.attention_entropy import attention_entropy as attention_entropy
from minivit.explain.describe.doctor import diagnose as diagnose
from minivit.explain.describe.filters import filter_components as filter_components
from minivit.explain.describe.mass import mass_by_kind as mass_by_kind
from minivit.explain.describe.outliers import outlier_tokens as outlier_tokens
from minivit.explain.describe.symptom import Symptom as Symptom
from minivit.explain.describe.token_similarity import token_similarity as token_similarity
from minivit.explain.inside.contributions import attention_parts as attention_parts
from minivit.explain.inside.contributions import contributions as contributions
from minivit.explain.inside.intervene import intervene as intervene
from minivit.explain.inside.lens import logit_lens as logit_lens
from minivit.explain.inside.parts import Recording as Recording
from minivit.explain.inside.parts import record as record
from minivit.explain.inside.ranking import rank_parts as rank_parts
from minivit.explain.inside.word_ranking import rank_word_parts as rank_word_parts
from minivit.explain.kept import logits_of_kept as logits_of_kept
from minivit.explain.maps import class_attention as class_attention
from minivit.explain.maps import patch_map as patch_map
from minivit.explain.maps import query_attention as query_attention
from minivit.explain.methods.table import METHODS as METHODS
from minivit.explain.region import HeadShare as HeadShare
from minivit.explain.region import box_cells as box_cells
from minivit.explain.region import heads_inside as heads_inside
from minivit.explain.rollout import rollout as rollout
from minivit.explain.scoring.examples import Example as Example
from minivit.explain.scoring.examples import PhotoExamples as PhotoExamples
from minivit.explain.scoring.examples import SceneExamples as SceneExamples
from minivit.explain.scoring.score import scores as scores
from minivit.explain.scoring.score_rows import MethodScores as MethodScores
from minivit.explain.similarity import PositionScores as PositionScores
from minivit.explain.similarity import position_scores as position_scores
from minivit.explain.similarity import position_similarity as position_similarity
from minivit.explain.stored_attention import StoredAttention as StoredAttention
from minivit.explain.stored_attention import store_queries_keys as store_queries_keys

__all__ = [
    "METHODS",
    "Example",
    "HeadShare",
    "MethodScores",
    "PhotoExamples",
    "PositionScores",
    "Recording",
    "SceneExamples",
    "StoredAttention",
    "Symptom",
    "attention_distance",
    "attention_entropy",
    "attention_parts",
    "box_cells",
    "class_attention",
    "contributions",
    "diagnose",
    "filter_components",
    "heads_inside",
    "intervene",
    "logit_lens",
    "logits_of_kept",
    "mass_by_kind",
    "outlier_tokens",
    "patch_map",
    "position_scores",
    "position_similarity",
    "query_attention",
    "rank_parts",
    "rank_word_parts",
    "record",
    "rollout",
    "scores",
    "store_queries_keys",
    "token_similarity",
]
