//! Consensus: replicas agree on the order of commands, whatever up to f of them do.
