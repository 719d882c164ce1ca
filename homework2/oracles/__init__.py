"""Expected values of the hidden tests, by routes of their own. Never released.

Imports numpy, scipy, scikit-learn and torch only: a shared bug must not mark itself right.
"""

from homework2.oracles.transport import penalised_value, plan_by_lumps, work_on_the_line

__all__ = ["work_on_the_line", "plan_by_lumps", "penalised_value"]
