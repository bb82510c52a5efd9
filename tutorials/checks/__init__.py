"""Checks of the exercises: what is wrong with an answer, and why.

`python -m tutorials.checks` prints which are solved.
"""

from tutorials.checks.exercise import EXERCISES as EXERCISES
from tutorials.checks.lesson_00 import *  # noqa: F403
from tutorials.checks.lesson_01 import *  # noqa: F403
from tutorials.checks.lesson_02 import *  # noqa: F403
from tutorials.checks.lesson_03 import *  # noqa: F403
from tutorials.checks.lesson_04 import *  # noqa: F403
from tutorials.checks.lesson_05 import *  # noqa: F403
from tutorials.checks.lesson_06 import *  # noqa: F403
from tutorials.checks.lesson_07 import *  # noqa: F403
from tutorials.checks.lesson_08 import *  # noqa: F403
from tutorials.checks.lesson_09 import *  # noqa: F403
from tutorials.checks.lesson_10 import *  # noqa: F403
