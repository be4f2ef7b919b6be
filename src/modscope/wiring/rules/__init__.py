"""How do ids travel through each operation? One small function per operation; a new one is a new function."""

from modscope.wiring.rules import elementwise, norms, positions, products, recurrent, shapes, weights
from modscope.wiring.rules.registry import RULES, keywords_for, rule, rule_for

# Importing a file registers its rules.
RULE_FILES = (shapes, elementwise, norms, positions, products, weights, recurrent)

__all__ = ["RULES", "RULE_FILES", "keywords_for", "rule", "rule_for"]
