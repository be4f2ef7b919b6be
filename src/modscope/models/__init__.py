"""Which networks are there: those of the papers, and those that others published?"""

from modscope.models.published import NETWORKS, PublishedNetwork, load

__all__ = ["NETWORKS", "PublishedNetwork", "load"]
