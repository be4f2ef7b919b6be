from modscope.models.published import NETWORKS, PublishedNetwork, load

__all__ = ["NETWORKS", "PublishedNetwork", "load"]
