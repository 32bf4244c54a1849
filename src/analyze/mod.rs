//! Analyze: a pure function from a snapshot to findings; one detector per file.
