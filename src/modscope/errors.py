"""What can a caller get wrong?

Every error that a caller can cause is one of these, and says what was given, what was wanted and what to do.

    ModscopeError
    ├── WiringError       the model cannot be read, or the example inputs do not fit it
    ├── GraphError        a unit graph is impossible (negative or non-finite edges, wrong shapes)
    ├── PartitionError    labels, or a number of clusters, do not fit the graph
    ├── StatisticsError   a test cannot be done as asked (no samples, a null model for another subject)
    ├── TaskError         a task has no data, or its functions do not fit the model's outputs
    ├── MaskError         a mask does not fit the model, or cannot be learned
    ├── LesionError       units cannot be silenced as asked
    ├── RecordError       a record or a file of ours is damaged, or of a newer version
    ├── DataError         a data set or a checkpoint is missing or damaged
    ├── JobError          work cannot be sent to a worker, or a worker died
    └── StudyError        a command or a study asks for something that cannot be done
"""


class ModscopeError(Exception):
    """Base class of everything that a caller can get wrong."""


class WiringError(ModscopeError, ValueError):
    """The model cannot be read, or the example inputs do not fit it."""


class GraphError(ModscopeError, ValueError):
    """A unit graph is impossible: negative or non-finite edges, or shapes that do not join."""


class PartitionError(ModscopeError, ValueError):
    """Labels, or a number of clusters, do not fit the graph."""


class StatisticsError(ModscopeError, ValueError):
    """A test cannot be done as asked."""


class TaskError(ModscopeError, ValueError):
    """A task has no data, or its functions do not fit the model's outputs."""


class MaskError(ModscopeError, ValueError):
    """A mask does not fit the model, or cannot be learned."""


class LesionError(ModscopeError, ValueError):
    """Units cannot be silenced as asked."""


class RecordError(ModscopeError, ValueError):
    """A record, or another file of ours, is damaged or of a newer version."""


class DataError(ModscopeError, ValueError):
    """A data set or a checkpoint is missing or damaged."""


class JobError(ModscopeError, RuntimeError):
    """Work cannot be sent to a worker, or a worker died."""


class StudyError(ModscopeError, ValueError):
    """A command or a study asks for something that cannot be done."""
