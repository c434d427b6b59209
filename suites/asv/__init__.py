"""sparsebench as asv benchmarks."""
