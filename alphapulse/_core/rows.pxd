from alphapulse._core.levels cimport LevelStage


cdef int stage_rows(LevelStage stage, object rows) except -1
