"""sparsebench as asv benchmarks: track.py. How asv makes environments for them: plugins/beside.py."""
