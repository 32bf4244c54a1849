//! The control cycle of one replica: the pure stages put together, in the order of the design.
