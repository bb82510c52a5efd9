"""Figures of what a model looks at and how its training went, made with matplotlib.

No figure is registered with pyplot and none is shown or saved here: `figure.savefig(path)`.
"""

from minivit.viz.ablation_figures import ablation_figure as ablation_figure
from minivit.viz.attention_figures import attention_figure as attention_figure
from minivit.viz.caption_figures import caption_figure as caption_figure
from minivit.viz.class_figures import confusion_figure as confusion_figure
from minivit.viz.class_figures import mistakes_figure as mistakes_figure
from minivit.viz.contact_sheet import contact_sheet as contact_sheet
from minivit.viz.doctor_figures import doctor_figure as doctor_figure
from minivit.viz.method_figures import methods_figure as methods_figure
from minivit.viz.model_figures import model_figure as model_figure
from minivit.viz.position_figures import positions_figure as positions_figure
from minivit.viz.score_figures import scores_figure as scores_figure
from minivit.viz.training_figures import comparison_figure as comparison_figure
from minivit.viz.training_figures import curves_figure as curves_figure
from minivit.viz.training_figures import gallery_figure as gallery_figure

__all__ = [
    "ablation_figure",
    "attention_figure",
    "caption_figure",
    "comparison_figure",
    "confusion_figure",
    "contact_sheet",
    "doctor_figure",
    "curves_figure",
    "gallery_figure",
    "methods_figure",
    "mistakes_figure",
    "model_figure",
    "positions_figure",
    "scores_figure",
]
