"""What is a network asked to do?"""

from modscope.tasks import losses

__all__ = ["losses"]
